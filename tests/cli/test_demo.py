"""`make demo`, the remote trainer and the bench, as a newcomer runs them, one after another."""

import json
import re

import numpy as np
import pytest

from cli.demo import HOME, REGISTRY, sparkline
from core.registry import Registry
from tests.cli.conftest import ROOT, python, turnpoint


def test_demo_shows_the_whole_idea(demonstrated):
    folder, told = demonstrated
    assert "valid recall@20" in told
    for word in ("octet-stream", "safetensors", "json", "score_aware", "exact", "mixed"):
        assert word in told
    assert told.count("200, ") == 3  # curl, in each format
    assert "1024 x 8 x 64 float32" in told
    registry = Registry(folder / REGISTRY)
    assert registry.models() == ["demo"]
    for file in ("pairs.f32", "pairs.safetensors", "pairs.json", "embeddings.safetensors"):
        assert (folder / HOME / file).stat().st_size > 0


@pytest.mark.parametrize("start", [[], ["--start", ".turnpoint/embeddings.safetensors"]])
def test_the_remote_trainer_trains_against_the_service(demonstrated, url, start):
    folder, _ = demonstrated
    example = ROOT / "examples" / "remote_trainer.py"
    done = python(example, "--url", url, "--epochs", 2, *start, cwd=folder)
    uniform, generated = (float(line.split()[-1]) for line in done.stdout.splitlines())
    assert 0 < uniform < 1
    assert 0 < generated < 1


def test_hard_items_come_from_what_the_trainer_publishes(tmp_path):
    done = python(ROOT / "examples" / "hard_items.py", "--epochs", 12, "--n", 2, cwd=tmp_path)
    versions = re.search(r"(\d+) versions of the items answered", done.stdout)
    assert int(versions[1]) > 1  # swapped in while it trained
    figures = re.findall(r"0\.\d{4}", done.stdout.splitlines()[-1])
    assert len(figures) == 4
    assert all(0 < float(figure) < 1 for figure in figures)


@pytest.mark.parametrize("name", ["octet-stream", "safetensors", "json"])
def test_bench_measures_the_service(demonstrated, url, name):
    folder, _ = demonstrated
    turnpoint(
        *("bench", "--url", url, "--rows", 64, "--n", 2, "--seconds", 0.5),
        *("--format", name, "--concurrency", 2, "--report", "bench.json"),
        cwd=folder,
    )
    figures = json.loads((folder / "bench.json").read_text())["figures"]
    assert figures["calls"] > 0
    assert 0 < figures["p50 ms"] <= figures["p95 ms"] <= figures["p99 ms"]
    assert figures["negatives/s"] == pytest.approx(figures["calls/s"] * 128)


def test_the_remote_trainer_is_short_and_knows_nothing_of_ours():
    text = (ROOT / "examples" / "remote_trainer.py").read_text()
    assert len(text.splitlines()) < 100
    for package in ("core", "service", "trainer", "cli"):
        assert f"import {package}" not in text
        assert f"from {package}" not in text


def test_sparkline():
    assert sparkline(np.array([0, 1, 50, 100])) == " ▁▅█"
    assert sparkline(np.zeros(3, dtype=int)) == "   "
