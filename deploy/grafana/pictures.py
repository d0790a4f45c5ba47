"""Pictures of the dashboards, drawn from a live Prometheus in Grafana's dark style.

    python -m deploy.grafana.pictures --seconds 240        or `make pictures`

Runs the stack on loopback under demo traffic for that long, then asks what each panel's queries
gave, and draws what Grafana would. Needs matplotlib. The files go to docs/images.
"""

import argparse
import re
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from deploy.grafana.reading import dashboards, queries
from deploy.stack import SCRAPE, Stack, running
from deploy.tools import ROOT

FOLDER = ROOT / "docs" / "images"
WINDOW = "15s"  # in place of $__rate_interval
PAGE, CARD, EDGE, TEXT, FAINT = "#111217", "#181b1f", "#2c3036", "#ccccdc", "#8e8e99"
SERIES = ["#73bf69", "#f2cc0c", "#5794f2", "#ff780a", "#f2495c", "#b877d9", "#8ab8ff", "#ffa6b0"]
NAMED = {"green": "#73bf69", "red": "#f2495c", "text": FAINT}
HEAT = LinearSegmentedColormap.from_list("heat", [CARD, "#264a6e", "#5794f2", "#f2cc0c", "#ff780a"])
UNIT, GAP = 0.235, 0.06  # inches of one of Grafana's rows, and between two cards
COLUMN = 0.58  # inches of one of Grafana's 24 columns
COLOURS = 96  # of the finished file

Line = tuple[str, np.ndarray, np.ndarray]  # legend, time, value


def main() -> None:
    """Run the stack, then draw every dashboard."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240.0, help="of traffic before drawing")
    chosen = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as stack:
        begin = time.time()
        time.sleep(chosen.seconds)
        for uid, dashboard in dashboards().items():
            file = FOLDER / f"dashboard-{uid.removeprefix('turnpoint-')}.png"
            save(drawn(stack, dashboard, begin, time.time()), file)
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size // 1024} KiB")


def drawn(stack: Stack, dashboard: dict[str, Any], begin: float, end: float) -> plt.Figure:
    """One dashboard, each panel where Grafana puts it."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    bottom = max(place["y"] + place["h"] for place in places)
    width, height = 24 * COLUMN, bottom * UNIT + 0.5
    plt.rcParams |= {"font.family": "DejaVu Sans", "font.size": 7, "text.color": TEXT}
    figure = plt.figure(figsize=(width, height), facecolor=PAGE)
    figure.text(0.1 / width, 1 - 0.32 / height, dashboard["title"], fontsize=12)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * COLUMN, (bottom - place["y"] - place["h"]) * UNIT
        box = (x + GAP, y + GAP, place["w"] * COLUMN - 2 * GAP, place["h"] * UNIT - 2 * GAP)
        if panel["type"] == "row":
            figure.text(box[0] / width, (box[1] + 0.04) / height, f"⌄ {panel['title']}", fontsize=9)
            continue
        card(figure, box, panel["title"])
        axes = inner_axes(figure, box, panel["type"])
        lines = [
            line
            for query, target in zip(
                queries(panel, dashboard, WINDOW), panel["targets"], strict=True
            )
            for line in asked(stack, query, target.get("legendFormat", ""), begin, end)
        ]
        DRAWN[panel["type"]](axes, panel, lines)
    return figure


def asked(stack: Stack, query: str, legend: str, begin: float, end: float) -> list[Line]:
    """What a query gave over that time."""
    found = stack.query(query, start=str(begin), end=str(end), step=SCRAPE)
    return [
        (
            re.sub(r"\{\{(\w+)\}\}", lambda name: one["metric"].get(name[1], ""), legend),
            *np.array(one["values"], dtype=float).T,
        )
        for one in found
    ]


def card(figure: plt.Figure, box: tuple[float, float, float, float], title: str) -> None:
    """The panel's frame and title."""
    width, height = figure.get_size_inches()
    x, y, wide, high = box
    figure.add_artist(
        FancyBboxPatch(
            (x / width, y / height),
            wide / width,
            high / height,
            boxstyle="round,pad=0,rounding_size=0.002",
            facecolor=CARD,
            edgecolor=EDGE,
            linewidth=0.6,
            mutation_aspect=width / height,
            zorder=-1,
        )
    )
    figure.text((x + 0.1) / width, (y + high - 0.19) / height, title, fontsize=8)


def inner_axes(figure: plt.Figure, box: tuple[float, float, float, float], kind: str) -> Axes:
    """Axes inside a card, with room for title, ticks and legend."""
    width, height = figure.get_size_inches()
    left, below, above = {
        "stat": (0.05, 0.05, 0.25),
        "state-timeline": (1.9, 0.25, 0.28),
        "heatmap": (0.5, 0.25, 0.3),
    }.get(kind, (0.5, 0.48, 0.3))
    x, y, wide, high = box
    axes = figure.add_axes(
        (
            (x + left) / width,
            (y + below) / height,
            (wide - left - 0.12) / width,
            (high - below - above) / height,
        ),
        facecolor=CARD,
    )
    axes.tick_params(colors=FAINT, length=0, labelsize=6)
    for side in axes.spines.values():
        side.set_visible(False)
    if kind != "stat":
        locator = AutoDateLocator(maxticks=6, interval_multiples=True)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    return axes


