"""A thread that does one thing after another beside the requests, and never holds up the exit."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

R = TypeVar("R")
FAREWELL = 1.0  # seconds that what waits gets at the end


class Background:
    """A daemon thread and its bounded queue.

    Args:
        name: of the thread.
        room: how many calls may wait.
        idle: called whenever nothing was asked for `every` seconds; must not raise.
        every: seconds.
    """

    def __init__(
        self,
        name: str,
        room: int,
        idle: Callable[[], None] | None = None,
        every: float | None = None,
    ) -> None:
        self._waiting: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None]
        self._waiting = queue.Queue(room)
        self._idle, self._every = idle, every
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def offer(self, call: Callable[[], R]) -> Future[R] | None:
        """The call's outcome to come; None if there is no room."""
        future: Future[R] = Future()
        try:
            self._waiting.put_nowait((future, call))
        except queue.Full:
            return None
        return future

    def close(self) -> None:
        """End after what waits; a thread that hangs is left to the end of the process."""
        with suppress(queue.Full):
            self._waiting.put(None, timeout=FAREWELL)
        if self._thread.is_alive():
            self._thread.join(FAREWELL)

    def _run(self) -> None:
        while True:
            try:
                asked = self._waiting.get(timeout=self._every)
            except queue.Empty:
                if self._idle is not None:
                    self._idle()
                continue
            if asked is None:
                return
            future, call = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
