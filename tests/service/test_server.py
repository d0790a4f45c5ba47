"""The process: starts with one line, stops without losing anything, fails readably."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from core.errors import ConfigError
from service.server import serve
from tests.service.live import OCTET, octet, pairs, settings_for

ROOT = Path(__file__).parents[2]
COUNTED = ("turnpoint_queue_rows", "turnpoint_batch_rows_sum")
PROGRAM = """
from service.server import serve
from service.settings import load_settings
serve(load_settings(), on_ready=lambda address: print(address, flush=True))
"""


@contextmanager
def process(
    registry: Path, *command: str, **more: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, by default `PROGRAM`; and its address."""
    settings = {
        "TURNPOINT_REGISTRY__ADDRESS": str(registry),
        "TURNPOINT_SERVER__PORT": "0",
        "TURNPOINT_SERVER__TORCH_THREADS": "1",
        **more,
    }
    with subprocess.Popen(
        [sys.executable, "-W", "error", *(command or ("-c", PROGRAM))],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            yield child, child.stdout.readline().split()[-1]
        finally:
            if child.poll() is None:
                child.kill()


def accepted(address: str) -> float:
    """Requests of 4096 rows that are in the queue or have left it."""
    page = httpx.get(f"{address}/metrics").text
    value = {name: float(re.search(rf"^{name} (.+)$", page, re.M)[1]) for name in COUNTED}  # type: ignore[index]
    return (value["turnpoint_queue_rows"] + value["turnpoint_batch_rows_sum"]) / 4096


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_with_zero(registry: Path, number: int) -> None:
    body = octet(*pairs(4096))
    with process(registry, TURNPOINT_LOG__FORMAT="json") as (child, address):
        assert httpx.get(f"{address}/readyz").status_code == 200

        def ask(seed: int) -> int:
            url = f"{address}/negatives?n=64&seed={seed}"
            answer = httpx.post(url, content=body, headers=OCTET, timeout=60)
            assert len(answer.content) == 64 * len(body) // 2
            return answer.status_code

        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask, seed) for seed in range(3)]
            while accepted(address) < 3:
                time.sleep(0.001)
            child.send_signal(number)
            assert [one.result() for one in asked] == [200, 200, 200]
        _, errors = child.communicate(timeout=30)
        assert child.returncode == 0, errors
    lines = [json.loads(line) for line in errors.splitlines()]
    assert {"time", "level", "logger", "message"} <= lines[0].keys()
    assert any("listening on http://127.0.0.1:" in line["message"] for line in lines)


def test_several_workers_are_not_silently_one(registry: Path) -> None:
    with process(registry, WEB_CONCURRENCY="4") as (child, address):
        assert httpx.get(f"{address}/readyz").status_code == 200
        child.terminate()
        _, errors = child.communicate(timeout=30)
    assert "WEB_CONCURRENCY has no effect: one process is one replica" in errors


def test_a_port_that_is_taken_is_one_readable_line(registry: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = settings_for(registry, server={"port": port})
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
            serve(settings)
