"""What a run costs: seconds of an epoch, by the clock and of the processor, and its peak memory."""

import contextlib
import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.serving.processes import memory_of
from trainer.cotrain import Tick, Watcher
from trainer.run import Run

PROCESSOR = "processor seconds per epoch"


class Meter:
    """Watches one run in this process, from its making on.

    The peak is the process's own (VmHWM), set back when the meter is made; what was there before,
    torch and the data, is part of it, what an earlier run has let go of is not.
    """

    def __init__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # elsewhere than on Linux: no set-back
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._first = 0.0
        self._processor: list[float] = []
        self.watcher = Watcher(on_step=self._on_step)

    def _on_step(self, tick: Tick) -> None:
        if tick.step == 0:
            self._first = time.process_time()
        if tick.step and tick.step == tick.steps - 1:  # the first step began unseen
            spent = time.process_time() - self._first
            self._processor.append(spent * tick.steps / (tick.steps - 1))

    def told(self, run: Run) -> dict[str, Any]:
        """Medians over epochs: by the clock over all, of the processor over this process's."""
        on_device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return {
            "seconds per epoch": float(np.median(run.seconds)),
            PROCESSOR: float(np.median(self._processor)) if self._processor else None,
            "seconds": sum(run.seconds),
            "peak MiB": memory_of("self", "VmHWM"),
            "peak device MiB": on_device / 2**20,
        }
