"""How the real process ends: with what it owes answered, a line that says why, and a code."""

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import httpx
import pytest

from service.server import FAILED
from tests.service.faulty import UNLUCKY
from tests.service.live import OCTET, octet, pairs
from tests.service.test_server import process

BODY = octet(*pairs(4))


@contextmanager
def faulty(registry: Path, fault: str, hang: int = 1) -> Iterator[tuple[Popen[str], str]]:
    command = ("-m", "tests.service.faulty", fault, "serve")
    more = {
        "TURNPOINT_SERVER__HANG_SECONDS": str(hang),
        "TURNPOINT_SERVER__DRAIN_SECONDS": "600",
        "TURNPOINT_LOG__FORMAT": "json",
    }
    with process(registry, *command, **more) as started:
        yield started


def accepted(address: str) -> None:
    """Wait until a request is in the queue or under way."""
    while "turnpoint_queue_rows 4.0" not in httpx.get(f"{address}/metrics").text:
        time.sleep(0.01)


def ask(address: str, seed: int) -> httpx.Response:
    url = f"{address}/negatives?seed={seed}"
    return httpx.post(url, content=BODY, headers=OCTET, timeout=30)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("dead", "died of SystemExit"),
        ("lost", "died of RuntimeError"),
        ("hung", "made no progress for 1 s"),
    ],
)
def test_a_model_thread_that_is_gone_ends_the_process(registry: Path, fault: str, why: str) -> None:
    with faulty(registry, fault) as (child, address):
        assert ask(address, 1).status_code == 200
        refused = ask(address, UNLUCKY)
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert why in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        _, errors = child.communicate(timeout=20)
    assert child.returncode == FAILED == 70
    lines = [json.loads(line) for line in errors.splitlines()]
    (critical,) = [line["message"] for line in lines if line["level"] == "critical"]
    assert f"the model thread {why}; the process must end" in critical


def test_what_was_accepted_before_a_hang_is_answered(registry: Path) -> None:
    with faulty(registry, "hung", 4) as (child, address), ThreadPoolExecutor(5) as pool:
        stuck = pool.submit(ask, address, UNLUCKY)
        accepted(address)
        behind = [pool.submit(ask, address, seed) for seed in range(4)]
        assert {one.result().status_code for one in (stuck, *behind)} == {503}
        assert child.wait(20) == FAILED


def test_a_poisoned_request_ends_nothing(registry: Path) -> None:
    with faulty(registry, "poisoned") as (child, address):
        assert ask(address, UNLUCKY).status_code == 500
        for probe in ("/livez", "/readyz"):
            assert httpx.get(address + probe).status_code == 200
        assert ask(address, 1).status_code == 200
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_it_at_once(registry: Path, number: int) -> None:
    with faulty(registry, "hung", 60) as (child, address), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, address, UNLUCKY)
        accepted(address)
        child.send_signal(number)
        time.sleep(0.5)
        assert child.poll() is None  # the first drains
        child.send_signal(number)
        assert child.wait(5) == 128 + number
        with pytest.raises(httpx.TransportError):
            asked.result()
