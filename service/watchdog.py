"""Whether the model thread gets on: it beats at every batch, the event loop listens.

Time is counted in ticks of the event loop, not by the clock, so that a process which was stopped
for a while, or whose event loop was, does not take that for the thread's doing. What the watchdog
cannot see is a thread that holds the interpreter's lock for ever: the event loop stands still as
well then, and the probes time out.
"""

import asyncio
import logging
import sys
import threading

log = logging.getLogger("turnpoint.service")


class Pulse:
    """Written by the model thread, read by the event loop."""

    def __init__(self) -> None:
        self.beats = 0
        self.busy = False

    def beat(self) -> None:
        """A batch begins."""
        self.beats += 1
        self.busy = True

    def rest(self) -> None:
        """Nothing is under way."""
        self.busy = False


async def until_stuck(thread: threading.Thread, pulse: Pulse, patience: float) -> str:
    """Return, with what to say of it, once a busy thread has not beaten for `patience` seconds.

    Where it stands goes to the log: callers are told the rest.
    """
    tick = min(1.0, patience / 4)
    still, beats = 0.0, pulse.beats
    while still < patience:
        await asyncio.sleep(tick)
        still = still + tick if pulse.busy and pulse.beats == beats else 0.0
        beats = pulse.beats
    log.error("the model thread is stuck at %s", _place(thread))
    return f"made no progress for {patience:g} s"


def _place(thread: threading.Thread) -> str:
    """The line of Python at which a thread is."""
    frame = sys._current_frames().get(thread.ident or 0)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "no line of Python"
