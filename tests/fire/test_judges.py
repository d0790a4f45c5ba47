"""What judges the scenarios finds what it should: each is fed a run in which something is wrong."""

import dataclasses

import numpy as np
import pytest

from bench.soak import callers, overload, strangers
from bench.soak.callers import Outcome
from bench.soak.findings import Findings, Size
from bench.soak.open_loop import Shot
from bench.soak.prober import is_normal, since
from bench.soak.refusals import judge
from bench.soak.versions import CORRUPT, MODEL, Publisher, told_truly
from bench.soak.watch import growth
from core.checkpoint import unpack, warm_up
from core.errors import CheckpointError
from core.registry import Registry

GOOD = Shot(due=0, lag=0, seconds=0.1, status=200)
BUSY = Shot(due=0, lag=0, seconds=0.01, status=429, code="overloaded", retry_after=1)
LATE = Shot(due=0, lag=0, seconds=2, status=504, code="deadline_exceeded")


def failed_by(shots: list[Shot], recovered: float = 0.1) -> list[str]:
    findings = Findings()
    overload.judge(findings, shots, recovered)
    return [one.what for one in findings.failed()]


def test_an_overload_that_is_refused_is_fine():
    assert failed_by([GOOD, BUSY, LATE]) == []


@pytest.mark.parametrize(
    ("shot", "what"),
    [
        (Shot(0, 0, 15, 0, trouble="none in 15 s"), "none hangs"),
        (Shot(0, 0, 0.1, 0, trouble="ConnectionResetError()"), "or breaks"),
        (Shot(0, 0, 0.1, 500, "internal"), "nothing but 200, 429 and 504"),
        (Shot(0, 0, 0.1, 503, "not_ready"), "nothing but 200, 429 and 504"),
        (dataclasses.replace(BUSY, retry_after=None), "Retry-After"),
        (dataclasses.replace(GOOD, seconds=2.1), "below the deadline"),
    ],
)
def test_one_bad_answer_in_an_overload_is_found(shot, what):
    (told,) = failed_by([GOOD, BUSY, shot])
    assert what in told


def test_an_overload_without_answers_or_without_recovery_is_found():
    assert "some are answered" in failed_by([BUSY])
    assert failed_by([GOOD], recovered=6) == ["latency is normal 5 s after the last request left"]
    assert failed_by([]) != []


@pytest.fixture
def publisher(tmp_path) -> Publisher:
    publisher = Publisher(tmp_path)
    for _ in range(2):
        publisher.good()
    return publisher


def test_a_lost_request_is_found(publisher):
    def failed(outcomes: list[Outcome]) -> list[str]:
        findings = Findings()
        callers.judge(findings, outcomes, publisher.truth)
        return [one.what for one in findings.failed()]

    good = Outcome(0, 0.1, next(iter(publisher.truth)))
    assert failed([good]) == []
    assert failed([]) != []
    assert failed([good, dataclasses.replace(good, wrong="DisconnectedError: …")]) != []


def test_an_answer_of_another_version_is_found(publisher):
    one, other = publisher.truth
    law = publisher.truth[one].law
    first, second = (truth.negatives for truth in publisher.truth.values())
    assert told_truly(one, first, publisher.truth) == told_truly(one, law, publisher.truth) == ""
    assert "not what version" in told_truly(other, law, publisher.truth)
    assert "not what version" in told_truly(one, second, publisher.truth)
    mixed = np.concatenate([first[:1], second[1:]])
    assert "not what version" in told_truly(one, mixed, publisher.truth)
    assert "never published" in told_truly("v0", first, publisher.truth)
    assert "shape" in told_truly(other, second[:, :1], publisher.truth)


@pytest.mark.parametrize("how", CORRUPT)
def test_a_corrupt_version_is_corrupt_and_live(publisher, how):
    version, registry = publisher.corrupt(how), Registry(publisher.registry.address)
    assert registry.live(MODEL) == version
    assert version not in publisher.truth
    if how == "dimension":  # sound by itself; only the live one's callers cannot use it
        warm_up(unpack(registry.read(MODEL, version))[0])
        return
    with pytest.raises(CheckpointError):
        unpack(registry.read(MODEL, version))


def test_growth_is_told_from_noise_and_from_warming_up():
    seconds = np.arange(0, 60, 0.2)
    noise = np.random.default_rng(0).normal(0, 1, len(seconds))
    flat = growth(seconds, 300 + noise)
    assert abs(flat.percent) < 1
    assert abs(flat.slope) < 1
    warming = growth(seconds, 300 - 100 * np.exp(-seconds) + noise)
    assert abs(warming.percent) < 1
    leak = growth(seconds, 300 + 0.5 * seconds + noise)
    assert leak.percent > 5
    assert leak.slope == pytest.approx(30, rel=0.05)
    assert leak.peak > 325


def test_recovery_is_when_the_first_call_left_that_was_normal():
    def calls(*seconds: float, status: int = 200) -> list[tuple[float, float, int]]:
        return [(float(at), took, status) for at, took in enumerate(seconds)]

    slow_then_quick = calls(2, 2, 2, 2, 2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert is_normal(slow_then_quick[-5:], normal=0.1)
    assert not is_normal(slow_then_quick[:5], normal=0.1)
    assert not is_normal(calls(*5 * [0.001], status=429), normal=0.1)
    # Three of five suffice for a median.
    assert since(slow_then_quick, normal=0.1) == 3


def test_a_new_series_is_found():
    findings = Findings()
    old = ("turnpoint_requests_total", (("route", "other"),))
    new = ("turnpoint_requests_total", (("route", "/wp-login.php"),))
    strangers.judge(findings, {old}, {old})
    assert not findings.failed()
    strangers.judge(findings, {old}, {old, new})
    assert "/wp-login.php" in findings.failed()[0].found


PROBLEM = (
    b'{"type": "t", "title": "t", "status": 400, "detail": "d", "code": "malformed", '
    b'"request_id": "r"}'
)


@pytest.mark.parametrize(
    ("status", "media_type", "body", "why"),
    [
        (200, "application/octet-stream", b"", ""),
        (400, "application/problem+json", PROBLEM, ""),
        (422, "application/problem+json", PROBLEM, "status 422"),
        (500, "application/problem+json", PROBLEM, "status 500"),
        (503, "application/problem+json", PROBLEM, "status 503"),
        (302, None, b"", "status 302"),
        (400, "text/plain", b"no", "as text/plain"),
        (400, "application/problem+json", b'{"status": 400}', "with fields"),
        (400, "application/problem+json", PROBLEM.replace(b"malformed", b"internal"), "unknown"),
    ],
)
def test_refusals_are_judged(status, media_type, body, why):
    told = judge(status, media_type, body)
    assert why in told
    assert bool(why) == bool(told)


def test_counts_are_in_proportion():
    assert [Size(seconds).of(1000) for seconds in (0.001, 6, 60, 600)] == [1, 100, 1000, 1000]


def test_what_does_not_hold_is_shown():
    findings = Findings({"rate": 1234.5})
    findings.check("it is quick", holds=False, found="no", timing=True)
    findings.check("it is whole", holds=True, found="a|b")
    assert [one.what for one in findings.failed()] == ["it is quick"]
    assert findings.failed(timing=False) == []
    text = findings.markdown("name")
    assert "| it is quick | no | **DOES NOT HOLD** |" in text
    assert "| it is whole | a/b | holds |" in text
    assert "| rate | 1,234 |" in text
