"""The staged path with everything but the device: the next batch is launched before the last lands.

`Distant` stands for a device that computes by itself: what it sends down is on the host only once
its arrival was waited for, or it is told that the time has come. `tests/test_cuda.py` has the same
on a real one.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from core.errors import NotReadyError
from service.codecs import Inputs
from service.compute import compute
from service.job import Job, Result
from service.staging import Arrival, HostMemory
from tests.service.jobs import free, job, make_engine, started


@dataclass
class Landing:
    """An arrival that has not come until it is waited for, or `come` is set."""

    bring: Callable[[], None]
    told: Callable[[str], None]
    come: threading.Event
    fail: list[Exception] = field(default_factory=list)
    there: bool = False

    def query(self) -> bool:
        return self.there or self.come.is_set()

    def synchronize(self) -> None:
        self.told("wait")
        if self.fail:
            raise self.fail.pop()
        self.bring()
        self.there = True


class Distant(HostMemory):
    """Sends nothing down before it is asked for."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.come = threading.Event()
        self.failures: list[Exception] = []

    def download(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Arrival]:
        self.events.append("launch")
        host = [torch.zeros_like(tensor) for tensor in tensors]

        @torch.inference_mode()
        def bring() -> None:
            for there, here in zip(host, tensors, strict=True):
                there.copy_(here)

        return host, Landing(bring, self.events.append, self.come, self.failures)


@pytest.fixture
def distant(monkeypatch: pytest.MonkeyPatch) -> Distant:
    one = Distant()
    monkeypatch.setattr("service.engine.memory_of", lambda device: one)
    return one


def alone(one: Job) -> Tensor:
    (answer,) = compute([one], HostMemory()).land()
    assert isinstance(answer, dict)
    return answer["negatives"]


async def happened(distant: Distant, event: str, count: int) -> None:
    while distant.events.count(event) < count:  # noqa: ASYNC110  # told by another thread
        await asyncio.sleep(0.001)


async def test_the_next_batch_is_launched_before_the_last_is_waited_for(distant: Distant) -> None:
    jobs = [job(seed=seed, data=seed) for seed in range(4)]
    async with started(make_engine()) as engine:
        first = engine.submit(jobs[0])
        await happened(distant, "launch", 1)
        await asyncio.sleep(0.02)
        assert not first.done()  # under way, and nobody waits for it
        rest = [engine.submit(one) for one in jobs[1:]]
        await happened(distant, "wait", 3)  # after which nothing is launched
        assert distant.events == ["launch", *["launch", "wait"] * 3]
        distant.come.set()
        found = await asyncio.gather(first, *rest)
    for one, result in zip(jobs, found, strict=True):
        assert torch.equal(result.tensors["negatives"], alone(one))


async def test_what_has_arrived_is_handed_over_with_nothing_behind_it(distant: Distant) -> None:
    async with started(make_engine()) as engine:
        accepted = engine.submit(job())
        await happened(distant, "launch", 1)
        distant.come.set()
        assert torch.equal((await accepted).tensors["negatives"], alone(job()))


async def test_a_batch_merges_what_came_while_the_last_was_under_way(distant: Distant) -> None:
    rows: list[int] = []
    async with started(make_engine(rows, max_wait_ms=500, merge_rows=10)) as engine:
        accepted = [engine.submit(free(seed=0))]
        await happened(distant, "launch", 1)
        for seed in (1, 2):
            accepted.append(engine.submit(free(5, seed=seed)))
            await asyncio.sleep(0.02)
        await happened(distant, "launch", 2)
        distant.come.set()
        await asyncio.gather(*accepted)
    assert rows == [4, 10]


async def test_closing_lands_what_is_under_way(distant: Distant) -> None:
    engine = make_engine()
    engine.start()
    accepted = engine.submit(job())
    await happened(distant, "launch", 1)
    closing = asyncio.create_task(engine.close(10))
    await asyncio.sleep(0.01)
    distant.come.set()
    await closing
    assert isinstance(accepted.result(), Result)


async def test_a_refusal_is_decided_after_the_fact(distant: Distant) -> None:
    distant.come.set()
    users, positives = job().inputs.users.clone(), job().inputs.positives
    users[1, 2] = torch.inf
    poor = job(inputs=Inputs(users, positives))
    async with started(make_engine()) as engine:
        found = await asyncio.gather(
            *(engine.submit(one) for one in (job(seed=1), poor, job(seed=2))),
            return_exceptions=True,
        )
    assert [type(one).__name__ for one in found] == ["Result", "NonFiniteError", "Result"]


async def test_an_error_that_shows_on_arrival_is_mended(distant: Distant) -> None:
    distant.failures.append(ValueError("once"))
    async with started(make_engine()) as engine:
        accepted = [engine.submit(job(seed=0))]
        await happened(distant, "launch", 1)
        accepted += [engine.submit(free(seed=seed)) for seed in (1, 2)]
        distant.come.set()
        found = await asyncio.gather(*accepted, return_exceptions=True)
        engine.check_alive()
    assert [type(one) for one in found] == [ValueError, Result, Result]


async def test_a_lost_device_that_shows_on_arrival_ends_the_engine(
    distant: Distant,
) -> None:
    distant.failures.append(RuntimeError("CUDA error: unspecified launch failure"))
    async with started(make_engine()) as engine:
        accepted = engine.submit(job())
        distant.come.set()
        with pytest.raises(NotReadyError, match="died of RuntimeError"):
            await accepted
        assert engine.failure is not None


async def test_a_device_that_never_answers_is_a_hang(distant: Distant) -> None:
    async with started(make_engine(hang_seconds=1)) as engine:
        accepted = engine.submit(job())
        with pytest.raises(NotReadyError, match="no progress for 1 s"):
            await accepted
        distant.come.set()
