"""Results as JSON, as a table and, where matplotlib is installed, as plots."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.serving.contenders import ECHO, KERNEL, TURNPOINT

FLOOR = "floor: kernel + echo"
SHOWN = {
    "p50 ms": ".2f",
    "p95 ms": ".2f",
    "p99 ms": ".2f",
    "rows/s": ",.0f",
    "negatives/s": ",.0f",
    "MiB/s": ",.0f",
    "server CPU ms/call": ".2f",
    "client CPU ms/call": ".2f",
}


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was."""
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load average": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def median(rounds: list[Mapping[str, float]]) -> dict[str, float]:
    """Of every figure."""
    return {name: float(np.median([one[name] for one in rounds])) for name in rounds[0]}


def ratio(
    rounds: list[Mapping[str, float]], to: list[Mapping[str, float]], figure: str = "p50 ms"
) -> float:
    """Median over rounds of the ratio of a figure."""
    return float(np.median([a[figure] / b[figure] for a, b in zip(rounds, to, strict=True)]))


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per contender, with ratios to Turnpoint and to the floor."""
    rounds = dict(found["rounds"])
    if KERNEL in rounds and ECHO in rounds:
        rounds[FLOOR] = [
            {key: kernel[key] + echo[key] for key in kernel if key.endswith((" ms", "ms/call"))}
            for kernel, echo in zip(rounds[KERNEL], rounds[ECHO], strict=True)
        ]
    rows = []
    for name, mine in rounds.items():
        row = {"contender": name, **median(mine), "peak MiB": found["peak MiB"].get(name)}
        for title, other in (("x Turnpoint", TURNPOINT), ("x floor", FLOOR)):
            if other in rounds:
                row[title] = ratio(mine, rounds[other])
        rows.append(row)
    return sorted(rows, key=lambda row: row["p50 ms"])


def markdown(results: Mapping[str, Any]) -> str:
    """The tables."""
    load, host = results["load"], results["machine"]
    lines = [
        f"{load['rows']} x {load['dim']}, n = {load['n']}, T = {load['num_steps']}, "
        f"{load['concurrency']} caller(s), medians of {load['rounds']} rounds of "
        f"{load['seconds']:g} s; {host['cores']} cores, load average {host['load average']:.1f} "
        f"before and {results['machine after']['load average']:.1f} after, torch {host['torch']}.",
    ]
    for denoiser, found in results["denoisers"].items():
        told = summary(found)
        columns = ["contender", *SHOWN, "peak MiB", "x Turnpoint", "x floor"]
        lines += ["", f"**{denoiser}**", "", *table(columns, (_cells(row) for row in told))]
        lines += [f"\nskipped: {name}: {why}" for name, why in found["skipped"].items()]
    return "\n".join(lines)


def table(columns: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Markdown."""
    head = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*head, *("| " + " | ".join(row) + " |" for row in rows)]


def write(folder: Path, results: Mapping[str, Any], text: str) -> None:
    """results.json, results.md and a plot a denoiser."""
    folder.mkdir(parents=True, exist_ok=True)
    summaries = {name: summary(found) for name, found in results["denoisers"].items()}
    document = {**results, "summary": summaries}
    (folder / "results.json").write_text(json.dumps(document, indent=2, default=str) + "\n")
    (folder / "results.md").write_text(text + "\n")
    if (pyplot := plotter()) is None:
        return
    for denoiser, rows in summaries.items():
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        bars = axes.barh([row["contender"] for row in rows], [row["p50 ms"] for row in rows])
        axes.bar_label(bars, fmt="%.1f", padding=3)
        axes.set(xscale="log", xlabel="p50, ms", title=denoiser)
        axes.invert_yaxis()
        figure.savefig(folder / f"latency-{denoiser}.svg")
        pyplot.close(figure)


def plotter() -> Any:
    """`matplotlib.pyplot`, None where there is none."""
    try:
        import matplotlib as mpl
    except ImportError:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _cells(row: Mapping[str, Any]) -> list[str]:
    cells = [row["contender"]]
    for name, form in (*SHOWN.items(), ("peak MiB", ".0f"), ("x Turnpoint", ".2f")):
        cells.append("" if row.get(name) is None else format(row[name], form))
    return [*cells, "" if row.get("x floor") is None else format(row["x floor"], ".2f")]
