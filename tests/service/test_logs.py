"""One line an event, with its request's id, and nothing that a caller sent."""

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import logs
from service.logs import configure_logs
from service.settings import LogSettings
from tests.service.live import JSON, OCTET, octet, pairs
from tests.service.test_server import process

SECRET = "n0b0dy-must-read-this"


@pytest.fixture
def fresh_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`configure_logs` changes the root logger: put it back afterwards."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(logging.getLogger("uvicorn"), "level", logging.NOTSET)


def told(capsys: pytest.CaptureFixture[str], call: Any, **settings: Any) -> list[str]:
    """The lines that a call writes."""
    configure_logs(LogSettings(**settings))
    call(logging.getLogger("turnpoint.service"))
    return capsys.readouterr().err.splitlines()


def failing(log: logging.Logger) -> None:
    token = logs.request_id.set("r-1")
    try:
        try:
            {}[SECRET]
        except KeyError:
            try:
                int(SECRET)
            except ValueError:
                log.exception("it failed")
    finally:
        logs.request_id.reset(token)


@pytest.mark.usefixtures("fresh_logs")
def test_a_line_names_its_request(capsys: pytest.CaptureFixture[str]) -> None:
    def both(log: logging.Logger) -> None:
        log.info("outside")
        token = logs.request_id.set("r-1")
        log.info("inside")
        logs.request_id.reset(token)

    outside, inside = told(capsys, both)
    assert outside.endswith("INFO    turnpoint.service: outside")
    assert inside.endswith("INFO    turnpoint.service: inside [r-1]")
    outside, inside = map(json.loads, told(capsys, both, format="json"))
    assert "request_id" not in outside
    assert (inside["message"], inside["request_id"]) == ("inside", "r-1")


@pytest.mark.usefixtures("fresh_logs")
@pytest.mark.parametrize("style", ["human", "json"])
def test_a_trace_has_the_lines_of_code_and_not_the_message(
    capsys: pytest.CaptureFixture[str], style: str
) -> None:
    text = "\n".join(told(capsys, failing, format=style))
    assert SECRET not in text
    assert "ValueError" in text
    assert "KeyError" in text
    assert "test_logs.py" in text
    assert SECRET in "\n".join(told(capsys, failing, format=style, level="debug"))


@pytest.mark.usefixtures("fresh_logs")
def test_outside_of_requests_the_message_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(log: logging.Logger) -> None:
        try:
            Path("/no/such/disk").read_bytes()
        except OSError:
            log.exception("cannot go on")

    assert any("/no/such/disk" in line for line in told(capsys, fail))


@pytest.mark.usefixtures("fresh_logs")
@pytest.mark.parametrize("style", ["human", "json"])
def test_an_event_cannot_pretend_to_be_two(capsys: pytest.CaptureFixture[str], style: str) -> None:
    forged = "v1\n2026-01-01 00:00:00 INFO forged\r\x1b[2J\x00\u2028é"
    (line,) = told(capsys, lambda log: log.info("version %s", forged), format=style)
    assert line.isprintable()


@pytest.mark.parametrize("style", ["human", "json"])
@pytest.mark.parametrize("addresses", ["false", "true"])
def test_a_service_at_debug_tells_of_requests_and_not_what_is_in_them(
    registry: Path, style: str, addresses: str
) -> None:
    more = {
        "TURNPOINT_LOG__LEVEL": "debug",
        "TURNPOINT_LOG__FORMAT": style,
        "TURNPOINT_LOG__ADDRESSES": addresses,
    }
    named = {"X-Request-ID": "trace-me-7"}
    users, positives = pairs(3)
    as_json = {"users": users.tolist(), "positives": positives.tolist()}
    with process(registry, **more) as (child, address):
        with httpx.Client(base_url=address) as client:
            body = octet(users, positives)
            asked = client.post("/negatives?seed=12345", content=body, headers=OCTET | named)
            assert asked.headers["x-request-id"] == "trace-me-7"
            for path in (f"/{SECRET}", f"/models/{SECRET}", f"/livez?{SECRET}", f"/%0a{SECRET}"):
                client.get(path)
            for query in (f"model={SECRET}", f"version={SECRET}", f"{SECRET}=1", f"n={SECRET}"):
                client.post(f"/negatives?{query}", content=body, headers=OCTET)
            client.post("/negatives", json={**as_json, "user_ids": [SECRET] * 3})
            client.post("/negatives", json={**as_json, SECRET: 1})
            client.post("/negatives", content=f'{{"users": {SECRET}'.encode(), headers=JSON)
            client.post("/negatives", content=body, headers={"Content-Type": f"a/{SECRET}"})
            client.get("/livez", headers={"Authorization": f"Bearer {SECRET}"})
            client.get("/livez", headers={"X-Request-ID": f"<{SECRET}>", "User-Agent": SECRET})
        child.terminate()
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 0, errors
    assert SECRET not in errors
    assert "12345" not in errors
    lines = errors.splitlines()
    (mine,) = [line for line in lines if "trace-me-7" in line]
    if style == "json":
        event = json.loads(mine)
        wanted = {"route": "/negatives", "status": 200, "rows": 3, "request_id": "trace-me-7"}
        assert wanted.items() <= event.items()
        assert 0 < event["seconds"] < 30
        assert event.get("address") == ("127.0.0.1" if addresses == "true" else None)
    else:
        assert "route=/negatives status=200" in mine
        assert "rows=3" in mine
    told_of = [line for line in lines if "turnpoint.access" in line]
    assert ("127.0.0.1" in "".join(told_of)) == (addresses == "true")
    assert sum("route=other" in line for line in told_of) == 2


def test_a_service_at_info_is_quiet(registry: Path) -> None:
    with process(registry) as (child, address):
        for _ in range(5):
            httpx.get(f"{address}/nothing")
        child.terminate()
        _, errors = child.communicate(timeout=30)
    assert 2 <= len(errors.splitlines()) <= 4, errors
