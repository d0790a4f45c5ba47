"""When it is asked again, how long it waits, and when it stops."""

from email.utils import formatdate
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turnpoint_client import (
    ConnectError,
    DeadlineExceededError,
    DisconnectedError,
    NotReadyError,
    OverloadedError,
    ProblemError,
    ProtocolError,
    Retries,
    TimedOutError,
    UnavailableError,
)
from turnpoint_client._problems import retry_after
from turnpoint_client._retry import Course, Stats

from tests.client.fake import Answer, Fake, problem
from tests.client.harness import both, scripted

U = np.ones((2, 3), np.float32)
BUSY = problem(429, "overloaded")


def ask(client: Any) -> Any:
    return client.negatives(U, U)


@pytest.mark.parametrize(
    "trouble",
    [
        BUSY,
        problem(503, "not_ready"),
        Answer(503, {}, b"no backend"),
        Answer(502, {"content-type": "text/html"}, b"<h1>Bad Gateway</h1>"),
        Answer(504, {}, b"upstream timed out"),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("nobody"),
        httpx.ReadError("reset"),
        httpx.WriteError("broken pipe"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
    ],
    ids=repr,
)
def test_passing_trouble_is_waited_out(trouble: Any) -> None:
    outcome = both(scripted(trouble, trouble, Fake()), ask, uniform=0.5)
    assert outcome.result.version == "v2"
    assert outcome.slept == [0.05, 0.1]
    assert outcome.stats == "Stats(requests=3, retries=2, waited=0.150)"
    assert outcome.requests[0] == outcome.requests[2], "the body is sent whole each time"
    assert len(outcome.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (problem(504, "deadline_exceeded", {"retry-after": "1"}), DeadlineExceededError),
        (problem(400, "malformed"), ProblemError),
        (problem(500, "internal"), ProblemError),
        (httpx.ReadTimeout(""), TimedOutError),
        (httpx.WriteTimeout(""), TimedOutError),
        (httpx.PoolTimeout(""), TimedOutError),
        (httpx.DecodingError("bad gzip"), ProtocolError),
        (httpx.LocalProtocolError("illegal header"), ProtocolError),
        (Answer(200, {"content-type": "text/html"}, b""), ProtocolError),
    ],
    ids=repr,
)
def test_lasting_trouble_is_raised_at_once(trouble: Any, kind: type[Exception]) -> None:
    outcome = both(scripted(trouble), ask)
    assert isinstance(outcome.error, kind)
    assert outcome.slept == []


@pytest.mark.parametrize(
    ("trouble", "kind", "builtin"),
    [
        (BUSY, OverloadedError, Exception),
        (problem(503, "not_ready"), NotReadyError, Exception),
        (httpx.ConnectError("refused"), ConnectError, ConnectionError),
        (httpx.ReadError(""), DisconnectedError, ConnectionError),
        (httpx.ConnectTimeout(""), TimedOutError, TimeoutError),
    ],
    ids=repr,
)
@pytest.mark.parametrize("retries", [0, 2])
def test_patience_ends(trouble: Any, kind: type, builtin: type, retries: int) -> None:
    outcome = both(scripted(*[trouble] * (retries + 1)), ask, retries=retries)
    error: Any = outcome.error
    cause = error.__cause__
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert len(outcome.slept) == retries
    if isinstance(trouble, Exception):
        assert cause is trouble


def test_waits_grow_to_the_cap_and_start_anew_with_each_call() -> None:
    policy = Retries(limit=4, base=0.1, cap=0.5)
    start = scripted(*[BUSY] * 4, Fake(), BUSY, Fake())
    outcome = both(start, ask, ask, retries=policy, uniform=1.0)
    assert outcome.slept == [0.1, 0.2, 0.4, 0.5, 0.1]


def test_jitter_is_full() -> None:
    waits = [Retries().wait(2, uniform, None) for uniform in (0.0, 0.25, 1.0)]
    assert waits == [0.0, 0.1, 0.4]


