"""Doing the runs of a table: one at a time in a process, as many processes as there are."""

import hashlib
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from numpy.typing import NDArray

from bench.quality.cells import FINAL, Cell, Job
from bench.quality.cost import Meter
from bench.quality.data import fingerprint, load_set, without_test
from bench.quality.diagnostics import Diagnostics
from bench.quality.projection import project
from bench.quality.search import TEST, Result, pending, trials
from bench.quality.store import Store
from bench.serving.report import machine
from trainer.cotrain import together
from trainer.data import Interactions
from trainer.evaluate import evaluate_users
from trainer.pipeline import Outputs, fit
from trainer.run import Run

POLL_SECONDS = 2.0  # between looks at whether others have finished what the rest waits for


@dataclass(frozen=True)
class Plan:
    """What is wanted.

    Attributes:
        cells: in order of importance.
        store: where results are.
        folder: where the data sets are.
        seeds: of the final runs; None for each cell's own.
        device: where runs are trained; no part of what tells them apart.
    """

    cells: Sequence[Cell]
    store: Store
    folder: Path | None = None
    seeds: tuple[int, ...] | None = None
    device: str = "cpu"

    def seeds_of(self, cell: Cell) -> tuple[int, ...]:
        """Of its final runs."""
        return cell.seeds if self.seeds is None else self.seeds

    def pending(self) -> list[Job]:
        """What can be run now, each once, in order."""
        jobs: dict[str, Job] = {}
        for cell in self.cells:
            for job in pending(cell, self.seeds_of(cell), self.store.result):
                jobs.setdefault(job.key, job)
        return list(jobs.values())


def work(plan: Plan) -> Iterator[Job]:
    """Do what nobody else is at until nothing is left; yields each job that was done here.

    A job that fails is told and left out, with what depends on it.

    Raises:
        RuntimeError: at the end, if any failed.
    """
    failed: dict[str, Job] = {}
    while waiting := [job for job in plan.pending() if job.key not in failed]:
        for job in waiting:
            with plan.store.claimed(job) as mine:
                if not mine:
                    continue
                try:
                    perform(job, plan)
                except Exception:
                    print(f"{job} failed:\n{traceback.format_exc()}", flush=True)
                    failed[job.key] = job
                    break
            yield job
            break
        else:
            time.sleep(POLL_SECONDS)
    if failed:
        raise RuntimeError(f"failed: {'; '.join(map(str, failed.values()))}")


def perform(job: Job, plan: Plan) -> None:
    """Train, and for a final run judge; keep the result.

    Training is given data without a test split, for trials and final runs alike. The whole data
    go to the diagnostics, which only count, and to the one evaluation after training. So a final
    run learns nothing that a trial with its settings and seed has learnt: it takes its state up.
    """
    config = replace(job.config, device=plan.device)
    data = load_set(job.cell.data, config.split, plan.folder)
    plan.store.pin(job.cell.data, config.split, fingerprint(data), data.describe())
    learnt = plan.store.hand_over(job.trial, job) if job.kind == FINAL else None
    state = plan.store.state(job)
    meter = Meter()
    diagnostics = Diagnostics(data, config, state)
    watcher = together(meter.watcher, diagnostics.watcher)
    outputs = Outputs(state=state, state_every=config.eval_every)
    fitted = fit(without_test(data), config, outputs, watcher)
    run = fitted.run
    result: Result = {
        "kind": job.kind,
        "label": job.cell.label,
        "data": {"name": job.cell.data, "fingerprint": fingerprint(data)},
        "encoder": job.cell.encoder,
        "settings": dict(job.settings),
        "chosen": dict(job.chosen),
        "seed": job.seed,
        "config": config.as_dict(),
        "valid": fitted.valid,
        "best epoch": run.best_epoch,
        "epochs": run.epoch,
        "history": run.history,
        "weights": digest(run),
        "cost": learnt["cost"] if learnt else meter.told(run),
        "machine": learnt["machine"] if learnt else machine(),
    }
    arrays: dict[str, NDArray] = {}
    if job.kind == FINAL:
        tests, arrays = judged(run, data)
        result |= {**tests, "diagnostics": diagnostics.rows}
        for lost in trials(job.cell, plan.store.result):
            if lost.key != job.trial.key:
                plan.store.forget(lost)
    plan.store.finish(job, result, arrays)


def judged(run: Run, data: Interactions) -> tuple[dict[str, dict[str, float]], dict[str, NDArray]]:
    """The only look at the test splits: metrics of each by its name, and what is each user's."""
    users, items = run.encoder.tables("test")
    arrays: dict[str, NDArray] = {"projection": project(users).cpu().numpy()}
    metrics = {}
    for split in (TEST, *data.extra_tests):
        found = evaluate_users(users, items, data, split)
        metrics[split] = found.mean()
        arrays |= {f"{split}/users": found.users, f"{split}/recall@20": found.metrics["recall@20"]}
    return metrics, arrays


def digest(run: Run) -> str:
    """Of the encoder's weights; equal only where every bit is."""
    found = hashlib.sha256()
    for name, tensor in sorted(run.encoder.state_dict().items()):
        found.update(name.encode())
        found.update(torch.as_tensor(tensor).cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
