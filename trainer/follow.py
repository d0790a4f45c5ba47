"""Learns a diffusion model from an encoder that is trained elsewhere, and keeps it published.

Fresh pairs come from a `Source`. The worker that leads judges each entry before it learns from it,
learns, offers a version to the registry through a gate every so many steps or when the embeddings
have moved, and saves its state before it settles with the source. Killed at any time it goes on
from its last saved state, with all that came since.

Under torchrun the workers go through this side by side and share the work of every step; what
depends on clocks, signals and files is decided by the main one.
"""

import logging
import threading
import time
from pathlib import Path

from core.registry import Registry
from trainer.distributed import from_main
from trainer.following.config import FollowConfig
from trainer.following.metrics import FollowMetrics
from trainer.following.source import Source
from trainer.following.worker import Worker

log = logging.getLogger("turnpoint.follow")


def follow(
    source: Source,
    registry: Registry,
    model: str,
    config: FollowConfig,
    folder: Path,
    *,
    dim: int | None = None,
    metrics: FollowMetrics | None = None,
    stop: threading.Event | None = None,
    idle_seconds: float | None = None,
) -> None:
    """Follow until told to stop, or until nothing new has come for a while.

    Args:
        source: of the pairs.
        registry: where versions are published.
        model: its name there.
        config: of the run.
        folder: of the state; workers that stand in for each other share it.
        dim: where no version is live and no state is there, begin a model of this dimension and
            publish it at once, so that a service has something to answer with.
        metrics: told of everything.
        stop: set by whoever wants an end; the state is saved.
        idle_seconds: ends once nothing has come for so long, after a last offer; None never does.

    Raises:
        CheckpointError: the state, or the live version where there is no state, cannot be used.
    """
    metrics, stop = metrics or FollowMetrics(), stop or threading.Event()
    worker: Worker | None = None
    standing_by = False
    while not _agreed(stop.is_set()):
        # ---- one worker leads, the others stand by -------------------------------------------
        leads = source.lead()
        metrics.leading.set(leads)
        metrics.source_up.set(source.up)
        if not leads:
            if not standing_by and source.up:
                log.info("%s: another worker leads; standing by", model)
            standing_by = standing_by or source.up
            continue
        if worker is None or not _agreed(worker.state.is_ours()):
            worker = Worker(registry, model, config, folder, metrics)
            source.begin(worker.settled, worker.last)
            if dim is not None:
                worker.introduce(dim)
        standing_by = False
        if _lead(worker, source, stop, idle_seconds):
            break
    if worker is not None and source.lead():
        worker.save(source)
    source.close()


def _lead(
    worker: Worker, source: Source, stop: threading.Event, idle_seconds: float | None
) -> bool:
    """Learn while this worker leads; whether there is nothing more to wait for."""
    heard = time.monotonic()
    while source.lead() and not _agreed(stop.is_set()):
        entry = source.read()
        worker.metrics.source_up.set(source.up)
        if entry is not None:
            worker.take(entry)
            heard = time.monotonic()
        if _agreed(entry is None or worker.due_to_save) and source.lead():
            worker.save(source)
        silence = time.monotonic() - heard if entry is None else 0.0
        if idle_seconds is not None and _agreed(silence >= idle_seconds):
            worker.offer_last()
            return True
    return False


def _agreed(ours: bool) -> bool:
    """What the main worker says; all go the same way."""
    return bool(from_main(lambda: ours))
