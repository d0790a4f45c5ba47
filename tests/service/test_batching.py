"""Merging changes nobody's noise, breaks no promise, and waits only while something is computed."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import httpx
import pytest
import torch

from core.chain import Law
from core.errors import NonFiniteError
from core.samplers import Query
from core.transition import RULES, Transition
from service.batching import MAX_JOBS, Batcher, kind
from service.codecs import Inputs
from service.compute import compute
from service.flight import Flight
from service.job import Job, Result, Ticket
from service.negatives import Service
from service.params import Params
from service.queue import FairQueue
from service.staging import HostMemory
from tests.service.jobs import SAMPLER, Gate, free, job, make_engine, started
from tests.service.live import OCTET, make_sampler, octet, pairs

EVERYTHING = ("negatives", "transition", "distribution", "scores")
# A law computed in another batch rounds its last bits differently; in deviations. Measured at most
# 5e-5 with 64 dimensions, T = 50 and any rule.
ROUNDING = 5e-4


def answers(jobs: Sequence[Job]) -> list[dict[str, torch.Tensor]]:
    return cast(list[dict[str, torch.Tensor]], compute(jobs, HostMemory()).land())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "random"])
@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_a_merged_answer_is_that_of_the_request_alone(rule: str, denoiser: str) -> None:
    sampler = make_sampler(denoiser=denoiser)
    jobs = [
        free(
            rows,
            data=rows,
            seed=rows,
            sampler=sampler,
            rule=Transition(rule),
            wanted=EVERYTHING,
            params=Params(n=n),
        )
        for rows, n in ((1, 3), (7, 1), (64, 8), (700, 2))
    ]
    assert len({kind(one) for one in jobs}) == 1
    for one, merged in zip(jobs, answers(jobs), strict=True):
        (alone,) = answers([one])
        assert torch.equal(merged["transition"], alone["transition"])
        unit = alone["std"].mean()
        for name in ("mean", "std", "negatives"):
            assert (merged[name] - alone[name]).abs().max() / unit < ROUNDING
        torch.testing.assert_close(merged["scores"], alone["scores"], rtol=1e-4, atol=1e-4)
        law = Law(merged["transition"], merged["mean"], merged["std"])
        own = law.draw(one.params.n, torch.Generator().manual_seed(one.seed))
        assert torch.equal(merged["negatives"], own)


def test_thresholds_and_margins_stay_with_their_rows() -> None:
    given = [torch.linspace(-1, 1, rows) for rows in (30, 50)]
    jobs = [
        free(
            len(threshold),
            data=len(threshold),
            inputs=Inputs(*pairs(len(threshold)), threshold),
            params=Params(absolute_margin=margin),
            rule=Transition("theorem"),
            wanted=("transition",),
        )
        for threshold, margin in zip(given, (0.1, 2.0), strict=True)
    ]
    assert kind(jobs[0]) == kind(jobs[1]) is not None
    for one, merged in zip(jobs, answers(jobs), strict=True):
        users, positives = one.inputs.users, one.inputs.positives
        score = (users * positives).sum(-1)
        threshold = one.params.threshold(one.inputs.threshold, score)
        assert threshold is not None
        for mine, same in ((threshold, True), (threshold.roll(1), False)):
            law = SAMPLER.law(Query(users, positives, one.rule, mine), torch.Generator())
            assert torch.equal(merged["transition"], law.transition) == same


@pytest.mark.parametrize(
    "other",
    [
        free(sampler=make_sampler(1)),
        free(rule=Transition(omega=2.0)),
        free(params=Params(absolute_margin=1.0)),
        free(inputs=Inputs(*pairs(4), torch.zeros(4))),
    ],
    ids=["version", "rule", "margin", "threshold"],
)
def test_jobs_whose_laws_differ_in_kind_are_not_merged(other: Job) -> None:
    assert kind(free()) == kind(free(9, data=3, seed=5, params=Params(n=7, dtype="float16")))
    assert kind(free()) != kind(other)


@pytest.mark.parametrize("alone", [job(), free(rule=Transition("random"))], ids=["seed", "random"])
def test_promised_answers_are_computed_alone(alone: Job) -> None:
    assert kind(alone) is None


def test_a_row_that_is_not_sound_is_refused_and_harms_no_neighbour() -> None:
    users, positives = pairs(4)
    users[2, 5] = torch.nan
    huge = pairs(4)[0].mul(1e30)
    broken = [
        free(inputs=Inputs(users, positives)),
        free(inputs=Inputs(huge, huge)),
        free(inputs=Inputs(huge, positives.mul(1e-30))),
    ]
    jobs = [free(data=1, seed=1), broken[0], free(data=2, seed=2), *broken[1:], free(data=3)]
    found = compute(jobs, HostMemory()).land()
    told = [str(one) for one in found if isinstance(one, NonFiniteError)]
    assert [text.partition(";")[0] for text in told] == [
        "users row 2 holds nan in column 5",
        "users and positives row 0 are finite, but their score overflows float32",
        "users row 0 is finite, but its law overflows float32",
    ]
    for place in (0, 2, 5):
        (alone,) = answers([jobs[place]])
        merged = cast(dict[str, torch.Tensor], found[place])
        torch.testing.assert_close(merged["negatives"], alone["negatives"], rtol=1e-3, atol=1e-3)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    one = Gate(monkeypatch)
    yield one
    one.open.set()


async def batches(gate: Gate, jobs: Sequence[Job], **batching: Any) -> tuple[list[Any], list[int]]:
    """Jobs that wait behind one under way: the seeds and the rows of each computation."""
    rows: list[int] = []
    async with started(make_engine(rows, **batching)) as engine:
        first = engine.submit(job(seed=0))
        await gate.reached()
        accepted = [engine.submit(one) for one in jobs]
        gate.open.set()
        found = await asyncio.gather(first, *accepted)
        assert all(isinstance(one, Result) for one in found)
        assert engine.room.held.rows == 0
    return gate.seen[1:], rows[1:]


async def test_what_waits_is_merged_up_to_the_row_limit(gate: Gate) -> None:
    jobs = [free(3, seed=seed) for seed in range(1, 8)]
    found = await batches(gate, jobs, merge_rows=10)
    assert found == ([[1, 2, 3], [4, 5, 6], [7]], [9, 9, 3])


async def test_a_large_request_is_not_merged_on_the_cpu(gate: Gate) -> None:
    jobs = [free(rows, seed=rows) for rows in (20, 1100, 30, 40)]
    seen, _ = await batches(gate, jobs, queue_rows=4000)
    assert seen == [[20], [1100], [30, 40]]


async def test_merging_can_be_switched_off(gate: Gate) -> None:
    seen, _ = await batches(gate, [free(1, seed=seed) for seed in (1, 2)], merge_rows=1)
    assert seen == [[1], [2]]


async def test_what_may_not_be_merged_is_not_and_keeps_its_turn(gate: Gate) -> None:
    mixed = [free(seed=1), free(seed=2), job(seed=3), free(seed=4), job(seed=5), job(seed=6)]
    seen, _ = await batches(gate, mixed)
    assert seen == [[1, 2], [3], [4], [5], [6]]


async def test_a_batch_has_a_bounded_number_of_jobs(gate: Gate) -> None:
    jobs = [free(1, seed=seed) for seed in range(MAX_JOBS + 5)]
    _, rows = await batches(gate, jobs, queue_rows=4 * MAX_JOBS, queue_bytes=10**6)
    assert rows == [MAX_JOBS, 5]


async def test_the_late_and_the_gone_are_no_part_of_a_batch(gate: Gate) -> None:
    async with started(make_engine()) as engine:
        first = engine.submit(job(seed=0))
        await gate.reached()
        late = engine.submit(free(seed=2, deadline=time.monotonic()))
        gone = engine.submit(free(seed=3))
        kept = [engine.submit(free(seed=seed)) for seed in (4, 5)]
        gone.cancel()
        gate.open.set()
        await asyncio.gather(first, late, *kept, return_exceptions=True)
    assert gate.seen == [[0], [4, 5]]


async def test_a_small_caller_is_next_on_a_busy_engine(gate: Gate) -> None:
    async with started(make_engine(queue_rows=20_000, queue_bytes=10**6)) as engine:
        huge = [engine.submit(job(100, seed=seed, caller="huge")) for seed in range(100)]
        await gate.reached()
        small = engine.submit(job(1, seed=1000, caller="small"))
        gate.open.set()
        await asyncio.gather(small, *huge)
    assert gate.seen.index([1000]) <= 2


async def test_a_seeded_answer_is_the_same_bits_in_company(
    client: httpx.AsyncClient, service: Service
) -> None:
    asked = {"content": octet(*pairs(5)), "headers": OCTET}
    seeded, plain = "/negatives?n=3&seed=7", "/negatives?n=3"
    alone = await client.post(seeded, **asked)
    before = await scraped(client)
    company = [seeded if turn % 3 else plain for turn in range(60)]
    answered = await asyncio.gather(*(client.post(path, **asked) for path in company))
    assert {one.content for one in answered[1::3]} == {alone.content}
    unseeded = {one.content for one in answered[::3]}
    assert len(unseeded) == 20
    rows, computed = (now - then for now, then in zip(await scraped(client), before, strict=True))
    assert rows == 60 * 5
    assert 40 <= computed <= 60  # each seeded one is a batch of its own


async def scraped(client: httpx.AsyncClient) -> tuple[float, float]:
    """Rows and batches so far."""
    page = (await client.get("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return tuple(float(lines[f"turnpoint_batch_rows_{kind}"]) for kind in ("sum", "count"))  # type: ignore[return-value]


class Device:
    """A batch under way on a device that is done when told, or at its nth look."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def query(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def synchronize(self) -> None:
        raise AssertionError("the batcher never waits for the device")


