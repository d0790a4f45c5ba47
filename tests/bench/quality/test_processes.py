"""Real processes on one folder: killed and gone on with, and two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.quality.cells import Cell, overridden
from bench.quality.store import Store
from bench.quality.tables import TABLES
from bench.quality.work import Plan, work

FREE = ("cost", "machine")  # differ from time to time
LONG = {"epochs": 20, "patience": 20, "l2": 0.1}


def started(out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.quality", "run", "smoke", "--out", str(out), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def done_here(cells: Sequence[Cell], out: Path, seeds: tuple[int, ...] | None = None) -> list[str]:
    """What this process had to do of them."""
    torch.set_num_threads(1)
    return [str(job) for job in work(Plan(cells, Store(out), seeds=seeds))]


def results(out: Path) -> dict[str, Any]:
    """Everything that does not depend on the clock, by key."""
    found = {}
    for file in sorted((out / "runs").glob("*.json")):
        whole = json.loads(file.read_text())
        found[file.stem] = {name: value for name, value in whole.items() if name not in FREE}
    return found


def kill_once(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    cells = overridden([cell for cell in TABLES["smoke"] if cell.label == "mf+adar"], LONG)
    asked = ["--cell", "mf+adar", "--seeds", "0"]
    asked += ["--set", *(f"{name}={value}" for name, value in LONG.items())]
    done_here(cells, tmp_path / "whole", (0,))
    whole = results(tmp_path / "whole")
    assert [len(one["diagnostics"]) for one in whole.values()] == [10]

    out = tmp_path / "killed"
    runs = out / "runs"
    reached = 0
    for _ in range(2):  # what was resumed can be killed, too

        def rows() -> int:
            states = list(runs.glob("*/training.safetensors"))
            kept = runs.glob("*/diagnostics.json") if states else ()
            return max((len(json.loads(file.read_bytes())) for file in kept), default=0)

        kill_once(lambda at_least=reached + 3: rows() >= at_least, started(out, *asked))
        assert not results(out)
        reached = rows()
    done_here(cells, out, (0,))
    assert results(out) == whole
    (key,) = whole
    assert {path.name for path in runs.iterdir()} == {f"{key}.json", f"{key}.safetensors"}
    arrays = f"runs/{key}.safetensors"
    assert (out / arrays).read_bytes() == (tmp_path / "whole" / arrays).read_bytes()


def test_two_workers_share_a_table_and_do_nothing_twice(tmp_path: Path) -> None:
    process = started(tmp_path / "both", "--workers", "2")
    told, _ = process.communicate(timeout=150)
    assert process.returncode == 0
    done = [line.split(": valid")[0] for line in told.splitlines() if ": valid" in line]
    assert len(done) == len(set(done)) == 10  # 2 cells of 2 trials and 3 seeds
    assert sorted(done_here(TABLES["smoke"], tmp_path / "alone")) == sorted(done)
    assert results(tmp_path / "both") == results(tmp_path / "alone")
    assert not done_here(TABLES["smoke"], tmp_path / "both")


def test_a_file_needs_a_folder(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TURNPOINT_DATA"}
    command = [sys.executable, "-m", "bench.quality", "run", "beauty", "--cell", "mf"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "name its folder, with --data" in done.stdout
