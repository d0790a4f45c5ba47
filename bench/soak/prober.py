"""One caller who asks again as soon as it is answered, to see when latency is normal again."""

import threading
import time
from typing import Self

import numpy as np

from bench.serving.load import Request, connected

CALLS = 5  # in a row, of which the median counts
NORMAL = 2.0  # times the median latency without load
PATIENCE = 60.0  # seconds


class Prober:
    """Asks in a thread while the block runs.

    Attributes:
        calls: of each, when it left, its seconds and its status.
    """

    def __init__(self, port: int, request: Request) -> None:
        self._port, self._request = port, request
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop)
        self.calls: list[tuple[float, float, int]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        with connected(self._port) as connection:
            while not self._stop.wait(0.02):
                left = time.monotonic()
                status = connection.exchange(self._request).status
                self.calls.append((left, time.monotonic() - left, status))

    def normal(self, calls: int = 20) -> float:
        """Median seconds of the next calls.

        Raises:
            TimeoutError: they are not answered.
        """
        first, end = len(self.calls), time.monotonic() + PATIENCE
        while len(self.calls) < first + calls:
            if time.monotonic() > end:
                raise TimeoutError(f"fewer than {calls} calls were answered in {PATIENCE:g} s")
            time.sleep(0.05)
        return float(np.median([seconds for _, seconds, _ in self.calls[first:]]))

    def recovered(self, normal: float) -> float:
        """When latency became normal, once it is; infinite if that takes too long."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if is_normal(self.calls[-CALLS:], normal):
                return since(self.calls, normal)
            time.sleep(0.05)
        return float("inf")


def is_normal(calls: list[tuple[float, float, int]], normal: float) -> bool:
    """Whether they were answered and their median is near to normal."""
    answered = all(status == 200 for _, _, status in calls)
    return answered and float(np.median([seconds for _, seconds, _ in calls])) <= NORMAL * normal


def since(calls: list[tuple[float, float, int]], normal: float) -> float:
    """When the first call left of the last unbroken run of normal ones."""
    first = len(calls) - CALLS
    while first > 0 and is_normal(calls[first - 1 : first - 1 + CALLS], normal):
        first -= 1
    return calls[first][0]
