"""What Turnpoint's cost depends on, whether it stays alive under load, and what it keeps.

    python -m bench.serving.sweep [--seconds 2 --rounds 3] [--requests 10000] [--out FOLDER]

One factor at a time around 2048 rows, n = 8, d = 64, T = 50, octet-stream, one caller; latency is
fitted against rows with a straight line. Then `/livez` on a connection of its own while the model
thread is saturated, and memory over many requests beside that of a process that imports torch.
"""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.serving import report
from bench.serving.checkpoint import publish
from bench.serving.contenders import TURNPOINT, Case, Contender, everybody
from bench.serving.load import Request, asking, connected, measured, polled
from bench.serving.processes import Running, bare_torch, served
from cli.bench import drive

FORMATS = ("octet-stream", "safetensors", "json")
FACTORS: dict[str, Sequence[Any]] = {
    "rows": (1, 64, 1024, 2048, 16384),
    "n": (1, 8, 64),
    "dim": (32, 64, 128, 256),
    "num_steps": (20, 50, 200),
    "format": FORMATS,
    "concurrency": (1, 4, 16),
}
SATURATING = 4  # callers: the queue is never empty


@dataclasses.dataclass(frozen=True)
class Point:
    """One load; the defaults are the centre."""

    denoiser: str
    rows: int = 2048
    n: int = 8
    dim: int = 64
    num_steps: int = 50
    format: str = "octet-stream"
    concurrency: int = 1

    @property
    def model(self) -> tuple[str, int, int]:
        """What its checkpoint depends on."""
        return self.denoiser, self.dim, self.num_steps


def points(denoisers: Sequence[str]) -> list[Point]:
    """The centre, and every value of every factor with the others at the centre."""
    found = {
        dataclasses.replace(Point(denoiser), **{factor: value}): None
        for denoiser in denoisers
        for factor, values in FACTORS.items()
        for value in values
    }
    return list(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--denoisers", nargs="+", default=["film", "moment"])
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2000, help="of the memory test")
    parser.add_argument("--out", type=Path, help="a folder for sweep.json, sweep.md, a plot")
    args = parser.parse_args()
    before = report.machine()
    with tempfile.TemporaryDirectory() as folder:
        registry, every = Path(folder), points(args.denoisers)
        models = {model: publish(registry, *model) for model in {one.model for one in every}}
        cases = {one: Case(registry, models[one.model], one.rows, one.n, one.dim) for one in every}
        with served(registry, CACHE__MODE="off") as running:
            rounds = swept(running, cases, args.seconds, args.rounds)
        livez, memory = {}, {}
        for denoiser in args.denoisers:
            case = cases[Point(denoiser)]
            with served(registry, CACHE__MODE="off") as running:
                memory[denoiser] = kept(running, case, args.requests)
                livez[denoiser] = alive(running, case, 2 * args.seconds * args.rounds)
    results = {
        "machine": before,
        "machine after": report.machine(),
        "rounds": args.rounds,
        "seconds": args.seconds,
        "points": [
            {**dataclasses.asdict(one), **report.median(found)} for one, found in rounds.items()
        ],
        "fits": {name: fit(rounds, name) for name in args.denoisers},
        "livez": livez,
        "memory": memory,
    }
    text = markdown(results)
    print("\n" + text)
    if args.out is not None:
        write(args.out, results, text)


def asked(one: Point, case: Case) -> Contender:
    """Turnpoint in that format."""
    return next(them for them in everybody(case) if them.name == f"turnpoint {one.format}")


def swept(
    running: Running, cases: Mapping[Point, Case], seconds: float, rounds: int
) -> dict[Point, list[dict[str, float]]]:
    """All points in turn, round by round."""
    found: dict[Point, list[dict[str, float]]] = {one: [] for one in cases}
    for index in range(rounds):
        for one, case in cases.items():
            figures = measured(running, asked(one, case), case, one.concurrency, seconds, warm_up=2)
            found[one].append(figures)
            print(f"round {index + 1}  {one}  {figures['p50 ms']:.2f} ms", flush=True)
    return found


def fit(rounds: Mapping[Point, Sequence[Mapping[str, float]]], denoiser: str) -> dict[str, float]:
    """p50 against rows: milliseconds per call and per 1000 rows by least squares, and R^2."""
    line = [dataclasses.replace(Point(denoiser), rows=rows) for rows in FACTORS["rows"]]
    rows = np.array([one.rows for one in line])
    p50 = np.array([np.median([found["p50 ms"] for found in rounds[one]]) for one in line])
    slope, start = np.polyfit(rows, p50, 1)
    rest = p50 - (start + slope * rows)
    unexplained = np.square(rest).sum() / np.square(p50 - p50.mean()).sum()
    return {
        "ms per call": float(start),
        "ms per 1000 rows": float(1000 * slope),
        "R^2": float(1 - unexplained),
    }


