"""Threads that make calls while their caller does something else."""

import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeAlias, TypeVar

from ._client import Client
from ._wire import Call
from .errors import ProtocolError, StaleVersionError
from .results import Answer

R = TypeVar("R", bound=Answer[Any])

_Job: TypeAlias = tuple[Future[Any], Call[Any]] | None


class Pool(Generic[R]):
    """So many threads, which end with the pool even where nobody closes it.

    Args:
        client: makes the calls; it stays open.
        threads: how many.
        max_age: seconds since the answering version was made, beyond which an answer is a
            `StaleVersionError`; None for no bound.
    """

    def __init__(self, client: Client, threads: int, max_age: float | None) -> None:
        jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        closing = threading.Event()
        ask = _Ask(client, max_age, closing)
        self._jobs = jobs
        # Threads hold the queue and never the pool: one that is dropped unclosed ends them.
        self._threads = [
            threading.Thread(
                target=_work, args=(jobs, ask), name=f"turnpoint-prefetch-{k}", daemon=True
            )
            for k in range(threads)
        ]
        self._end: Callable[[], object] = weakref.finalize(self, _end, jobs, closing, threads)
        for thread in self._threads:
            thread.start()

    def submit(self, call: Call[R]) -> Future[R]:
        """Makes a call as soon as a thread is free."""
        future: Future[R] = Future()
        self._jobs.put((future, call))
        return future

    def close(self, patience: float) -> None:
        """Ends the threads; waits so many seconds at most for the calls under way."""
        self._end()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


class _Ask:
    """Makes one call, and checks the age of the version that answered."""

    def __init__(self, client: Client, max_age: float | None, closing: threading.Event) -> None:
        self._client = client
        self._max_age = max_age
        self._closing = closing
        self._made: dict[str, float] = {}  # version -> when it was made, on our monotonic clock

    def __call__(self, call: Call[R]) -> R:
        answer = self._client._send(call, self._sleep)
        if self._max_age is not None:
            self._check_age(answer, self._max_age)
        return answer

    def _sleep(self, seconds: float) -> None:
        """Waits between tries, and gives up as soon as nobody wants the answer any more."""
        if self._closing.wait(seconds):
            raise CancelledError

    def _check_age(self, answer: R, max_age: float) -> None:
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


def _work(jobs: "queue.SimpleQueue[_Job]", ask: _Ask) -> None:
    """A thread of the pool: one call after the other until there is None."""
    while (job := jobs.get()) is not None:
        future, call = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(ask(call))
            except BaseException as error:  # told in the caller's thread
                future.set_exception(error)
        del future, call, job  # or a batch would be kept until the next one


def _end(jobs: "queue.SimpleQueue[_Job]", closing: threading.Event, threads: int) -> None:
    closing.set()
    for _ in range(threads):
        jobs.put(None)
