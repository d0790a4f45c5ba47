"""How far a table is, and how long the rest may take."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from bench.quality.cells import FINAL, Cell, Job
from bench.quality.search import chosen, finals, trials
from bench.quality.work import Plan


def counted(plan: Plan, cell: Cell) -> tuple[int, int, int, int]:
    """Trials done, trials in all, final runs done, final runs in all."""
    result_of, seeds = plan.store.result, plan.seeds_of(cell)
    tried = sum(result_of(job) is not None for job in trials(cell, result_of))
    judged = sum(result_of(job) is not None for job in finals(cell, seeds, result_of))
    return tried, cell.budget, judged, len(seeds)


def status(plan: Plan) -> str:
    """A line for each cell."""
    lines = []
    for cell in plan.cells:
        tried, budget, judged, seeds = counted(plan, cell)
        setting = chosen(cell, plan.store.result)
        told = "" if not setting else "  chosen: " + _told(setting)
        lines.append(f"{cell.label:24} trials {tried}/{budget}  finals {judged}/{seeds}{told}")
    return "\n".join(lines)


def outlook(plan: Plan, workers: int) -> str:
    """One line: runs left, and an estimate from the mean of finished runs of the same kind.

    A trial that another stage repeats counts as one that is left, so the estimate is high.
    """
    left = {cell.label: _left(plan, cell) for cell in plan.cells}
    seconds = _means(plan)
    known = sum(count * seconds[_kind(cell)] for cell in plan.cells
                if (count := left[cell.label]) and _kind(cell) in seconds)  # fmt: skip
    unknown = sum(left[cell.label] for cell in plan.cells if _kind(cell) not in seconds)
    told = f"{sum(left.values())} runs left"
    if known:
        told += f", about {known / workers / 60:.0f} min for {workers} worker(s)"
    return told + (f"; {unknown} of them of kinds that no run has timed yet" if unknown else "")


def finished(job: Job, plan: Plan) -> str:
    """One line about a job that was done."""
    found = plan.store.result(job)
    assert found is not None
    metric = job.config.metric
    test = f", test {found['test'][metric]:.4f}" if job.kind == FINAL else ""
    return (
        f"{job}: valid {metric} {found['valid'][metric]:.4f}{test}, best epoch "
        f"{found['best epoch']} of {found['epochs']}, {found['cost']['seconds']:.0f} s"
    )


def _left(plan: Plan, cell: Cell) -> int:
    tried, budget, judged, seeds = counted(plan, cell)
    return budget - tried + seeds - judged


def _means(plan: Plan) -> dict[tuple[str, ...], float]:
    """Seconds of a run, by kind."""
    spent: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for cell in plan.cells:
        for job in _known(plan, cell):
            if (found := plan.store.result(job)) is not None:
                spent[_kind(cell)].append(found["cost"]["seconds"])
    return {kind: float(np.mean(seconds)) for kind, seconds in spent.items()}


def _known(plan: Plan, cell: Cell) -> Sequence[Job]:
    result_of = plan.store.result
    return [*trials(cell, result_of), *finals(cell, plan.seeds_of(cell), result_of)]


def _kind(cell: Cell) -> tuple[str, ...]:
    settings = cell.settings
    return (cell.data, cell.encoder, settings.get("negatives", ""), settings.get("method", ""))


def _told(settings: object) -> str:
    assert isinstance(settings, dict)
    return " ".join(f"{name}={value}" for name, value in settings.items())
