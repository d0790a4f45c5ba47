"""A fault is that of the job which causes it; memory that runs out is asked for in parts."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
import torch

from core.errors import NotReadyError, OverloadedError, UnavailableError
from service import compute as module
from service.faults import is_fatal, is_out_of_memory
from service.job import Job, Result
from service.room import CALLERS_SHARE, Room
from service.watchdog import Pulse, until_stuck
from tests.service.jobs import Gate, free, job, make_engine, started
from tests.service.live import OCTET, octet, pairs

Failing = Callable[[Sequence[Job]], None]


def allocate_too_much() -> None:
    """The CPU allocator's own error, whatever this torch calls it."""
    torch.empty(2**60, dtype=torch.uint8)


def faulty(monkeypatch: pytest.MonkeyPatch, fail: Failing) -> list[list[int]]:
    """Have every computation fail as told; the seeds of each attempt."""
    attempts: list[list[int]] = []
    real = module.sample

    def sample(jobs: Sequence[Job], query: Any) -> Any:
        attempts.append([job.seed for job in jobs])
        fail(jobs)
        return real(jobs, query)

    monkeypatch.setattr(module, "sample", sample)
    return attempts


async def merged(jobs: Sequence[Job], gate: Gate) -> list[Any]:
    """What becomes of jobs that are merged, behind one that is held."""
    async with started(make_engine()) as engine:
        first = engine.submit(job(seed=0))
        await gate.reached()
        accepted = [engine.submit(one) for one in jobs]
        gate.open.set()
        _, *found = await asyncio.gather(first, *accepted, return_exceptions=True)
        engine.check_alive()
        assert engine.room.held.rows == 0
    return found


async def test_an_exception_fails_only_the_jobs_that_cause_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(jobs: Sequence[Job]) -> None:
        if any(job.seed in {3, 5} for job in jobs):
            raise ZeroDivisionError

    attempts = faulty(monkeypatch, fail)
    found = await merged([free(seed=seed) for seed in range(1, 6)], Gate(monkeypatch))
    wrong = [ZeroDivisionError if seed in {3, 5} else Result for seed in range(1, 6)]
    assert [type(one) for one in found] == wrong
    assert attempts == [[0], [1, 2, 3, 4, 5], [1], [2], [3], [4], [5]]  # once each


async def test_out_of_memory_splits_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(jobs: Sequence[Job]) -> None:
        if sum(job.inputs.rows for job in jobs) > 8:
            allocate_too_much()

    attempts = faulty(monkeypatch, fail)
    rows = {1: 2, 2: 2, 3: 2, 4: 2, 5: 8, 6: 9}
    jobs = [free(count, seed=seed) for seed, count in rows.items()]
    *fine, last = await merged(jobs, Gate(monkeypatch))
    assert [type(one) for one in fine] == [Result] * 5
    assert type(last) is UnavailableError
    assert "no memory for 9 rows with n = 1" in str(last)
    parts = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5], [1, 2, 3, 4], [5], [6]]
    assert attempts == [[0], *parts]


async def test_a_request_that_memory_cannot_hold_is_a_readable_503(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty(monkeypatch, lambda jobs: allocate_too_much())
    refused = await client.post("/negatives?n=2", content=octet(*pairs(3)), headers=OCTET)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "3 rows with n = 2" in refused.json()["detail"]
    assert refused.headers["retry-after"] == "1"
    monkeypatch.undo()
    assert (await client.get("/livez")).status_code == 200
    again = await client.post("/negatives?n=2", content=octet(*pairs(3)), headers=OCTET)
    assert again.status_code == 200


def test_what_running_out_of_memory_looks_like() -> None:
    with pytest.raises(RuntimeError) as real:
        allocate_too_much()
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_what_a_lost_device_looks_like() -> None:
    assert is_fatal(RuntimeError("CUDA error: device-side assert triggered"))
    assert is_fatal(RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling"))
    assert not is_fatal(RuntimeError("CUDA error: out of memory"))
    assert not is_fatal(RuntimeError("anything else"))


async def test_a_lost_device_ends_the_engine_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(jobs: Sequence[Job]) -> None:
        if jobs[0].seed == 1:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    faulty(monkeypatch, fail)
    gate = Gate(monkeypatch)
    async with started(make_engine()) as engine:
        accepted = [engine.submit(job(seed=seed)) for seed in range(4)]
        await gate.reached()
        gate.open.set()
        found = await asyncio.gather(*accepted, return_exceptions=True)
        assert [type(one) for one in found] == [Result, *[NotReadyError] * 3]
        assert engine.failure == "died of RuntimeError"
        with pytest.raises(NotReadyError, match="restarted"):
            engine.check_accepting()
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(critical) == 1
    assert "illegal memory access" in caplog.text


async def test_a_hung_thread_fails_what_waits_and_turns_the_engine_red(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(monkeypatch)
    async with started(make_engine(hang_seconds=1)) as engine:
        accepted = [engine.submit(job(seed=seed)) for seed in range(3)]
        await gate.reached()
        engine.check_alive()
        found = await asyncio.gather(*accepted, return_exceptions=True)
        assert [type(one) for one in found] == [NotReadyError] * 3
        with pytest.raises(NotReadyError, match="made no progress for 1 s"):
            engine.check_alive()
        gate.open.set()
    assert "stuck at " in caplog.text
    assert "the process must end" in caplog.text


async def test_many_batches_that_are_each_quick_are_no_hang() -> None:
    pulse, thread = Pulse(), threading.current_thread()
    watching = asyncio.create_task(until_stuck(thread, pulse, 0.2))
    for _ in range(60):
        pulse.beat()
        await asyncio.sleep(0.01)
    pulse.rest()
    await asyncio.sleep(0.4)  # idle
    assert not watching.done()
    pulse.beat()
    assert "no progress for 0.2 s" in await asyncio.wait_for(watching, 5)


def test_one_caller_cannot_fill_the_queue_for_the_others() -> None:
    room = Room(max_rows=100, max_bytes=1000)
    room.take("greedy", 70, 10)
    assert "you hold 70 rows" in (room.why_not("greedy", 10, 10) or "")
    assert room.why_not("greedy", 5, 10) is None
    assert room.why_not("other", 30, 10) is None
    assert "the queue holds 70 rows" in (room.why_not("other", 31, 10) or "")
    assert "you hold" in (room.why_not("greedy", 1, 741) or "")
    room.give_back("greedy", 70, 10)
    assert room.why_not("greedy", 100, 1000) is None  # the largest fits into an empty queue
    assert (room.held.rows, room.held.size, room._by_caller) == (0, 0, {})
    assert 0 < CALLERS_SHARE < 1


async def test_a_small_caller_is_accepted_while_a_greedy_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate(monkeypatch)
    async with started(make_engine(queue_bytes=100_000)) as engine:
        with pytest.raises(OverloadedError, match="you hold 75 rows"):
            for _ in range(100):
                engine.submit(job(5, caller="greedy"))
        small = engine.submit(job(5, caller="small"))
        gate.open.set()
        assert isinstance(await small, Result)
