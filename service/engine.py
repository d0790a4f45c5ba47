"""Accepts jobs up to a bound, has the model thread compute them, loses none.

The event loop accepts or refuses; the thread takes what waits, in a fair order; what it settles
comes back through `loop.call_soon_threadsafe`. All counting happens on the event loop, so nothing
here is locked. A thread that died or is stuck fails the engine: what was accepted gets its answer,
a 503, and whoever runs the process is to end it (`failure` says why).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

import torch

from core.errors import NotReadyError, OverloadedError
from service.batching import AUTO_ROWS
from service.job import Job, Result, Ticket
from service.queue import FairQueue
from service.room import Room
from service.settings import BatchingSettings, ServerSettings
from service.staging import memory_of
from service.watchdog import until_stuck
from service.worker import WAY_BACK, Settled, Worker

log = logging.getLogger("turnpoint.service")


class Engine:
    """The queue and its thread.

    Args:
        batching: the bounds, and what is merged.
        server: threads of one torch operation; how long the thread may stand still.
        device: where it computes.
        on_batch: told the rows of every computation.

    Attributes:
        room: what is accepted and not yet answered.
        failure: why nothing can be computed any more, once that is so.
    """

    def __init__(
        self,
        batching: BatchingSettings,
        server: ServerSettings,
        device: torch.device,
        on_batch: Callable[[int], None],
    ) -> None:
        self.room = Room(batching.queue_rows, batching.queue_bytes)
        self.draining = False
        self.failure: str | None = None
        self._on_batch = on_batch
        self._patience = server.hang_seconds
        self._waiting: FairQueue[Ticket] = FairQueue()
        self._accepted: set[Ticket] = set()
        self._worker = Worker(
            self._waiting,
            memory_of(device),
            max_rows=batching.merge_rows or AUTO_ROWS[device.type],
            max_wait=batching.max_wait_ms / 1000,
            threads=server.torch_threads,
            tell=lambda settled: self._call(self._settle, settled),
            died=lambda error: self._call(self._died, error),
        )
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Start the thread and its watchdog, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()
        self._watching = asyncio.create_task(self._watch())

    @property
    def drain_seconds(self) -> float:
        """How long what is accepted will take, by the measured rate; 1 before any measure."""
        pace = self._worker.seconds_per_row
        return self.room.held.rows * pace if pace else 1.0

    def check_alive(self) -> None:
        """Refuse everything once there is nobody to compute it.

        Raises:
            NotReadyError: the thread died, is stuck, or was not started.
        """
        if self.failure is not None or not self._worker.is_alive():
            why = self.failure or "is not running"
            raise NotReadyError(f"the model thread {why}; the service must be restarted")

    def check_accepting(self) -> None:
        """Refuse everything while shutting down, too.

        Raises:
            NotReadyError: draining, or see `check_alive`.
        """
        if self.draining:
            raise NotReadyError("the service is shutting down; ask another replica")
        self.check_alive()

    def check_room(self, caller: str, rows: int, size: int, deadline: float | None = None) -> None:
        """Refuse what there is no room or no time for; asked early, it spares reading the body.

        Raises:
            NotReadyError: see `check_accepting`.
            OverloadedError: the queue, or the caller's share of it, would be exceeded, or the
                deadline, on `time.monotonic`'s clock, by the measured seconds per row.
        """
        self.check_accepting()
        why = self.room.why_not(caller, rows, size)
        if why is not None:
            raise OverloadedError(why, retry_after=self.drain_seconds)
        now, wait = time.monotonic(), self.room.before(caller, rows) * self._worker.seconds_per_row
        if deadline is not None and now < deadline and wait > (1 - WAY_BACK) * (deadline - now):
            raise OverloadedError(
                f"its turn would come in about {wait:.2f} s, too late for the deadline of "
                "X-Request-Timeout-Ms: ask again after Retry-After, or allow more time",
                retry_after=wait,
            )

    def submit(self, job: Job) -> asyncio.Future[Result]:
        """Accept a job; cancelling the future drops it if its turn has not come.

        Raises:
            NotReadyError, OverloadedError: see `check_room`.
        """
        rows = job.inputs.rows
        self.check_room(job.caller, rows, job.size, job.deadline)
        ticket = Ticket(job, self._loop.create_future())
        self._accepted.add(ticket)
        self.room.take(job.caller, rows, job.size)
        self._idle.clear()
        self._waiting.put(ticket, job.caller, rows)
        return ticket.future

    async def close(self, patience: float) -> None:
        """Accept no more, answer what was accepted, end the thread.

        Args:
            patience: seconds to wait; what is left then fails with `NotReadyError`.
        """
        self.draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._idle.wait()
        idle = not self._accepted and self.failure is None
        self._abandon("the service was shut down before the request's turn came")
        self._watching.cancel()
        self._waiting.close()
        if idle:
            await asyncio.to_thread(self._worker.join, patience)

    def _call(self, call: Callable[..., None], *args: object) -> None:
        """From the thread; an event loop that is closed has nobody left to tell."""
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _settle(self, settled: Settled) -> None:
        """Note a batch; hand over what it came to."""
        if settled.computed_rows:
            self._on_batch(settled.computed_rows)
        for ticket, outcome in settled.outcomes:
            self._hand_over(ticket, outcome)

    def _hand_over(self, ticket: Ticket, outcome: Result | Exception | None) -> None:
        """Give back the room, once; answer, if anybody waits."""
        if ticket not in self._accepted:
            return
        self._accepted.remove(ticket)
        self.room.give_back(ticket.job.caller, ticket.job.inputs.rows, ticket.job.size)
        if not self._accepted:
            self._idle.set()
        if ticket.future.done():
            return
        if isinstance(outcome, Result):
            ticket.future.set_result(outcome)
        else:
            ticket.future.set_exception(outcome or NotReadyError("dropped"))

    def _abandon(self, why: str) -> None:
        """Fail everything that was accepted and not answered."""
        for ticket in list(self._accepted):
            self._hand_over(ticket, NotReadyError(why))

    async def _watch(self) -> None:
        self._fail(await until_stuck(self._worker, self._worker.pulse, self._patience))

    def _died(self, error: BaseException) -> None:
        self._fail(f"died of {type(error).__name__}", error)

    def _fail(self, why: str, error: BaseException | None = None) -> None:
        """The end: say why, once; answer what can be answered."""
        if self.failure is None:
            self.failure = why
            log.critical("the model thread %s; the process must end", why, exc_info=error)
            self._abandon(f"the model thread {why}; the service must be restarted")
