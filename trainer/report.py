"""The JSON report of a run, and the figures in it."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.stores import LocalStore
from trainer.config import TrainConfig
from trainer.run import Run


def make_report(
    run: Run,
    config: TrainConfig,
    data: str,
    valid: dict[str, float],
    test: dict[str, float],
    extra_tests: dict[str, dict[str, float]],
    published: list[str],
) -> dict[str, Any]:
    """What a run was and gave; metrics are fractions in [0, 1], times are seconds.

    `extra_tests` has the same figures as `test` for each further test set of the data, by name.
    `seconds_per_epoch` is the median over the epochs of this run, training alone; `transition`
    describes t* over the best epoch's batches and is null without a generative method.
    """
    return {
        "config": config.as_dict(),
        "data": data,
        "valid": valid,
        "test": test,
        "extra_tests": extra_tests,
        "best_epoch": run.best_epoch,
        "epochs": run.epoch,
        "seconds_per_epoch": float(np.median(run.seconds)) if run.seconds else None,
        "transition": describe_transition(run.best_histogram),
        "versions": {
            "turnpoint": version("turnpoint"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "published": published,
        },
        "history": run.history,
    }


def describe_transition(histogram: list[int]) -> dict[str, Any] | None:
    """Mean and deciles (10 %, ..., 90 %) of t*, from counts over t = 0..T."""
    counts = np.asarray(histogram)
    if not counts.sum():
        return None
    below = np.cumsum(counts) / counts.sum()
    deciles = np.searchsorted(below, np.arange(1, 10) / 10 - 1e-12)
    mean = float((np.arange(len(counts)) * counts).sum() / counts.sum())
    return {"mean": mean, "deciles": deciles.tolist()}


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report atomically, folders included."""
    path = path.expanduser().absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    LocalStore(path.parent).replace(path.name, json.dumps(report, indent=2).encode())
