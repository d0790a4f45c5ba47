"""Contenders as processes: started, looked at through /proc, stopped by their id."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds until it must answer
TICK = os.sysconf("SC_CLK_TCK")
# For everybody, as `turnpoint serve` has it: see docs/performance.md, Threads.
SPIN = {"GOMP_SPINCOUNT": "10000"}
# For loads that repeat one body: a cache would answer what is to be computed.
UNCACHED = {"TURNPOINT_CACHE__MODE": "off"}


def free_port() -> int:
    """A port of the loopback interface that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A process with all that it started."""

    process: subprocess.Popen[str]
    port: int
    told: IO[str]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        """What it has told so far; its own place in the file is left alone."""
        handle = self.told.fileno()
        return os.pread(handle, os.fstat(handle).st_size, 0).decode(errors="replace")

    def cpu_seconds(self) -> float:
        """Of all of them so far."""
        ticks = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICK

    def memory(self, field: str = "VmHWM") -> float:
        """MiB of all of them, `VmHWM` at their highest or `VmRSS` now."""
        return sum(memory_of(pid, field) for pid in self.tree())

    def tree(self) -> list[int]:
        """Its id and those of its descendants."""
        found = [self.process.pid]
        for pid in found:
            with contextlib.suppress(OSError):
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    found += map(int, (thread / "children").read_text().split())
        return found


def memory_of(pid: int | str, field: str) -> float:
    """MiB of one process; 0 once it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def bare_torch() -> float:
    """MiB of a process that imports torch and does nothing with it."""
    program = "import torch; print(next(s for s in open('/proc/self/status') if 'VmHWM' in s))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout.split()[1]) / 1024


@contextlib.contextmanager
def served(registry: Path, port: int = 0, **settings: object) -> Iterator[Running]:
    """`turnpoint serve` on a registry, listening; `SERVER__MAX_ROWS=64` is a setting."""
    port = port or free_port()
    named = {f"TURNPOINT_{name}": str(value) for name, value in settings.items()}
    command = ("cli.main", "serve", "--registry", registry, "--port", port)
    with started(command, port, named) as running:
        wait_for(running)
        yield running


@contextlib.contextmanager
def started(
    arguments: Sequence[object],
    port: int = 0,
    environment: Mapping[str, str] | None = None,
    cores: set[int] | None = None,
) -> Iterator[Running]:
    """`python -m <arguments>` in a process group of its own, ended with the block.

    Args:
        arguments: what to run.
        port: where it will listen; 0 for one that talks through its standard output.
        environment: beside this process's.
        cores: that it and what it starts may use; by default what this process may.
    """
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if not port else told,
            stderr=told,
            text=True,
            cwd=ROOT,  # where our packages are
            env={**os.environ, **SPIN, **(environment or {})},
            start_new_session=True,
        )
        if cores is not None:
            os.sched_setaffinity(process.pid, cores)  # it has one thread yet; the others inherit
        running = Running(process, port, told)
        try:
            yield running
        except BaseException:
            print(running.log()[-4000:], file=sys.stderr)
            raise
        finally:
            _stop(process)


def wait_for(running: Running) -> None:
    """Until it listens.

    Raises:
        RuntimeError: it ended before.
        TimeoutError: it does not.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if running.process.poll() is not None:
            raise RuntimeError(f"it ended with code {running.process.returncode} before it served")
        if listens(running.port):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {running.port} after {PATIENCE} s")


def listens(port: int) -> bool:
    """Whether somebody listens on a port of the loopback interface."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask the first, then end the group, which is of our making."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
