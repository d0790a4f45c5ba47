"""The queue is bounded and loses nothing; one job's failure is its own; a dead thread is seen."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI

from core.errors import DeadlineExceededError, NotReadyError, OverloadedError
from service import compute as module
from service import worker
from service.engine import Engine
from service.job import Job, Result
from service.negatives import Service
from tests.service.jobs import Gate, job, make_engine, slowed, started
from tests.service.live import OCTET, octet, pairs


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    async with started(make_engine()) as one:
        yield one


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    one = Gate(monkeypatch)
    yield one
    one.open.set()


async def test_bounded_in_rows_and_room_comes_back(engine: Engine, gate: Gate) -> None:
    accepted = [engine.submit(job(rows=50, caller=who)) for who in "ab"]
    with pytest.raises(OverloadedError, match="100 rows"):
        engine.submit(job(rows=1))
    gate.open.set()
    await asyncio.gather(*accepted)
    assert (engine.room.held.rows, engine.room.held.size) == (0, 0)
    await engine.submit(job(rows=100))


async def test_bounded_in_bytes(engine: Engine, gate: Gate) -> None:
    engine.submit(job(size=9_990))
    with pytest.raises(OverloadedError, match="9990 bytes"):
        engine.check_room("b", 1, 11)
    engine.check_room("b", 1, 10)


async def test_retry_after_is_the_measured_drain_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowed(monkeypatch, 0.02)
    await engine.submit(job(rows=5))
    waiting = [engine.submit(job(rows=10)) for _ in range(3)]
    with pytest.raises(OverloadedError) as refused:
        engine.submit(job(rows=90))
    assert 0.5 < refused.value.retry_after < 1.5  # 30 rows of 20 ms
    await asyncio.gather(*waiting)


async def test_past_its_deadline_a_job_is_dropped_at_its_turn(engine: Engine, gate: Gate) -> None:
    first = engine.submit(job(seed=1))
    late = engine.submit(job(seed=2, deadline=time.monotonic() + 0.01))
    timely = engine.submit(job(seed=3, deadline=time.monotonic() + 60))
    await gate.reached()
    await asyncio.sleep(0.05)
    gate.open.set()
    with pytest.raises(DeadlineExceededError, match="X-Request-Timeout-Ms"):
        await late
    assert isinstance(await first, Result)
    assert isinstance(await timely, Result)
    assert gate.seen == [[1], [3]]


async def test_what_would_wait_past_its_deadline_is_refused_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the fair order: behind its own rows, and as many of others as it asks for."""
    slowed(monkeypatch, 0.02)
    begin = time.monotonic()
    await engine.submit(job(rows=5))  # measured: 0.02 s a row, or more where sleep overslept
    of_40_rows = 8 * (time.monotonic() - begin)
    waiting = [engine.submit(job(rows=10, caller="greedy")) for _ in range(4)]
    soon = time.monotonic() + 0.4
    with pytest.raises(OverloadedError, match=r"its turn would come in about \d") as refused:
        engine.submit(job(rows=1, caller="greedy", deadline=soon))
    assert 0.4 < refused.value.retry_after < 1.5 * of_40_rows
    modest = engine.submit(job(rows=1, caller="modest", deadline=soon))
    patient = engine.submit(job(rows=1, caller="greedy", deadline=soon + 20))
    await asyncio.gather(*waiting, modest, patient)


