"""A small data set and cells on it, run in this process."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.quality import work
from bench.quality.cells import Cell
from bench.quality.store import Store
from bench.quality.work import Plan
from trainer import synthetic
from trainer.data import Interactions
from trainer.split import split_off_test, split_off_valid

U, M = 120, 80
Do = Callable[..., Plan]


@pytest.fixture(scope="session")
def data() -> Interactions:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    pairs = synthetic.generate(num_users=U, num_items=M, mean_items=12.0, seed=0)
    train, test = split_off_test(pairs, 0.2, rng)
    train, valid = split_off_valid(train, 0.1, rng)
    labels = [np.arange(size).astype(str) for size in (U, M)]
    return Interactions("small", U, M, train, valid, test, *labels)


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch, data: Interactions) -> Do:
    """Run cells to the end on the small data, or on other data, into a folder."""

    def run(cells: Sequence[Cell], out: Path, instead: Interactions = data) -> Plan:
        monkeypatch.setattr(work, "load_set", lambda *_: instead)
        plan = Plan(cells, Store(out))
        for _ in work.work(plan):
            pass
        return plan

    return run


def small(label: str, encoder: str = "mf", against: str | None = None, **settings: object) -> Cell:
    """A cell of two trials and as many epochs."""
    common = {"epochs": 2, "eval_every": 1, "dim": 8, "batch_size": 256, "num_steps": 10}
    space = ({"learning_rate": (1e-3, 1e-2)},)
    return Cell(label, "generated", encoder, {**common, **settings}, space, against)
