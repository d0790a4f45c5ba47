"""Which runs a cell needs: trials stage by stage, then the chosen setting on every seed.

All of it follows from the results that exist, so it can be asked again at any time, by anybody.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from bench.quality.cells import FINAL, TRIAL, Cell, Job, Settings, Stage

Result = dict[str, Any]
ResultOf = Callable[[Job], Result | None]

TEST = "test"  # the split that every data set has; others' names begin so, too


def grid(stage: Stage) -> list[Settings]:
    """Every combination, the last field running fastest."""
    return [dict(zip(stage, values, strict=True)) for values in product(*stage.values())]


def trials(cell: Cell, result_of: ResultOf) -> Iterator[Job]:
    """Those of the first stage, and of each further one whose predecessor is finished."""
    tried: list[Job] = []
    for stage in cell.space:
        best = choose(tried, result_of).chosen if tried else {}
        now = [Job(cell, TRIAL, {**best, **point}) for point in grid(stage)]
        yield from now
        tried += now
        if any(result_of(job) is None for job in now):
            return


def choose(tried: list[Job], result_of: ResultOf) -> Job:
    """The best on validation; of equals the first. All of them must be finished."""
    return max(tried, key=lambda job: score(job, result_of))


def score(job: Job, result_of: ResultOf) -> float:
    """What is maximised: the metric of the best epoch on validation."""
    found = result_of(job)
    assert found is not None
    return float(found["valid"][job.config.metric])


def chosen(cell: Cell, result_of: ResultOf) -> Settings | None:
    """The setting to judge; None while trials are missing."""
    tried = list(trials(cell, result_of))
    if len(tried) < cell.budget or any(result_of(job) is None for job in tried):
        return None
    return choose(tried, result_of).chosen if tried else {}


def finals(cell: Cell, seeds: tuple[int, ...], result_of: ResultOf) -> list[Job]:
    """The chosen setting on every seed; nothing while trials are missing."""
    setting = chosen(cell, result_of)
    return [] if setting is None else [Job(cell, FINAL, setting, seed) for seed in seeds]


def pending(cell: Cell, seeds: tuple[int, ...], result_of: ResultOf) -> list[Job]:
    """What can be run now."""
    known = [*trials(cell, result_of), *finals(cell, seeds, result_of)]
    return [job for job in known if result_of(job) is None]