def alive(running: Running, case: Case, seconds: float) -> dict[str, dict[str, float]]:
    """`/livez` of an idle service, and while callers in another process keep its queue full."""
    contender = next(one for one in everybody(case) if one.name == TURNPOINT)
    idle = polled(running.port, "/livez", seconds / 2)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as others:
        others.submit(int).result()  # it is up
        load = others.submit(_load, running.port, Request.to(contender, case), case, seconds)
        busy = polled(running.port, "/livez", seconds)
        return {"idle": idle, "saturated": busy, "the load": load.result()}


def _load(port: int, request: Request, case: Case, seconds: float) -> dict[str, float]:
    """The callers; in another process, so that they do not hold up who watches."""
    driven = drive(asking(port, request), SATURATING, seconds + 1, {}, warm_up=0)
    return driven.figures(case.rows, case.n)


def kept(running: Running, case: Case, requests: int) -> dict[str, float]:
    """MiB of the service over many requests, and of a process that only imports torch."""
    contender = next(one for one in everybody(case) if one.name == TURNPOINT)
    request, tenth = Request.to(contender, case), max(requests // 10, 1)
    found = {"start": running.memory("VmRSS")}
    with connected(running.port) as connection:
        for count in range(1, requests + 1):
            connection.call(request)
            if count == tenth:
                found["after 10 %"] = running.memory("VmRSS")
    found["end"] = running.memory("VmRSS")
    found["peak"] = running.memory("VmHWM")
    found["bare import torch"] = bare_torch()
    found["growth after 10 %, %"] = 100 * (found["end"] / found["after 10 %"] - 1)
    found["peak above bare"] = found["peak"] - found["bare import torch"]
    return {"requests": requests, **found}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables."""
    lines = [
        f"{results['machine']['cores']} cores, load average "
        f"{results['machine']['load average']:.1f} before and "
        f"{results['machine after']['load average']:.1f} after; medians of {results['rounds']} "
        f"rounds of {results['seconds']:g} s"
    ]
    factors = [field.name for field in dataclasses.fields(Point)]
    shown = [(*factors, *report.SHOWN)]
    shown += [
        (
            *(str(point[name]) for name in factors),
            *(format(point[name], form) for name, form in report.SHOWN.items()),
        )
        for point in results["points"]
    ]
    lines += ["", *report.table(list(shown[0]), map(list, shown[1:]))]
    for title, key in (("p50 against rows", "fits"), ("Memory, MiB", "memory")):
        found = results[key]
        columns = list(next(iter(found.values())))
        rows = (
            [name, *(f"{value:,.4g}" for value in figures.values())]
            for name, figures in found.items()
        )
        lines += ["", f"**{title}**", "", *report.table(["denoiser", *columns], rows)]
    columns = ["calls", "p50 ms", "p99 ms", "max ms"]
    rows = (
        [name, state, *(f"{figures[column]:,.2f}" for column in columns)]
        for name, states in results["livez"].items()
        for state, figures in states.items()
        if state != "the load"
    )
    table = report.table(["denoiser", "service", *columns], rows)
    return "\n".join([*lines, "", f"**/livez**, {SATURATING} callers beside it", "", *table])


def write(folder: Path, results: Mapping[str, Any], text: str) -> None:
    """sweep.json, sweep.md and a plot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(results, indent=2) + "\n")
    (folder / "sweep.md").write_text(text + "\n")
    if (pyplot := report.plotter()) is None:
        return
    names = [name for name in FACTORS if name != "format"]
    figure, every = pyplot.subplots(1, len(names), figsize=(16, 3.5), layout="constrained")
    for axes, factor in zip(every, names, strict=True):
        for denoiser in results["fits"]:
            line = [dataclasses.replace(Point(denoiser), **{factor: v}) for v in FACTORS[factor]]
            at = [dataclasses.asdict(one) for one in line]
            p50 = [
                next(p["p50 ms"] for p in results["points"] if one.items() <= p.items())
                for one in at
            ]
            axes.plot(FACTORS[factor], p50, "o-", label=denoiser)
        axes.set(xlabel=factor, ylabel="p50, ms", xscale="log", yscale="log")
        axes.legend()
    figure.savefig(folder / "sweep.svg")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
