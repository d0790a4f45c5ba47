"""The command as a process, and one demo with one service for all that look at it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "COLUMNS": "160"}


def python(*arguments: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A Python process that finds our packages."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def turnpoint(
    *arguments: object, cwd: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """The command."""
    return python("-m", "cli.main", *arguments, cwd=cwd, check=check)


@pytest.fixture(scope="session")
def demonstrated(tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, turnpoint("demo", cwd=folder).stdout


@pytest.fixture(scope="session")
def url(demonstrated) -> Iterator[str]:
    """The address of a `turnpoint serve` of the demo's registry."""
    folder, _ = demonstrated
    serve = [sys.executable, "-m", "cli.main", "serve", "--port", "0"]
    with subprocess.Popen(
        serve, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as service:
        try:
            yield service.stdout.readline().split()[-1]
        finally:
            service.terminate()
        assert service.wait(timeout=30) == 0
