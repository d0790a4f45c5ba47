"""The model thread: takes batches, launches them, lands them, survives what can be survived."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from core.errors import DeadlineExceededError
from service.batching import Batcher
from service.compute import compute
from service.faults import Outcome, mend
from service.flight import Flight
from service.job import Result, Ticket
from service.queue import FairQueue
from service.staging import Memory
from service.watchdog import Pulse

SMOOTHING = 0.1  # of the measured seconds per row: about the last ten batches count
MEASURE_HOLDS = 1.0  # seconds; an older measure may be wrong by now, and refuses nobody
WAY_BACK = 0.2  # of the time that a caller allows: for encoding, sending, and what was not foreseen


@dataclass(frozen=True)
class Settled:
    """What became of some tickets.

    Attributes:
        outcomes: of each; None for one that nobody waits for.
        computed_rows: of those that were computed together; 0 where none was.
    """

    outcomes: Sequence[tuple[Ticket, Result | Exception | None]]
    computed_rows: int = 0


@dataclass(frozen=True)
class _Launched:
    tickets: Sequence[Ticket]
    flight: Flight
    at: float


class Worker(threading.Thread):
    """One thread for one device.

    On a device that computes by itself the next batch is launched before the last is waited for; on
    the CPU a batch is done once it is launched.

    Args:
        waiting: what to compute.
        memory: the way to the device.
        max_rows: see `Batcher`.
        max_wait: likewise.
        threads: of one torch operation on the CPU.
        tell: called in this thread with what is settled.
        died: called in this thread, at its end, with what ended it.

    Attributes:
        seconds_per_row: that the device takes, smoothed; 0 before the first batch.
    """

    def __init__(
        self,
        waiting: FairQueue[Ticket],
        memory: Memory,
        *,
        max_rows: int,
        max_wait: float,
        threads: int,
        tell: Callable[[Settled], None],
        died: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="turnpoint-model", daemon=True)
        self.pulse = Pulse()
        self._batcher = Batcher(waiting, max_rows, max_wait, self._wanted)
        self._memory, self._threads = memory, threads
        self._tell, self._died = tell, died
        self._landed_at = 0.0
        self.seconds_per_row = 0.0

    def run(self) -> None:
        """Until the queue is closed and empty. What is worse than a batch's failure ends it."""
        torch.set_num_threads(self._threads)
        try:
            self._turn()
        except BaseException as error:
            self._died(error)

    def _turn(self) -> None:
        under_way: _Launched | None = None
        while (tickets := self._next(under_way)) or under_way:
            self.pulse.beat()
            launched = self._launch(tickets) if tickets else None
            if under_way:
                self._land(under_way)
            under_way = launched
            if under_way and under_way.flight.done():
                self._land(under_way)
                under_way = None

    def _next(self, under_way: _Launched | None) -> list[Ticket]:
        if under_way:
            return self._batcher.next(under_way.flight)
        self.pulse.rest()
        return self._batcher.next(None)

    def _wanted(self, ticket: Ticket) -> bool:
        """Whether a job whose turn has come is computed; else it is settled here."""
        now, deadline = time.monotonic(), ticket.job.deadline
        if ticket.future.cancelled():
            self._tell(Settled([(ticket, None)]))
            return False
        if deadline is None or now + self._needed(ticket, deadline, now) <= deadline:
            return True
        error = DeadlineExceededError(
            f"its turn came after {1000 * (now - ticket.at):.0f} ms, too late for an answer before "
            "the deadline of X-Request-Timeout-Ms: allow more time or ask for less"
        )
        self._tell(Settled([(ticket, error)]))
        return False

    def _needed(self, ticket: Ticket, deadline: float, now: float) -> float:
        """Seconds from a job's turn to its caller; what would come late is not worth computing."""
        if now - self._landed_at > MEASURE_HOLDS:
            return 0.0
        computing = ticket.job.inputs.rows * self.seconds_per_row
        return computing + WAY_BACK * (deadline - ticket.at)

    def _launch(self, tickets: Sequence[Ticket]) -> _Launched | None:
        """Start a batch; one that cannot be started is mended and settled at once."""
        at, jobs = time.monotonic(), [ticket.job for ticket in tickets]
        try:
            return _Launched(tickets, compute(jobs, self._memory), at)
        except Exception as error:
            self._settle(tickets, mend(jobs, self._memory, error), at)
            return None

    def _land(self, launched: _Launched) -> None:
        """Wait for a batch; settle it."""
        found: Sequence[Outcome]
        try:
            found = launched.flight.land()
        except Exception as error:
            found = mend([ticket.job for ticket in launched.tickets], self._memory, error)
        self._settle(launched.tickets, found, launched.at)

    def _settle(self, tickets: Sequence[Ticket], found: Sequence[Outcome], at: float) -> None:
        now = time.monotonic()
        told = [
            (ticket, one if isinstance(one, Exception) else Result(one, at - ticket.at, now - at))
            for ticket, one in zip(tickets, found, strict=True)
        ]
        rows = sum(ticket.job.inputs.rows for ticket in tickets)
        # A batch launched before the last one landed had the device only from then on.
        measured = (now - max(at, self._landed_at)) / rows
        known = self.seconds_per_row or measured
        self.seconds_per_row = known + SMOOTHING * (measured - known)
        self._landed_at = now
        self._tell(Settled(told, rows))
