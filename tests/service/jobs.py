"""Jobs and engines for the tests of the model thread."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from core.transition import Transition
from service import compute as module
from service.codecs import Inputs
from service.engine import Engine
from service.job import Job
from service.params import Params
from service.settings import BatchingSettings, ServerSettings
from tests.service.live import THREADS, make_sampler, pairs

SAMPLER = make_sampler()
CPU = torch.device("cpu")


def job(rows: int = 4, **changes: Any) -> Job:
    """A small job of a caller who named its seed; `data` chooses its rows."""
    users, positives = pairs(rows, seed=changes.pop("data", 0))
    seed = changes.setdefault("seed", 1)
    sampler = changes.setdefault("sampler", SAMPLER)
    plain = {
        "law": getattr(sampler, "law", None),
        "inputs": Inputs(users, positives),
        "params": Params(seed=seed),
        "rule": Transition(),
        "wanted": ("negatives",),
        "size": 100,
    }
    return Job(**(plain | changes))


def free(rows: int = 4, **changes: Any) -> Job:
    """A job whose seed was drawn by the service: it may be merged."""
    return job(rows, **({"params": Params()} | changes))


def make_engine(
    seen: list[int] | None = None,
    *,
    hang_seconds: int = 60,
    threads: int = THREADS,
    **batching: Any,
) -> Engine:
    """An engine for a hundred rows; `seen` gets the rows of its computations."""
    bounds = {"queue_rows": 100, "queue_bytes": 10_000}
    return Engine(
        BatchingSettings(**(bounds | batching)),
        ServerSettings(torch_threads=threads, hang_seconds=hang_seconds),
        CPU,
        ([] if seen is None else seen).append,
    )


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[Engine]:
    """The engine, running."""
    engine.start()
    try:
        yield engine
    finally:
        await engine.close(5)


def slowed(monkeypatch: pytest.MonkeyPatch, seconds_per_row: float) -> list[int]:
    """Makes the model thread so slow; the seeds of what it computes."""
    real, computed = module.sample, []

    def slow(jobs: Sequence[Job], query: Any) -> Any:
        computed.extend(job.seed for job in jobs)
        time.sleep(seconds_per_row * len(query.users))
        return real(jobs, query)

    monkeypatch.setattr(module, "sample", slow)
    return computed


class Gate:
    """Holds the model thread in `sample` until it is opened; `seen` are the seeds of each batch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.seen: list[list[int]] = []
        real = module.sample

        def held(jobs: Sequence[Job], query: Any) -> Any:
            self.seen.append([job.seed for job in jobs])
            self.entered.set()
            assert self.open.wait(20)
            return real(jobs, query)

        monkeypatch.setattr(module, "sample", held)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, 5)
