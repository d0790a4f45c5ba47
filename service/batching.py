"""Which jobs are computed together, and how long one waits for another.

Together are jobs of one version, with the same inputs and the same rule, in their fair order, up to
a number of rows; and of the same n, where a row's negatives are generated together. A matrix
product rounds its last bits differently in another batch, so a job whose caller named the seed, and
so was promised the same answer whatever else is served, is computed alone; so is one whose rule
draws t* from the job's own generator.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from functools import partial

from service.flight import Flight
from service.job import Job, Ticket
from service.queue import FairQueue

MAX_JOBS = 256  # of a batch: retried one by one after a fault, they must not pass for a hang
POLL_SECONDS = 0.0002  # how soon it is noticed that the batch under way is done
AUTO_ROWS = {"cpu": 1024, "cuda": 65_536}  # a CPU gains nothing beyond (docs/performance.md)


def kind(job: Job) -> Hashable | None:
    """Jobs of one kind may share a computation; None is computed alone."""
    if job.params.seed is not None or job.rule.rule == "random":
        return None
    given = (job.inputs.threshold is not None, job.inputs.popularity is not None)
    asked = (job.rule, job.params.has_margin, job.params.progress)
    n = job.params.n if job.law is None else None
    return id(job.sampler), given, tuple(job.inputs.item_features), asked, n


class Batcher:
    """Makes batches of what waits.

    Args:
        waiting: the queue.
        max_rows: most rows of a batch of several jobs.
        max_wait: seconds that a batch which has room waits for more, while another is under way.
        wanted: whether anybody still waits for a job whose turn has come; else it is dropped.
    """

    def __init__(
        self,
        waiting: FairQueue[Ticket],
        max_rows: int,
        max_wait: float,
        wanted: Callable[[Ticket], bool],
    ) -> None:
        self.waiting, self.max_rows, self.max_wait = waiting, max_rows, max_wait
        self._wanted = wanted

    def next(self, under_way: Flight | None) -> list[Ticket]:
        """The next batch, as soon as the device has nothing to do, or there is something for it.

        Args:
            under_way: the batch that the device computes, if it computes one.

        Returns:
            An empty list: nothing came before that one was done; or, where there is none, the queue
            is closed and empty.
        """
        batch: list[Ticket] = []
        until = 0.0
        while True:
            patience = self._patience(under_way, batch, until)
            ticket = self.waiting.get(patience, partial(self._fits, batch))
            if ticket is None and (patience != POLL_SECONDS or len(self.waiting)):
                return batch
            if ticket is not None and self._wanted(ticket):
                until = until or time.monotonic() + self.max_wait
                batch.append(ticket)

    def _patience(
        self, under_way: Flight | None, batch: Sequence[Ticket], until: float
    ) -> float | None:
        """How long to wait for another job now."""
        if under_way is None:
            return 0 if batch else None
        open_ended = not batch or (kind(batch[0].job) is not None and time.monotonic() < until)
        return POLL_SECONDS if open_ended and not under_way.done() else 0

    def _fits(self, batch: Sequence[Ticket], ticket: Ticket) -> bool:
        if not batch:
            return True
        rows = sum(one.job.inputs.rows for one in (*batch, ticket))
        mine = kind(batch[0].job)
        alike = mine is not None and mine == kind(ticket.job)
        return alike and rows <= self.max_rows and len(batch) < MAX_JOBS
