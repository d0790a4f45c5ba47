"""When to ask again, and after how long. No clock is slept on here: the clients do that."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from .errors import (
    ConnectError,
    DeadlineExceededError,
    DisconnectedError,
    InvalidInputError,
    ProblemError,
    ProtocolError,
    TimedOutError,
    TurnpointClientError,
)

# A read that timed out is not asked again: the caller has waited, the service may still be at it.
TRANSIENT_TROUBLE = (
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
    httpx.ConnectTimeout,
)
TRANSIENT_STATUS = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often and how patiently a call is repeated; every call is safe to repeat.

    The wait before retry i = 0, 1, … is uniform on [0, min(cap, base 2^i)], exponential back-off
    with full jitter, on top of what `Retry-After` asks for. A wait that would overrun `max_wait` or
    the call's deadline is not begun: the error is raised at once, and nobody asks too soon.

    Attributes:
        limit: retries after the first try; 0 turns them off.
        base: seconds, scale of the first wait.
        cap: seconds, the longest the exponential part becomes.
        max_wait: seconds one call may spend waiting between tries, altogether.
    """

    limit: int = 4
    base: float = 0.1
    cap: float = 5.0
    max_wait: float = 30.0

    def __post_init__(self) -> None:
        if self.limit < 0 or min(self.base, self.cap, self.max_wait) < 0:
            raise InvalidInputError(f"{self} has a negative field; pass 0 or more")

    def wait(self, tries: int, uniform: float, asked: float | None) -> float:
        """Seconds before the next try, after `tries` retries; `uniform` is a draw from [0, 1)."""
        return (asked or 0.0) + uniform * min(self.cap, self.base * 2.0**tries)


class Stats:
    """Counters of one client since it was made.

    Attributes:
        requests: sent, retries included.
        retries: of these, repeats.
        waited: seconds spent waiting between tries.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0
        self.waited = 0.0
        self._lock = threading.Lock()  # one client may serve several threads

    def count(self, *, requests: int = 0, retries: int = 0, waited: float = 0.0) -> None:
        """Adds to the counters."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.waited += waited

    def __repr__(self) -> str:
        return f"Stats(requests={self.requests}, retries={self.retries}, waited={self.waited:.3f})"


class Course:
    """One call from its first try to its end: how long is left, and whether to try again.

    Args:
        deadline: seconds the whole call may take, waits included; None for no bound.
        retries: the policy.
        stats: where to count.
        uniform: draws from [0, 1).
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        deadline: float | None,
        retries: Retries,
        stats: Stats,
        *,
        uniform: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retries = retries
        self._stats = stats
        self._uniform = uniform
        self._clock = clock
        self._deadline = deadline
        self._expires = None if deadline is None else clock() + deadline
        self._tries = 0
        self._waited = 0.0

    def left(self) -> float | None:
        """Seconds until the deadline; None without one.

        Raises:
            TimedOutError: it has passed.
        """
        if self._expires is None:
            return None
        left = self._expires - self._clock()
        if left <= 0:
            raise TimedOutError(
                f"the deadline of {self._deadline} s passed after {self._tries} retries"
            )
        return left

    def pause(self, error: Exception) -> float:
        """Seconds to wait before the next try.

        Raises:
            TurnpointClientError: there is no next try; it says what `error` meant.
        """
        meaning = meaning_of(error)
        asked = meaning.retry_after if isinstance(meaning, ProblemError) else None
        wait = self._retries.wait(self._tries, self._uniform(), asked)
        patience = min(
            self._retries.max_wait - self._waited,
            float("inf") if self._expires is None else self._expires - self._clock(),
        )
        if not transient(error) or self._tries >= self._retries.limit or wait > patience:
            if meaning is error:
                raise error
            raise meaning from error
        self._tries += 1
        self._waited += wait
        self._stats.count(retries=1, waited=wait)
        return wait


def transient(error: Exception) -> bool:
    """Whether the same request may well succeed a little later."""
    if isinstance(error, ProblemError):
        # The service's own 504 says that the caller's time is over; a gateway's, that its own was.
        return error.status in TRANSIENT_STATUS and not isinstance(error, DeadlineExceededError)
    return isinstance(error, TRANSIENT_TROUBLE)


def meaning_of(error: Exception) -> TurnpointClientError:
    """An error of ours as it is; one of httpx in our terms."""
    if isinstance(error, TurnpointClientError):
        return error
    what = str(error) or type(error).__name__
    if isinstance(error, httpx.TimeoutException):
        return TimedOutError(f"no answer in time ({type(error).__name__}: {what})")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return ConnectError(f"the service cannot be reached: {what}")
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return DisconnectedError(f"the connection broke before the answer was whole: {what}")
    return ProtocolError(f"{type(error).__name__}: {what}")
