"""`kill -9` of a publisher at every point of publishing: a reader sees the old version or the new.

Every call that touches files is a point; at every write there is also one where half is written.
"""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.checkpoint import pack, unpack, warm_up
from core.errors import TurnpointError
from core.registry import Registry
from tests.core.samplers.test_adar import make_sampler

ROOT = Path(__file__).parents[2]
MOST = 500  # points; there are about sixty


@pytest.fixture(scope="module")
def publisher() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.core.publish_killed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A registry with one version."""
    folder = tmp_path / "before"
    Registry(folder).publish("demo", pack(make_sampler()))
    return folder


def killed(
    publisher: subprocess.Popen[str], before: Path, *, torn: bool = False, careless: bool = False
) -> Iterator[tuple[str, Path]]:
    """The call at which it was killed, and the registry it left; last, what it left by itself."""
    for point in itertools.islice(itertools.count(1), MOST):
        folder = before.parent / f"{point}-{torn}"
        shutil.copytree(before, folder)
        print(folder, point, int(torn), int(careless), file=publisher.stdin, flush=True)
        call = publisher.stdout.readline().strip()
        yield call, folder
        if call == "published":
            return
    raise AssertionError(f"not published after {MOST} points")


def wrong_with(folder: Path, old: str) -> str:
    """What a reader and the next publisher have against a registry; empty if nothing."""
    registry = Registry(folder)
    live, versions = registry.live("demo"), registry.versions("demo")
    if live not in versions or old not in versions or len(versions) > 2:
        return f"LATEST is {live}, versions {versions}"
    try:
        for version in versions:
            warm_up(unpack(registry.read("demo", version))[0])
        following = registry.publish("demo", pack(make_sampler()))
    except (TurnpointError, OSError) as error:
        return repr(error)
    return "" if registry.live("demo") == following else "the next version is not live"


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_every_point(publisher, before, torn):
    old = Registry(before).live("demo")
    calls, seen = set(), set()
    for call, folder in killed(publisher, before, torn=torn):
        seen.add(Registry(folder).live("demo") == old)
        assert not wrong_with(folder, old), f"killed at {call} {len(calls)}"
        calls.add(call)
    assert {"mkdir", "open", "write", "fsync", "rename", "replace", "published"} <= calls
    assert seen == {False, True}


def test_a_careless_publisher_is_caught(publisher, before):
    old = Registry(before).live("demo")
    left = [(call, wrong_with(f, old)) for call, f in killed(publisher, before, careless=True)]
    assert any(why for _, why in left)
    assert left[-1] == ("published", "")
