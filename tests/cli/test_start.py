"""A start that cannot work is one readable line and a non-zero exit, through the real command."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from core.checkpoint import pack
from core.registry import Registry
from tests.cli.conftest import ENVIRONMENT, turnpoint
from tests.service.live import make_sampler

KEY = "k" * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a registry, and files that are no good."""
    folder = tmp_path_factory.mktemp("start")
    Registry(folder / "registry").publish("demo", pack(make_sampler()))
    (folder / "short.keys").write_text("short\n")
    (folder / "empty.keys").write_text("# none\n")
    (folder / "file").write_text("no folder")
    return folder


@contextmanager
def environment(**settings: str) -> Iterator[None]:
    """Names that the command will find set."""
    names = {f"TURNPOINT_{name}": value for name, value in settings.items()}
    ENVIRONMENT.update(names)
    try:
        yield
    finally:
        for name in names:
            del ENVIRONMENT[name]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SERVER__PRT": "1"}, "unknown setting TURNPOINT_SERVER__PRT; the nearest known"),
        ({"SERVER__PORT": "eighty"}, "TURNPOINT_SERVER__PORT = eighty"),
        ({"LOG__LEVEL": "loud"}, "TURNPOINT_LOG__LEVEL = loud"),
        ({"SERVER__DEVICE": "toaster"}, "TURNPOINT_SERVER__DEVICE = 'toaster'"),
        ({"SERVER__HOST": "0.0.0.0"}, "TURNPOINT_AUTH__ALLOW_ANONYMOUS=true"),
        ({"SERVER__HOST": "192.0.2.1", "AUTH__KEYS": KEY}, "cannot listen on 192.0.2.1"),
        ({"REGISTRY__ADDRESS": "nowhere"}, "there is no registry at nowhere"),
        ({"REGISTRY__ADDRESS": "file"}, "there is no registry at file"),
        ({"REGISTRY__ADDRESS": "magic://a/b"}, "the registry magic://a/b cannot be opened"),
        ({"AUTH__KEYS": "short"}, "TURNPOINT_AUTH__KEYS: entry 1 is too short"),
        ({"AUTH__KEYS": "["}, "no JSON list"),
        ({"AUTH__KEYS_FILE": "absent"}, "TURNPOINT_AUTH__KEYS_FILE = absent cannot be read"),
        ({"AUTH__KEYS_FILE": "registry"}, "cannot be read: Is a directory"),
        ({"AUTH__KEYS_FILE": "short.keys"}, "short.keys: entry 1 is too short"),
        ({"AUTH__ADMIN_KEYS_FILE": "empty.keys"}, "empty.keys has no key"),
        ({"SERVER__TLS_CERTFILE": "absent.pem"}, "TLS cannot start"),
        ({"SERVER__TLS_CERTFILE": "file"}, "TLS cannot start"),
        ({"SERVER__TLS_KEYFILE": "file"}, "without SERVER__TLS_CERTFILE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_start_that_cannot_work(folder, settings, words):
    with environment(**{"REGISTRY__ADDRESS": "registry", "SERVER__PORT": "0", **settings}):
        done = turnpoint("serve", cwd=folder, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("turnpoint: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_port_that_is_taken(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = turnpoint("serve", "--registry", "registry", "--port", port, cwd=folder, check=False)
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with (
        environment(**settings),
        subprocess.Popen(
            [
                *(sys.executable, "-m", "cli.main", "serve"),
                *("--registry", "registry", "--port", "0"),
            ],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as service,
    ):
        try:
            yield service.stdout.readline().split()[-1], service
        finally:
            service.kill()


def test_with_a_key_the_whole_way(folder):
    """Serve with a key on every interface; bench and client bring it, others stay outside."""
    with serving(folder, AUTH__KEYS=f"ci:{KEY}", SERVER__HOST="0.0.0.0") as (told, service):
        url = told.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/models").status_code == 401
        load = ("--rows", 8, "--n", 1, "--seconds", 0.1)
        with environment(API_KEY=KEY):
            measured = turnpoint("bench", "--url", url, *load, cwd=folder)
        assert "rows/s" in measured.stdout
        refused = turnpoint("bench", "--url", url, *load, cwd=folder, check=False)
        assert refused.returncode == 2
        assert "401 unauthorized" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        os.kill(service.pid, signal.SIGTERM)
        assert service.wait(timeout=30) == 0
        assert KEY not in service.stderr.read()


def test_latest_that_points_nowhere_is_not_ready_and_says_why(folder, tmp_path):
    Registry(tmp_path / "registry").publish("demo", pack(make_sampler()))
    (tmp_path / "registry" / "demo" / "LATEST").write_text("20990101T000000000000-00000000\n")
    with serving(tmp_path) as (url, _):
        unready = httpx.get(f"{url}/readyz")
        assert (unready.status_code, unready.json()["code"]) == (503, "not_ready")
        assert "no version '20990101T000000000000-00000000'" in unready.json()["detail"]
        assert httpx.get(f"{url}/livez").status_code == 200
