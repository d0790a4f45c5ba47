"""Negatives asked for before the training loop needs them."""

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar, Unpack

from ._arrays import A
from ._client import Client
from ._options import Options, seconds, whole
from ._wire import Call
from .errors import (
    InvalidInputError,
    ProblemError,
    ProtocolError,
    StaleVersionError,
    TransportError,
    TurnpointClientError,
    UnavailableError,
)
from .results import Negatives

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


class Prefetcher(Generic[P, A]):
    """Iterates over batches and their negatives, `depth` requests ahead of the loop.

        def batches():
            for u, i in loader:  # runs in the loop's thread, `depth` steps ahead of its use
                yield (u, i), users[u].detach(), items[i].detach()

        with Prefetcher(client, batches(), depth=2, returns="negatives") as stream:
            for (u, i), answer in stream:
                ...  # one step of training with answer.negatives, [B, n, d]

    While the loop works on batch k, the negatives of k + 1 … k + depth are being made: a service
    faster than the loop is waited for at the first batch only. `stats` says whether it was so.

    The price: the negatives of batch k follow from embeddings as they were `depth` optimiser steps
    before it (fewer in the first `depth` batches), so depth = 1 if that is enough.

    What is copied, and when: batch k + depth is drawn from `batches` once the answer to k is there
    and before the loop gets it, in the loop's own thread. There and then its arrays are copied into
    the request, so that an optimiser may change them in place as soon as `next` has returned. From
    another device they are first copied to the host, which waits for that device. The payload is
    handed back as it is; it is not copied.

    An error is raised at the batch that it belongs to, after all batches before it; `next` then
    goes on with the batch after it. Leaving the `with` block, in whatever way, drops what is still
    on its way and ends the threads, as the end of `batches` does. It takes a second at most: a
    thread that a silent service keeps waiting ends later, with the client's `timeout`. One thread
    at a time may iterate. The client stays open.

    Args:
        client: whose connections, retries and stats are used; other threads may use it as well.
        batches: gives `(payload, users, positives)`, or with a fourth entry the `Options` of that
            batch alone, such as `{"threshold": scores}`. Drawn from no earlier than needed.
        depth: requests in flight, each with a thread of its own; at least 1.
        n: negatives per row.
        returns: as in `Client.negatives`. "negatives" alone takes the fastest format.
        fallback: makes negatives [B, n, d] from the payload when the service cannot: it is called
            at the batch's turn, in the loop's thread, and may read parameters as they then are.
            It stands in for `UnavailableError`, `TransportError` and `StaleVersionError`; any other
            error is a mistake and is raised. Its answers have `version` "fallback", seed -1, and
            nothing but negatives. Give a `deadline` with it, the longest that a batch may take.
        pause: seconds for which the service is left alone after a fallback, longer if its
            `Retry-After` says so; in between the fallback is used without asking. Afterwards it is
            asked without retries until it answers, so that a service that is down costs nothing.
        max_version_age: seconds that may have passed since the answering version was made; an older
            one is an error, `StaleVersionError`: a trainer that stopped publishing goes unnoticed
            otherwise. Asks `GET /models/{name}` once per version; clocks need not agree.
        **options: see `Options`; the same for every batch, except that batch k = 0, 1, … is asked
            with `seed` + k, so that a run can be repeated and no two batches share their noise.

    Attributes:
        stats: what prefetching came to so far.

    Raises:
        InvalidInputError: depth < 1, pause < 0, max_version_age <= 0 or beside a pinned version.
    """

    def __init__(
        self,
        client: Client,
        batches: Iterable[Batch[P, A]],
        *,
        depth: int = 2,
        n: int = 1,
        returns: str | Iterable[str] | None = None,
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
        self._returns = returns if returns is None or isinstance(returns, str) else list(returns)
        self._fallback = fallback
        self._pause = pause
        self._options = options
        self._asked: deque[_Asked] = deque()
        self._count = 0
        self._down = False  # the last answer was a fallback's
        self._resume = 0.0  # when the service may be asked again
        jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        closing = threading.Event()
        ask = _Ask(client, seconds("max_version_age", max_version_age), closing)
        self._jobs = jobs
        # Threads hold the queue and never the prefetcher: one that is dropped unclosed ends them.
        self._threads = [
            threading.Thread(
                target=_work, args=(jobs, ask), name=f"turnpoint-prefetch-{k}", daemon=True
            )
            for k in range(depth)
        ]
        self._end = weakref.finalize(self, _end, jobs, closing, depth)
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[P, Negatives[A]]:
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
        self._end()
        until = time.monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

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

    def _submit(self, batch: Batch[P, A]) -> "_Asked":
        """Sends one batch on its way, unless the service is being left alone."""
        try:
            payload, users, positives, *own = _parts(batch)
            call = self._call(users, positives, *own)
        except Exception as error:
            return _Asked(None, (), _failed(error))
        finally:
            self._count += 1
        shape = (users.shape[0], self._n, users.shape[1])
        if self._down and time.monotonic() < self._resume:
            return _Asked(payload, shape, None)
        future: Future[Negatives[Any]] = Future()
        self._jobs.put((future, replace(call, repeatable=not self._down)))
        return _Asked(payload, shape, future)

    def _call(self, users: A, positives: A, own: Options | None = None) -> Call[Negatives[A]]:
        """The request of a batch, its arrays copied."""
        options: Options = {**self._options}
        if (seed := options.get("seed")) is not None:
            options["seed"] = whole("seed", seed) + self._count
        options.update(own or {})
        wire = self._client._wire
        call = wire.negatives(users, positives, n=self._n, returns=self._returns, **options)
        return replace(call, body=None if call.body is None else call.body.snapshot())

    def _settle(self, asked: "_Asked") -> Negatives[A]:
        """The negatives of a batch whose turn has come."""
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

    def _stand_in(self, asked: "_Asked") -> Negatives[A]:
        """What the fallback makes, dressed as an answer."""
        assert self._fallback is not None  # noqa: S101  # without one nothing is left unasked
        negatives = self._fallback(asked.payload)
        if tuple(negatives.shape) != asked.shape:
            came = list(negatives.shape)
            raise InvalidInputError(f"the fallback made {came}, expected {list(asked.shape)}")
        self.stats.fallbacks += 1
        return Negatives(model=FALLBACK, version=FALLBACK, seed=-1, negatives=negatives)


@dataclass(frozen=True)
class _Asked:
    """A batch on its way; without a future if the service was not asked."""

    payload: Any
    shape: tuple[int, ...]
    future: Future[Negatives[Any]] | None


_Job: TypeAlias = tuple[Future[Negatives[Any]], Call[Negatives[Any]]] | None


class _Ask:
    """Makes one call in a thread of the pool, and checks the age of the version that answered."""

    def __init__(self, client: Client, max_age: float | None, closing: threading.Event) -> None:
        self._client = client
        self._max_age = max_age
        self._closing = closing
        self._made: dict[str, float] = {}  # version -> when it was made, on our monotonic clock

    def __call__(self, call: Call[Negatives[Any]]) -> Negatives[Any]:
        answer = self._client._send(call, self._sleep)
        if self._max_age is not None:
            self._check_age(answer, self._max_age)
        return answer

    def _sleep(self, seconds: float) -> None:
        """Waits between tries, and gives up as soon as nobody wants the answer any more."""
        if self._closing.wait(seconds):
            raise CancelledError

    def _check_age(self, answer: Negatives[Any], max_age: float) -> None:
        if answer.version not in self._made:
            wire = self._client._wire
            model = self._client._send(wire.model(answer.model), self._sleep)
            if model.age_seconds is None:
                raise ProtocolError(
                    f"the service does not tell the age of {answer.model}; "
                    "leave max_version_age out"
                )
            if model.live != answer.version:
                return  # replaced a moment ago, so it was live until then
            self._made[answer.version] = time.monotonic() - model.age_seconds
        age = time.monotonic() - self._made[answer.version]
        if age > max_age:
            raise StaleVersionError(
                f"{answer.model} {answer.version} was made {age:.0f} s ago, "
                f"max_version_age is {max_age:g}; is its trainer still publishing?"
            )


def _parts(batch: Any) -> tuple[Any, ...]:
    if not isinstance(batch, tuple | list) or not 3 <= len(batch) <= 4:
        told = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise InvalidInputError(
            f"a batch is {told}; yield (payload, users, positives) or, fourth, a dict of options"
        )
    return tuple(batch)


def _work(jobs: "queue.SimpleQueue[_Job]", ask: _Ask) -> None:
    """A thread of the pool: one call after the other until there is None."""
    while (job := jobs.get()) is not None:
        future, call = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(ask(call))
            except BaseException as error:  # told in the loop's thread
                future.set_exception(error)
        del future, call, job  # or a batch would be kept until the next one


def _end(jobs: "queue.SimpleQueue[_Job]", closing: threading.Event, threads: int) -> None:
    closing.set()
    for _ in range(threads):
        jobs.put(None)


def _failed(error: Exception) -> Future[Negatives[Any]]:
    future: Future[Negatives[Any]] = Future()
    future.set_exception(error)
    return future