def flight(looks: int) -> Flight:
    empty = torch.empty(0)
    return Flight([], [], empty, empty, Device(looks))


async def batcher(max_wait: float, *jobs: Job) -> Batcher:
    queue: FairQueue[Ticket] = FairQueue()
    for one in jobs:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        queue.put(Ticket(one, future), one.caller, one.inputs.rows)
    return Batcher(queue, 100, max_wait, lambda ticket: True)


async def test_an_idle_device_is_never_kept_waiting() -> None:
    one = await batcher(60.0, free())
    began = time.monotonic()
    assert len(one.next(None)) == 1
    assert len((await batcher(60.0, free())).next(flight(looks=0))) == 1
    assert time.monotonic() - began < 5


async def test_a_batch_waits_for_more_while_another_is_computed() -> None:
    one = await batcher(0.05, free())
    began = time.monotonic()
    assert len(one.next(flight(looks=10**9))) == 1
    assert time.monotonic() - began >= 0.05
    patient = await batcher(60.0, free())
    assert len(patient.next(flight(looks=50))) == 1  # until that one is done


async def test_a_batch_that_can_take_no_more_does_not_wait() -> None:
    began = time.monotonic()
    one = await batcher(60.0, free(60), free(60))
    assert len(one.next(flight(looks=10**9))) == 1
    alone = await batcher(60.0, job())
    assert len(alone.next(flight(looks=10**9))) == 1
    assert time.monotonic() - began < 5


async def test_with_nothing_waiting_the_batch_under_way_is_seen_to() -> None:
    one = await batcher(0.0)
    assert one.next(flight(looks=20)) == []
