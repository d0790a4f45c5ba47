"""What is known of a table now: its cells' final runs, and who is compared with whom."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.quality.cells import FINAL, Cell, Job, flat
from bench.quality.cost import PROCESSOR
from bench.quality.search import TEST, Result, finals, trials
from bench.quality.statistics import Comparison, PerUser, compare
from bench.quality.store import Store
from core.samplers import ADARConfig
from trainer.config import NO_METHOD

SEEDS = tuple(range(10))  # looked for, whichever were asked for
_OF_SAMPLER = {"weight", "transition", "draws", "diffusion_learning_rate", "diffusion_steps"} | (
    {one.name for one in fields(ADARConfig)} - {"dim"}
)


@dataclass(frozen=True)
class Line:
    """A cell and its finished runs.

    Attributes:
        cell: which.
        store: where its results are.
    """

    cell: Cell
    store: Store

    @cached_property
    def jobs(self) -> dict[int, Job]:
        """Its final runs that are finished, by seed."""
        wanted = finals(self.cell, SEEDS, self.store.result)
        return {job.seed: job for job in wanted if self.store.result(job) is not None}

    @property
    def results(self) -> list[Result]:
        """Theirs, in the seeds' order."""
        return [self._result(job) for job in self.jobs.values()]

    @property
    def first(self) -> Result | None:
        """The one that plots show."""
        return next(iter(self.results), None)

    @property
    def projection(self) -> NDArray[np.float32] | None:
        """The first one's users in two dimensions."""
        job = next(iter(self.jobs.values()), None)
        return None if job is None else self.store.arrays(job)["projection"]

    @cached_property
    def tried(self) -> int:
        """Trials that are finished."""
        known = trials(self.cell, self.store.result)
        return sum(self.store.result(job) is not None for job in known)

    def figures(self, *path: str) -> list[float]:
        """One figure of every final run, by its path in the result; None is left out."""
        found = []
        for result in self.results:
            value: Any = result
            for name in path:
                value = value[name]
            if value is not None:
                found.append(float(value))
        return found

    @property
    def metric(self) -> str:
        """By which its epochs were chosen on validation."""
        return Job(self.cell, FINAL, {}).config.metric

    @property
    def to_best(self) -> list[float]:
        """Processor seconds of every final run's epochs up to its best, validation left out."""
        return [
            result["cost"][PROCESSOR] * result["best epoch"]
            for result in self.results
            if result["cost"][PROCESSOR] is not None
        ]

    def within(self, seconds: float) -> list[float]:
        """The best that every final run had on validation after so much processor time.

        What had not been validated by then is left out.
        """
        found = []
        for result in self.results:
            epoch = result["cost"][PROCESSOR] or np.inf
            tried = [
                one[self.metric] for one in result["history"] if one["epoch"] * epoch <= seconds
            ]
            found += [max(tried)] if tried else []
        return found

    @property
    def splits(self) -> list[str]:
        """The test splits that it was judged on."""
        return [name for name in self.first or () if name.startswith(TEST)]

    def per_user(self, split: str) -> dict[int, PerUser]:
        """Recall@20 on a test split of every final run, by seed."""
        arrays = {seed: self.store.arrays(job) for seed, job in self.jobs.items()}
        return {
            seed: PerUser(of[f"{split}/users"], of[f"{split}/recall@20"])
            for seed, of in arrays.items()
        }

    def drift(self) -> list[str]:
        """Settings that were another default when the runs were done, and matter to them."""
        return sorted({told for job in self.jobs.values() for told in self._drift(job)})

    def _drift(self, job: Job) -> Iterator[str]:
        then, now = flat(self._result(job)["config"]), flat(job.config.as_dict())
        for name in then.keys() & now.keys() - {"device"}:
            matters = job.config.method != NO_METHOD or name.split(".")[0] not in _OF_SAMPLER
            if then[name] != now[name] and matters:
                yield f"{name} was {then[name]}, is {now[name]}"

    def _result(self, job: Job) -> Result:
        found = self.store.result(job)
        assert found is not None
        return found


def contests(lines: Sequence[Line], split: str) -> list[tuple[Line, Line, Comparison | None]]:
    """Every cell with its base and its rivals, on a test split."""
    return [(a, b, compare(a.per_user(split), b.per_user(split))) for a, b in opponents(lines)]


def opponents(lines: Sequence[Line]) -> list[tuple[Line, Line]]:
    """Every cell with its base, then with its rivals."""
    by_label = {line.cell.label: line for line in lines}
    pairs = [
        (line, by_label[line.cell.against])
        for line in lines
        if line.cell.against is not None and line.cell.against in by_label
    ]
    return pairs + [
        (line, by_label[rival]) for line in lines for rival in line.cell.rivals if rival in by_label
    ]


def families(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by the base that they stand on, itself first."""
    grouped: dict[str, list[Line]] = {}
    for line in lines:
        grouped.setdefault(line.cell.against or line.cell.label, []).append(line)
    return grouped