def busy(**headers: str) -> Answer:
    return problem(
        429, "overloaded", {name.replace("_", "-"): text for name, text in headers.items()}
    )


def test_retry_after_is_a_floor() -> None:
    start = scripted(busy(retry_after="2"), busy(retry_after="0.5"), Fake())
    outcome = both(start, ask, uniform=0.5)
    assert outcome.slept == [2.05, 0.6]


def test_retry_after_may_be_a_date_by_the_services_own_clock() -> None:
    then = 1_000_000_000
    asked = busy(retry_after=formatdate(then + 7, usegmt=True), date=formatdate(then, usegmt=True))
    assert both(scripted(asked, Fake()), ask, uniform=0.0).slept == [7.0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        (" 1.5 ", 1.5),
        ("-2", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
    ],
)
def test_readings_of_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after(httpx.Headers({"Retry-After": text})) == seconds


def test_readings_of_a_date_without_a_date() -> None:
    import time

    found = retry_after(httpx.Headers({"Retry-After": formatdate(time.time() + 60, usegmt=True)}))
    assert found is not None
    assert 50 < found <= 60


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=30), st.text(max_size=30))
def test_no_retry_after_breaks_anything(text: str, date: str) -> None:
    headers = httpx.Headers([(b"Retry-After", text.encode("latin-1")), (b"Date", date.encode())])
    found = retry_after(headers)
    assert found is None or found >= 0


def test_a_wait_beyond_the_budget_is_not_begun() -> None:
    outcome = both(scripted(busy(retry_after="60")), ask)
    assert outcome.error.retry_after == 60
    assert outcome.slept == []


def test_the_budget_is_of_all_waits_together() -> None:
    start = scripted(*[busy(retry_after="4")] * 3)
    outcome = both(start, ask, retries=Retries(max_wait=10), uniform=0.0)
    assert outcome.slept == [4.0, 4.0]
    assert isinstance(outcome.error, OverloadedError)


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def course(deadline: float | None, clock: Clock, **policy: Any) -> Course:
    return Course(deadline, Retries(**policy), Stats(), uniform=lambda: 0.0, clock=clock)


def test_a_deadline_shrinks_and_ends() -> None:
    clock = Clock()
    run = course(2.0, clock)
    assert run.left() == 2.0
    clock.now = 1.5
    assert run.left() == 0.5
    clock.now = 2.0
    with pytest.raises(TimedOutError, match=r"deadline of 2.0 s passed after 0 retries"):
        run.left()


def test_no_wait_past_the_deadline() -> None:
    clock = Clock()
    run = course(2.0, clock)
    refused = OverloadedError(429, "overloaded", "", "", retry_after=1.0)
    assert run.pause(refused) == 1.0
    clock.now = 1.5
    with pytest.raises(OverloadedError):
        run.pause(refused)


def test_the_deadline_bounds_each_step_and_is_sent_in_milliseconds() -> None:
    from turnpoint_client._wire import Wire

    wire = Wire(
        "http://tp",
        model=None,
        api_key=None,
        headers=None,
        timeout=httpx.Timeout(30, connect=0.1, pool=None),
        user_agent="t",
    )
    call = wire.negatives(U, U, deadline=3)
    assert call.deadline == 3
    request = wire.request(call, 1.2345)
    assert request.headers["x-request-timeout-ms"] == "1234"
    steps = request.extensions["timeout"]
    assert steps == {"connect": 0.1, "read": 1.2345, "write": 1.2345, "pool": 1.2345}
    assert wire.request(call, 1e-5).headers["x-request-timeout-ms"] == "1"
    assert "x-request-timeout-ms" not in wire.request(call, None).headers


def test_ready_is_asked_once() -> None:
    outcome = both(scripted(httpx.ConnectError("")), lambda c: c.ready())
    assert outcome.result is False
    assert outcome.slept == []


def test_a_gateways_time_out_is_not_our_deadline() -> None:
    error = both(scripted(Answer(504, {}, b"")), ask, retries=0).error
    assert type(error) is UnavailableError
    assert not isinstance(error, TimeoutError)
