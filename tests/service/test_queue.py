"""Nobody starves, nobody waits longer than their share says, and nothing is kept of who left."""

import random
import threading
import time
from collections import Counter

from service.queue import MOST_CALLERS, FairQueue


def every(item: object) -> bool:
    return True


def drained(queue: FairQueue[str]) -> list[str]:
    queue.close()
    found = []
    while (item := queue.get(None, every)) is not None:
        found.append(item)
    return found


def test_one_caller_is_served_in_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for name in "abcd":
        queue.put(name, "me", random.randint(1, 9))
    assert drained(queue) == list("abcd")


def test_a_small_caller_is_next_whatever_a_huge_one_has_waiting() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.put("huge", "huge", 65_536)
    for _ in range(5):
        assert queue.get(0, every) == "huge"
    queue.put("small", "small", 8)
    queue.put("tiny", "tiny", 1)
    assert [queue.get(0, every) for _ in range(3)] == ["small", "tiny", "huge"]


def test_shares_are_of_rows_and_not_of_requests() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(50):
        queue.put("large", "one", 1000)
    for _ in range(5000):
        queue.put("small", "other", 10)
    served = Counter[str]()
    for _ in range(1000):
        item = queue.get(0, every)
        assert item is not None
        served[item] += 1000 if item == "large" else 10
        assert abs(served["large"] - served["small"]) <= 1010


def test_who_was_idle_has_no_claim_on_the_past_and_no_debt() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.put("busy", "busy", 10)
    for _ in range(60):
        queue.get(0, every)
    for _ in range(20):
        queue.put("late", "late", 10)
    assert Counter(queue.get(0, every) for _ in range(20)) == {"busy": 10, "late": 10}


def test_callers_that_left_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue()
    for stranger in range(2 * MOST_CALLERS):  # under load that never ends
        queue.put("once", f"caller {stranger}", 1)
        assert queue.get(0, every) == "once"
    assert len(queue._ends) <= MOST_CALLERS + 1
    queue.close()
    assert queue.get(None, every) is None
    assert not queue._ends


def test_what_does_not_fit_keeps_its_place() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put("a", "me", 1)
    queue.put("b", "me", 1)
    assert queue.get(5, lambda item: item == "b") is None  # at once: waiting would not help
    assert drained(queue) == ["a", "b"]


def test_waiting_ends_with_an_item_in_time_or_with_the_close() -> None:
    queue: FairQueue[str] = FairQueue()
    began = time.monotonic()
    assert queue.get(0.02, every) is None
    assert time.monotonic() - began >= 0.02
    threading.Timer(0.02, queue.put, ("late", "me", 1)).start()
    assert queue.get(10, every) == "late"
    threading.Timer(0.02, queue.close).start()
    assert queue.get(None, every) is None
