"""The bounded queue and the one model thread.

The event loop accepts a job or refuses it; the thread computes jobs one at a time, in order; the
answer goes back through `loop.call_soon_threadsafe`. All counting happens on the event loop, so
nothing here is locked.

Each job has its own generator, so its answer does not depend on what else is served. Jobs are not
merged: on a CPU that gains nothing. `compute` is the seam for a device on which it does: it may
take a list of jobs, and the three stages may then overlap.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import DeadlineExceededError, NotReadyError, OverloadedError
from service.compute import Job, compute

SMOOTHING = 0.1  # of the measured seconds per row: about the last ten jobs count


@dataclass(frozen=True)
class Result:
    """What a job came to.

    Attributes:
        tensors: name -> tensor, in the order of the answer.
        queue_seconds: from acceptance to its turn.
        sample_seconds: in the model thread.
    """

    tensors: dict[str, Tensor]
    queue_seconds: float
    sample_seconds: float


@dataclass(frozen=True)
class _Accepted:
    job: Job
    future: asyncio.Future[Result]
    loop: asyncio.AbstractEventLoop
    at: float


class Engine:
    """Accepts jobs up to a bound, computes them one by one, loses none.

    Args:
        max_rows: most rows accepted and not yet answered.
        max_bytes: most bytes of them.
        threads: of one torch operation.
    """

    def __init__(self, max_rows: int, max_bytes: int, threads: int) -> None:
        self.max_rows, self.max_bytes, self.threads = max_rows, max_bytes, threads
        self.rows = 0
        self.bytes = 0
        self.draining = False
        self._dying = False
        self._seconds_per_row = 0.0
        self._waiting: queue.SimpleQueue[_Accepted | None] = queue.SimpleQueue()
        self._accepted: dict[int, _Accepted] = {}
        self._thread = threading.Thread(target=self._run, name="turnpoint-model", daemon=True)
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Start the model thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the model thread runs."""
        return self._thread.is_alive() and not self._dying

    @property
    def fill(self) -> float:
        """The fuller of rows and bytes, as a share of its bound."""
        return max(self.rows / self.max_rows, self.bytes / self.max_bytes)

    @property
    def drain_seconds(self) -> float:
        """How long what is accepted will take, by the measured rate; 1 before any measure."""
        return self.rows * self._seconds_per_row if self._seconds_per_row else 1.0

    def check_alive(self) -> None:
        """Refuse everything once there is nobody to compute it.

        Raises:
            NotReadyError: draining, or the model thread is dead.
        """
        if not self.alive:
            raise NotReadyError("the model thread is not running; the service must be restarted")
        if self.draining:
            raise NotReadyError("the service is shutting down; ask another replica")

    def check_room(self, rows: int, size: int) -> None:
        """Refuse what there is no room for; asked early, it spares reading the body.

        Raises:
            NotReadyError: see `check_alive`.
            OverloadedError: the queue would exceed its bound in rows or in bytes.
        """
        self.check_alive()
        if self.rows + rows > self.max_rows or self.bytes + size > self.max_bytes:
            raise OverloadedError(
                f"the queue holds {self.rows} rows and {self.bytes} bytes, at most {self.max_rows} "
                f"and {self.max_bytes}: ask again after Retry-After",
                retry_after=self.drain_seconds,
            )

    def submit(self, job: Job) -> asyncio.Future[Result]:
        """Accept a job; cancelling the future drops it if its turn has not come.

        Raises:
            NotReadyError, OverloadedError: see `check_room`.
        """
        self.check_room(job.inputs.rows, job.size)
        loop = asyncio.get_running_loop()
        accepted = _Accepted(job, loop.create_future(), loop, time.monotonic())
        self._accepted[id(accepted)] = accepted
        self.rows += job.inputs.rows
        self.bytes += job.size
        self._idle.clear()
        self._waiting.put(accepted)
        return accepted.future

    async def close(self, patience: float) -> None:
        """Accept no more, answer what was accepted, end the thread.

        Args:
            patience: seconds to wait; what is left then fails with `NotReadyError`.
        """
        self.draining = True
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            self._abandon("the service was shut down before the request's turn came")
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, patience)

    def _run(self) -> None:
        """The model thread. An exception fails its job; whatever is worse fails them all."""
        torch.set_num_threads(self.threads)
        last: _Accepted | None = None
        try:
            while (last := self._waiting.get()) is not None:
                self._turn(last)
        finally:
            if last is not None:
                self._dying = True
                _tell(last.loop, self._abandon, "the model thread died; the service must restart")

    def _turn(self, accepted: _Accepted) -> None:
        """One job: drop it if nobody waits for it any more, else compute it."""
        job, began = accepted.job, time.monotonic()
        outcome: Result | Exception | None = None  # None: the caller hung up
        if job.deadline is not None and began > job.deadline:
            late = (began - job.deadline) * 1000
            outcome = DeadlineExceededError(
                f"its turn came {late:.0f} ms after the deadline of X-Request-Timeout-Ms: "
                "allow more time or ask for less"
            )
        elif not accepted.future.cancelled():
            try:
                tensors = compute(job)
                outcome = Result(tensors, began - accepted.at, time.monotonic() - began)
            except Exception as error:
                outcome = error
        _tell(accepted.loop, self._settle, accepted, outcome)

    def _settle(self, accepted: _Accepted, outcome: Result | Exception | None) -> None:
        """On the event loop: give back the room, hand over the outcome."""
        if self._accepted.pop(id(accepted), None) is None:
            return
        job, future = accepted.job, accepted.future
        self.rows -= job.inputs.rows
        self.bytes -= job.size
        if not self._accepted:
            self._idle.set()
        if isinstance(outcome, Result):
            measured = outcome.sample_seconds / job.inputs.rows
            known = self._seconds_per_row or measured
            self._seconds_per_row = known + SMOOTHING * (measured - known)
        if future.done():
            return
        if isinstance(outcome, Result):
            future.set_result(outcome)
        else:
            future.set_exception(outcome or NotReadyError("dropped"))

    def _abandon(self, why: str) -> None:
        """On the event loop: fail everything that was accepted and not answered."""
        for accepted in list(self._accepted.values()):
            self._settle(accepted, NotReadyError(why))


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *args: object) -> None:
    """Have the event loop call; a loop that is closed has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(call, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