def draw_lines(axes: Axes, panel: dict[str, Any], lines: list[Line]) -> None:
    """Lines or, where Grafana stacks, areas on top of each other."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    stacked = "stacking" in panel["fieldConfig"]["defaults"]["custom"]
    if stacked and lines:
        times = np.unique(np.concatenate([line[1] for line in lines]))
        values = [np.interp(times, t, np.nan_to_num(v), left=0, right=0) for _, t, v in lines]
        axes.stackplot(dated(times), values, colors=SERIES, alpha=0.45)
        heights = np.cumsum(values, axis=0)
        for colour, top in zip(SERIES, heights, strict=False):
            axes.plot(dated(times), top, color=colour, linewidth=0.9)
    for index, (_, times, values) in enumerate([] if stacked else lines):
        colour = SERIES[index % len(SERIES)]
        axes.plot(dated(times), values, color=colour, linewidth=0.9)
        axes.fill_between(dated(times), values, color=colour, alpha=0.1, linewidth=0)
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])[1:]:
        if axes.get_ylim()[1] > 0.4 * step["value"]:
            axes.axhline(step["value"], color=NAMED["red"], linewidth=0.8, linestyle="--")
    if all((values[np.isfinite(values)] >= 0).all() for _, _, values in lines):
        top = axes.get_ylim()[1]
        axes.set_ylim(0, top if np.isfinite(top) and top > 0 else 1)
    axes.grid(color=EDGE, linewidth=0.5)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    names = [Patch(color=c, label=line[0]) for c, line in zip(SERIES, lines, strict=False)]
    axes.legend(
        handles=names,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.1),
        ncols=6,
        frameon=False,
        fontsize=6,
        labelcolor=TEXT,
        handlelength=1,
        handleheight=0.4,
        columnspacing=1.2,
    )


def draw_heatmap(axes: Axes, panel: dict[str, Any], lines: list[Line]) -> None:
    """Rates of the buckets, each less the one below."""
    unit = panel["options"]["yAxis"]["unit"]
    lines = sorted(lines, key=lambda line: float(line[0]))
    times = np.unique(np.concatenate([line[1] for line in lines]))
    below = np.array([np.interp(times, t, np.nan_to_num(v)) for _, t, v in lines])
    inside = np.diff(below, axis=0, prepend=0)
    rows = np.flatnonzero(inside.max(1) > 0)
    low, high = (max(rows[0] - 1, 0), rows[-1] + 2) if len(rows) else (0, len(lines))
    edges = [shown(float(line[0]), unit) for line in lines][low:high]
    axes.imshow(
        np.sqrt(inside[low:high]),  # a few slow ones must be seen
        aspect="auto",
        origin="lower",
        cmap=HEAT,
        interpolation="nearest",
        extent=(*dated(times[[0, -1]]), 0, len(edges)),
    )
    axes.xaxis_date()
    every = -(-len(edges) // 9)
    axes.set_yticks(np.arange(1, len(edges) + 1)[::every], edges[::every])


def draw_number(axes: Axes, panel: dict[str, Any], lines: list[Line]) -> None:
    """The last value over its past."""
    defaults = panel["fieldConfig"]["defaults"]
    _, times, values = lines[0]
    colour = SERIES[0]
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or values[-1] >= step["value"]:
            colour = NAMED[step["color"]]
    axes.fill_between(times, values, color=colour, alpha=0.18, linewidth=0)
    axes.plot(times, values, color=colour, linewidth=0.8, alpha=0.6)
    axes.set_ylim(0, max(values.max() * 2.2, 1e-9))
    axes.set_axis_off()
    text = shown(values[-1], defaults["unit"])
    axes.text(
        *(0.5, 0.55, text),
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=19,
        color=colour,
    )


def draw_states(axes: Axes, panel: dict[str, Any], lines: list[Line]) -> None:
    """A band for each series."""
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    states = mapping["options"]
    lines = sorted(lines, key=lambda line: line[1][0])[-12:]
    for index, (_, times, values) in enumerate(lines):
        step = np.median(np.diff(times)) if len(times) > 1 else 1.0
        for value, state in states.items():
            spans = [(dated(t), step / 86_400) for t in times[values == float(value)]]
            axes.broken_barh(spans, (-index - 0.4, 0.8), color=NAMED[state["color"]], linewidth=0)
    axes.set_yticks(-np.arange(len(lines)), [name for name, *_ in lines])
    axes.xaxis_date()
    used = [Patch(color=NAMED[s["color"]], label=s["text"]) for s in states.values()]
    axes.legend(
        handles=used,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=3,
        frameon=False,
        fontsize=6,
        labelcolor=TEXT,
        handlelength=1,
        handleheight=0.5,
    )


DRAWN = {
    "timeseries": draw_lines,
    "heatmap": draw_heatmap,
    "stat": draw_number,
    "state-timeline": draw_states,
}


def shown(value: float, unit: str) -> str:
    """A number as Grafana would write it."""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "bytes":
        return f"{value / 2**20:.0f} MiB"
    if unit == "s" and np.isfinite(value):
        for size, name in ((86_400, "day"), (3600, "hour"), (60, "min"), (1, "s")):
            if abs(value) >= size:
                return f"{value / size:.3g} {name}"
        return f"{1000 * value:.3g} ms"
    suffix = {"reqps": " req/s", "cps": " c/s"}.get(unit, "")
    for size, letter in ((1e6, "M"), (1e3, "K")):
        if abs(value) >= size and np.isfinite(value):
            return f"{value / size:.3g} {letter}{suffix}"
    return f"{value:.3g}{suffix}"


def dated(seconds: Any) -> Any:
    """matplotlib's days of Unix seconds."""
    return seconds / 86_400


def save(figure: plt.Figure, file: Path) -> None:
    """A PNG of few colours, which is small."""
    raw = BytesIO()
    figure.savefig(raw, dpi=110, facecolor=PAGE)
    plt.close(figure)
    Image.open(raw).convert("RGB").quantize(COLOURS).save(file, optimize=True)


if __name__ == "__main__":
    main()