async def test_what_would_come_too_late_is_not_computed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn comes in time, its answer would not; a measure that has aged refuses nobody."""
    computed = slowed(monkeypatch, 0.05)
    await engine.submit(job(rows=4, seed=1))  # measured: 0.05 s a row
    with pytest.raises(DeadlineExceededError, match="too late for an answer"):
        await engine.submit(job(rows=10, seed=2, deadline=time.monotonic() + 0.3))
    await engine.submit(job(rows=10, seed=3, deadline=time.monotonic() + 5))
    assert computed == [1, 3]
    monkeypatch.setattr(worker, "MEASURE_HOLDS", 0.0)
    await engine.submit(job(rows=10, seed=4, deadline=time.monotonic() + 0.3))
    assert computed == [1, 3, 4]


async def test_a_caller_that_hung_up_is_skipped(engine: Engine, gate: Gate) -> None:
    first, gone, last = (engine.submit(job(seed=seed)) for seed in (1, 2, 3))
    await gate.reached()
    gone.cancel()
    gate.open.set()
    await asyncio.gather(first, last)
    assert gate.seen == [[1], [3]]
    assert engine.room.held.rows == 0


async def test_an_exception_fails_its_own_job_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = module.sample

    def sample(jobs: Sequence[Job], query: Any) -> Any:
        if jobs[0].seed == 13:
            raise ZeroDivisionError("poison")
        return real(jobs, query)

    monkeypatch.setattr(module, "sample", sample)
    jobs = [engine.submit(job(seed=seed)) for seed in (12, 13, 14)]
    found = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(one) for one in found] == [Result, ZeroDivisionError, Result]
    engine.check_alive()


async def test_closing_answers_everything_accepted(gate: Gate) -> None:
    engine = make_engine()
    engine.start()
    accepted = [engine.submit(job(seed=seed)) for seed in range(5)]
    await gate.reached()
    closing = asyncio.create_task(engine.close(10))
    await asyncio.sleep(0.01)
    with pytest.raises(NotReadyError, match="shutting down"):
        engine.submit(job())
    gate.open.set()
    await closing
    assert all(isinstance(one.result(), Result) for one in accepted)
    with pytest.raises(NotReadyError, match="is not running"):
        engine.check_alive()


async def test_closing_does_not_wait_for_ever(gate: Gate) -> None:
    engine = make_engine()
    engine.start()
    stuck = engine.submit(job())
    await gate.reached()
    began = time.monotonic()
    await engine.close(0.1)
    assert time.monotonic() - began < 3
    with pytest.raises(NotReadyError):
        await stuck
    gate.open.set()


async def test_a_dead_thread_fails_what_waits_and_refuses_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    everyone = threading.Event()

    def dying_later(jobs: Sequence[Job], query: Any) -> Any:
        assert everyone.wait(5)
        dying(jobs, query)

    monkeypatch.setattr(module, "sample", dying_later)
    accepted = [engine.submit(job()) for _ in range(3)]
    everyone.set()
    found = await asyncio.gather(*accepted, return_exceptions=True)
    assert [type(one) for one in found] == [NotReadyError] * 3
    assert engine.failure == "died of KeyboardInterrupt"
    with pytest.raises(NotReadyError, match="died of KeyboardInterrupt"):
        engine.submit(job())


def dying(jobs: Sequence[Job], query: Any) -> Any:
    raise KeyboardInterrupt  # nothing that a thread survives


async def test_a_dead_thread_turns_both_probes_red(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for probe in ("/livez", "/readyz"):
        assert (await client.get(probe)).status_code == 200
    monkeypatch.setattr(module, "sample", dying)
    body = octet(*pairs(2))
    assert (await client.post("/negatives", content=body, headers=OCTET)).status_code == 503
    for probe in ("/livez", "/readyz"):
        refused = await client.get(probe)
        assert refused.status_code == 503
        assert refused.json()["code"] == "not_ready"


async def test_probes_answer_while_the_model_thread_is_busy(
    client: httpx.AsyncClient, gate: Gate
) -> None:
    body = octet(*pairs(2))
    asked = asyncio.create_task(client.post("/negatives", content=body, headers=OCTET))
    await gate.reached()
    for probe in ("/livez", "/readyz", "/metrics"):
        began = time.monotonic()
        assert (await client.get(probe)).status_code == 200
        assert time.monotonic() - began < 0.5
    assert not asked.done()
    gate.open.set()
    assert (await asked).status_code == 200


async def rows_reach(service: Service, rows: int) -> None:
    for _ in range(5000):
        if service.engine.room.held.rows >= rows:
            return
        await asyncio.sleep(0.001)
    pytest.fail(f"the queue never held {rows} rows")


async def test_overload_and_deadline_on_the_wire(
    client: httpx.AsyncClient, service: Service, gate: Gate
) -> None:
    service.engine.room.max_rows = 6  # of which one caller may hold 4
    body = octet(*pairs(2))
    first = asyncio.create_task(client.post("/negatives", content=body, headers=OCTET))
    await gate.reached()
    hurried = OCTET | {"X-Request-Timeout-Ms": "1"}
    late = asyncio.create_task(client.post("/negatives", content=body, headers=hurried))
    await rows_reach(service, 4)
    refused = await client.post("/negatives", content=body, headers=OCTET)
    assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    await asyncio.sleep(0.01)
    gate.open.set()
    assert (await first).status_code == 200
    dropped = await late
    assert (dropped.status_code, dropped.json()["code"]) == (504, "deadline_exceeded")


async def test_who_hangs_up_on_the_wire_is_skipped(
    app: FastAPI, client: httpx.AsyncClient, service: Service, gate: Gate
) -> None:
    body = octet(*pairs(2))
    first = asyncio.create_task(client.post("/negatives?seed=1", content=body, headers=OCTET))
    await gate.reached()
    gone = asyncio.Event()
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/negatives",
        "query_string": b"seed=2",
        "headers": [(b"content-type", b"application/octet-stream")],
    }
    asked = asyncio.create_task(app(scope, receive, send))
    await rows_reach(service, 4)
    gone.set()
    await asyncio.wait_for(asked, 5)
    gate.open.set()
    assert (await first).status_code == 200
    assert gate.seen == [[1]]


async def test_an_unexpected_error_tells_the_log_and_not_the_caller(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(jobs: Sequence[Job], query: Any) -> Any:
        raise RuntimeError("secret 42")

    monkeypatch.setattr(module, "sample", broken)
    named = OCTET | {"X-Request-ID": "mine"}
    found = await client.post("/negatives", content=octet(*pairs(2)), headers=named)
    assert found.status_code == 500
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json()["code"] == "internal"
    assert found.json()["request_id"] == "mine"
    assert "secret" not in found.text
    assert "secret 42" in caplog.text
    assert "mine" in caplog.text


def test_torch_runs_with_the_threads_that_were_set() -> None:
    seen = []

    async def main() -> None:
        async with started(make_engine(threads=1)) as one:
            await one.submit(job(observe=lambda _: seen.append(torch.get_num_threads())))

    asyncio.run(main())
    assert seen == [1]
