"""Answers asked for before the training loop needs them: order, waiting, fallbacks, endings."""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar, Unpack

from ._arrays import A
from ._client import Client
from ._options import Options, seconds, whole
from ._pool import Pool, R
from ._wire import Call
from .errors import (
    InvalidInputError,
    ProblemError,
    StaleVersionError,
    TransportError,
    TurnpointClientError,
    UnavailableError,
)

P = TypeVar("P")

Batch: TypeAlias = tuple[P, A, A] | tuple[P, A, A, Options]
"""What one step needs: anything the loop wants back, users [B, d], positives [B, d], options."""

FALLBACK = "fallback"  # the version of negatives that were made by the fallback
CLOSE_SECONDS = 1.0  # that `close` waits for requests under way, which take milliseconds
NOT_NOW = (UnavailableError, TransportError, StaleVersionError)


@dataclass
class PrefetchStats:
    """What prefetching came to so far.

    Attributes:
        batches: handed to the loop.
        late: of these, answers that were not there yet when the loop asked for them. The first
            always is; many more mean that the service is slower than the loop, or `depth` too low.
        waited: seconds the loop stood still for them, altogether.
        fallbacks: batches whose negatives the fallback made.
        trouble: the last error that the fallback stood in for.
    """

    batches: int = 0
    late: int = 0
    waited: float = 0.0
    fallbacks: int = 0
    trouble: TurnpointClientError | None = None


class Ahead(ABC, Generic[P, A, R]):
    """Batches and the answers to them; what is asked is a subclass's. See `Prefetcher`."""

    def __init__(
        self,
        client: Client,
        batches: Iterable[Batch[P, A]],
        *,
        depth: int = 2,
        n: int = 1,
        fallback: Callable[[P], A] | None = None,
        pause: float = 1.0,
        max_version_age: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        if whole("depth", depth) < 1:
            raise InvalidInputError(f"depth is {depth}; pass at least 1")
        if not pause >= 0:
            raise InvalidInputError(f"pause is {pause}; pass 0 seconds or more")
        if max_version_age is not None and options.get("version") is not None:
            raise InvalidInputError("max_version_age beside a pinned version; pass one of the two")
        self.stats = PrefetchStats()
        self._client = client
        self._batches: Iterator[Batch[P, A]] | None = iter(batches)
        self._depth = depth
        self._n = n
        self._fallback = fallback
        self._pause = pause
        self._options = options
        self._asked: deque[_Asked[R]] = deque()
        self._count = 0
        self._down = False  # the last answer was a fallback's
        self._resume = 0.0  # when the service may be asked again
        self._pool: Pool[R] = Pool(client, depth, seconds("max_version_age", max_version_age))

    @abstractmethod
    def _request(self, users: A, positives: A, options: Options) -> Call[R]:
        """The call of a batch."""

    @abstractmethod
    def _shape(self, users: A) -> tuple[int, ...]:
        """What the fallback must make for a batch."""

    @abstractmethod
    def _dressed(self, made: A) -> R:
        """What the fallback made, as an answer."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[P, R]:
        self._fill()  # before the first batch, and after an error
        if not self._asked:
            self.close()
            raise StopIteration
        asked = self._asked.popleft()
        answer = self._settle(asked)
        self._fill()
        self.stats.batches += 1
        return asked.payload, answer

    def close(self) -> None:
        """Drops what is on its way and ends the threads; iteration is over."""
        self._batches = None
        while self._asked:
            if (future := self._asked.popleft().future) is not None:
                future.cancel()
        self._pool.close(CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _fill(self) -> None:
        """Asks ahead, up to `depth` batches."""
        while self._batches is not None and len(self._asked) < self._depth:
            try:
                batch = next(self._batches)
            except StopIteration:
                self._batches = None
                return
            except Exception as error:
                self._batches = None
                self._asked.append(_Asked(None, (), _failed(error)))
                return
            self._asked.append(self._submit(batch))

    def _submit(self, batch: Batch[P, A]) -> "_Asked[R]":
        """Sends one batch on its way, unless the service is being left alone."""
        try:
            payload, users, positives, *own = _parts(batch)
            call = self._call(users, positives, *own)
        except Exception as error:
            return _Asked(None, (), _failed(error))
        finally:
            self._count += 1
        shape = self._shape(users)
        if self._down and time.monotonic() < self._resume:
            return _Asked(payload, shape, None)
        future = self._pool.submit(replace(call, repeatable=not self._down))
        return _Asked(payload, shape, future)

    def _call(self, users: A, positives: A, own: Options | None = None) -> Call[R]:
        """The request of a batch, its arrays copied."""
        options: Options = {**self._options}
        if (seed := options.get("seed")) is not None:
            options["seed"] = whole("seed", seed) + self._count
        options.update(own or {})
        call = self._request(users, positives, options)
        return replace(call, body=None if call.body is None else call.body.snapshot())

    def _settle(self, asked: "_Asked[R]") -> R:
        """The answer to a batch whose turn has come."""
        future = asked.future
        if future is None:
            return self._stand_in(asked)
        if not future.done():
            self.stats.late += 1
            begin = time.perf_counter()
            wait([future])
            self.stats.waited += time.perf_counter() - begin
        try:
            answer = future.result()
        except NOT_NOW as error:
            if self._fallback is None:
                raise
            asked_for = error.retry_after if isinstance(error, ProblemError) else None
            self._down = True
            self._resume = time.monotonic() + max(self._pause, asked_for or 0.0)
            self.stats.trouble = error
            return self._stand_in(asked)
        self._down = False
        return answer

    def _stand_in(self, asked: "_Asked[R]") -> R:
        """What the fallback makes, dressed as an answer."""
        assert self._fallback is not None  # noqa: S101  # without one nothing is left unasked
        made = self._fallback(asked.payload)
        if tuple(made.shape) != asked.shape:
            came = list(made.shape)
            raise InvalidInputError(f"the fallback made {came}, expected {list(asked.shape)}")
        self.stats.fallbacks += 1
        return self._dressed(made)


@dataclass(frozen=True)
class _Asked(Generic[R]):
    """A batch on its way; without a future if the service was not asked."""

    payload: Any
    shape: tuple[int, ...]
    future: Future[R] | None


def _parts(batch: Any) -> tuple[Any, ...]:
    if not isinstance(batch, tuple | list) or not 3 <= len(batch) <= 4:
        told = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise InvalidInputError(
            f"a batch is {told}; yield (payload, users, positives) or, fourth, a dict of options"
        )
    return tuple(batch)


def _failed(error: Exception) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_exception(error)
    return future
