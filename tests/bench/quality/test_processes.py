"""Real processes on one folder: killed and gone on with, and two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

TIMES = ("cost", "machine")


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.quality", "run", "smoke", "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finish(out: Path, *more: str) -> str:
    process = started(out, *more)
    told, _ = process.communicate(timeout=150)
    assert process.returncode == 0
    return told


def results(out: Path) -> dict[str, Any]:
    """Everything that does not depend on the clock, by key."""
    found = {}
    for file in sorted((out / "runs").glob("*.json")):
        whole = json.loads(file.read_text())
        found[file.stem] = {name: value for name, value in whole.items() if name not in TIMES}
    return found


def until(condition: Any, process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    asked = ("--cell", "mf+adar", "--seeds", "0", "--set", "epochs=40", "patience=40", "l2=0.1")
    finish(tmp_path / "whole", *asked)
    whole = results(tmp_path / "whole")
    assert [len(one["diagnostics"]) for one in whole.values()] == [20]

    out = tmp_path / "killed"
    runs = out / "runs"
    kept: set[int] = set()
    for _ in range(2):  # what was resumed can be killed, too
        process = started(out, *asked)

        def has_new_state() -> bool:
            rows = [len(json.loads(f.read_bytes())) for f in runs.glob("*/diagnostics.json")]
            states = list(runs.glob("*/training.safetensors"))
            return bool(states) and rows[0] >= 3 + max(kept, default=0)

        until(has_new_state, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not results(out)
        kept.add(len(json.loads(next(runs.glob("*/diagnostics.json")).read_bytes())))
    assert len(kept) == 2
    finish(out, *asked)
    assert results(out) == whole
    assert not [path for path in runs.iterdir() if path.is_dir() or path.suffix == ".lock"]
    key = next(iter(whole))
    sides = [tmp_path / side / "runs" / f"{key}.safetensors" for side in ("whole", "killed")]
    assert sides[0].read_bytes() == sides[1].read_bytes()


def test_two_workers_share_a_table_and_do_nothing_twice(tmp_path: Path) -> None:
    told = finish(tmp_path / "both", "--workers", "2")
    done = [line.split(": valid")[0] for line in told.splitlines() if ": valid" in line]
    assert len(done) == len(set(done)) == 10  # 2 cells of 2 trials and 3 seeds
    alone = finish(tmp_path / "alone")
    assert results(tmp_path / "both") == results(tmp_path / "alone")
    assert sum(": valid" in line for line in alone.splitlines()) == 10
    assert ": valid" not in finish(tmp_path / "both")


@pytest.mark.parametrize("table", ["beauty"])
def test_a_file_needs_a_folder(tmp_path: Path, table: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TURNPOINT_DATA"}
    command = [sys.executable, "-m", "bench.quality", "run", table, "--cell", "mf"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "name its folder, with --data" in done.stdout
