"""Whose turn is next: start-time fair queueing, by rows, over callers.

Every caller has the same share (Goyal, Vin and Cheng, 1996, with equal weights). A job's start tag
is the larger of the queue's clock and the end of its caller's last job; its end is start + rows;
the smallest start goes first, and the clock is the start of the job that went last. So a caller
with a hundred large jobs waiting has one of them ahead of somebody else's first, not a hundred, and
a caller alone has the device for itself.
"""

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_CALLERS = 10_000  # whose past is remembered at a time


class FairQueue(Generic[T]):
    """Filled by the event loop, emptied by the model thread."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()  # equal starts: first come, first served
        self._clock = 0.0
        self._ends: dict[str, float] = {}  # by caller, until nothing waits any more
        self._open = True
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._heap)

    def put(self, item: T, caller: str, cost: int) -> None:
        """Queue an item.

        Args:
            item: what to hand out.
            caller: whose share it counts against.
            cost: rows, > 0.
        """
        with self._changed:
            start = max(self._clock, self._ends.get(caller, 0.0))
            self._ends[caller] = start + cost
            heapq.heappush(self._heap, (start, next(self._order), item))
            self._changed.notify()

    def get(self, patience: float | None, fits: Callable[[T], bool]) -> T | None:
        """The next item, if it fits; whatever does not fit keeps its place.

        Args:
            patience: seconds to wait for one; None, of a thread that has nothing else to do, waits
                until the queue is closed.
            fits: asked about the next item only.

        Returns:
            None: the next does not fit, none came in time, or the queue is closed and empty.
        """
        with self._changed:
            if (patience is None and not self._heap) or len(self._ends) > MOST_CALLERS:
                self._ends.clear()  # whoever had more has kept nobody waiting
            self._changed.wait_for(lambda: self._heap or not self._open, patience)
            if not self._heap or not fits(self._heap[0][2]):
                return None
            self._clock, _, item = heapq.heappop(self._heap)
            return item

    def close(self) -> None:
        """Nothing more will be put in."""
        with self._changed:
            self._open = False
            self._changed.notify()
