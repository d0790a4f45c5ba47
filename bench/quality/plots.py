"""Plots of a table, where matplotlib is installed."""

from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality.summary import Line, families
from bench.serving.report import plotter

DPI = 70
WIDE = 10  # values of a sweep that reach further than this are shown by their logarithm
SHOWN_USERS = 2000  # as many as the paper's Fig. 3


def draw(name: str, lines: Sequence[Line], folder: Path, kept: Set[str] = frozenset()) -> list[str]:
    """Everything that can be drawn of a table; the names of the files.

    A picture that has a cell of `kept`, whose results are elsewhere, stays as it is.
    """
    if (pyplot := plotter()) is None:
        return []
    drawn: list[str] = []

    def picture(file: str, group: Sequence[Line], plot: Callable[[list[Line]], Any]) -> None:
        there = [line for line in group if line.first is not None]
        if any(line.cell.label in kept for line in group):
            drawn.extend([file] if (folder / file).exists() else [])
        elif there:
            figure = plot(there)
            figure.savefig(folder / file, dpi=DPI)
            pyplot.close(figure)
            drawn.append(file)

    swept = [line for line in lines if ":" in line.cell.label]
    for field, points in _by_field(swept).items():
        picture(f"{name}-{field}.png", points, partial(sweep, pyplot, field))
    for base, family in families([line for line in lines if line not in swept]).items():
        picture(f"{name}-{base}.png", family, partial(training, pyplot))
        picture(f"{name}-{base}-users.png", family, partial(users, pyplot))
    return drawn


def training(pyplot: Any, family: Sequence[Line]) -> Any:
    """Learning curves, hardness and t*, over the epochs of each first seed."""
    generating = [line for line in family if "transition" in _columns(line)]
    panels = 3 + len(generating)
    figure, axes = pyplot.subplots(1, panels, figsize=(4 * panels, 3.2), layout="constrained")
    for line in family:
        history = line.first["history"] if line.first else []
        x, y = ([row[name] for row in history] for name in ("epoch", "recall@20"))
        (curve,) = axes[0].plot(x, y, label=line.cell.label)
        for axis, rival in ((axes[1], "positive"), (axes[2], "hardest")):
            for whose, style in (("negative", "--"), ("generated", "-")):
                if (share := _columns(line).get(f"{whose} > {rival}")) is not None:
                    axis.plot(_columns(line)["epoch"], share, style, color=curve.get_color())
    axes[0].set(title="validation Recall@20", xlabel="epoch")
    axes[0].legend(fontsize="small")
    axes[1].set(title="above the positive (-- $e_j$, – $e_d$)", xlabel="epoch")
    axes[2].set(title="above the hardest of 16", xlabel="epoch")
    for axis in axes[1:3]:
        axis.set_yscale("symlog", linthresh=1e-3)
    for axis, line in zip(axes[3:], generating, strict=True):
        counts = np.array(_columns(line)["transition"], dtype=float).T
        shares = counts / counts.sum(0)
        epochs = _columns(line)["epoch"]
        axis.pcolormesh(np.arange(len(epochs)), np.arange(len(shares)), shares, cmap="Blues")
        places = np.linspace(0, len(epochs) - 1, min(5, len(epochs))).round().astype(int)
        axis.set_xticks(places, [str(epochs[place]) for place in places])
        axis.set(title=f"t* of {line.cell.label}", xlabel="epoch", ylabel="t")
    return figure


def users(pyplot: Any, family: Sequence[Line]) -> Any:
    """The paper's Fig. 3: users' directions on their two principal axes."""
    figure, axes = pyplot.subplots(
        1, len(family), figsize=(3 * len(family), 3), layout="constrained", squeeze=False
    )
    for axis, line in zip(axes[0], family, strict=True):
        points = line.projection
        assert points is not None
        some = points[:: max(1, len(points) // SHOWN_USERS)]
        axis.scatter(*some.T, s=1, linewidths=0)
        axis.set(title=line.cell.label, xlim=(-1, 1), ylim=(-1, 1), xticks=[], yticks=[])
        axis.set_aspect("equal")
    return figure


def sweep(pyplot: Any, field: str, points: Sequence[Line]) -> Any:
    """The paper's Fig. 2: test Recall@20 over one field, a line for each method."""
    figure, axis = pyplot.subplots(figsize=(4.5, 3.2), layout="constrained")
    methods = sorted({line.cell.label.split(":")[0] for line in points})
    for method in methods:
        mine = [line for line in points if line.cell.label.startswith(f"{method}:")]
        x = [line.cell.settings[field] for line in mine]
        y = [np.mean(line.figures("test", "recall@20")) for line in mine]
        axis.plot(x, y, "o-", label=method)
    axis.set(title="test Recall@20", xlabel=field)
    values = sorted({line.cell.settings[field] for line in points})
    least = next(value for value in values if value > 0)
    if values[-1] > WIDE * least:
        axis.set_xscale("log") if values[0] > 0 else axis.set_xscale("symlog", linthresh=least)
    axis.legend(fontsize="small")
    return figure


def _by_field(swept: Sequence[Line]) -> dict[str, list[Line]]:
    """The points of sweeps, by their field."""
    found: dict[str, list[Line]] = {}
    for line in swept:
        field = line.cell.label.split(":")[1].split("=")[0]
        found.setdefault(field, []).append(line)
    return found


def _columns(line: Line) -> dict[str, list[Any]]:
    """The diagnostics of the first seed, by name."""
    rows = line.first["diagnostics"] if line.first else []
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
