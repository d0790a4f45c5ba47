"""How each kind of panel is drawn, in Grafana's dark colours."""

import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

CARD, EDGE, TEXT, FAINT = "#181b1f", "#2c3036", "#ccccdc", "#8e8e99"
NAMED = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "blue": "#5794f2",
    "orange": "#ff780a",
    "red": "#f2495c",
    "purple": "#b877d9",
    "text": FAINT,
}
SERIES = [colour for name, colour in NAMED.items() if name != "text"]
HEAT = LinearSegmentedColormap.from_list("heat", [CARD, "#264a6e", "#5794f2", "#f2cc0c", "#ff780a"])
MOST_STATES = 6  # bands in one panel, the newest

Line = tuple[str, np.ndarray, np.ndarray]  # legend, time, value


def colour_of(legend: str, index: int, panel: dict[str, Any]) -> str:
    """What the panel says of a series of that legend, else the next of the palette."""
    colour = SERIES[index % len(SERIES)]
    for override in panel["fieldConfig"]["overrides"]:
        if re.fullmatch(override["matcher"]["options"], legend):
            (told,) = override["properties"]
            colour = NAMED[told["value"]["fixedColor"]]
    return colour


def draw_lines(axes: Axes, panel: dict[str, Any], lines: list[Line]) -> None:
    """Lines or, where Grafana stacks, areas on top of each other."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    colours = [colour_of(line[0], index, panel) for index, line in enumerate(lines)]
    stacked = "stacking" in panel["fieldConfig"]["defaults"]["custom"]
    if stacked and lines:
        times = np.unique(np.concatenate([line[1] for line in lines]))
        values = [np.interp(times, t, np.nan_to_num(v), left=0, right=0) for _, t, v in lines]
        axes.stackplot(dated(times), values, colors=colours, alpha=0.45)
        heights = np.cumsum(values, axis=0)
        for colour, top, own in zip(colours, heights, values, strict=True):
            axes.plot(dated(times), np.where(own > 0, top, np.nan), color=colour, linewidth=0.9)
    for colour, (_, times, values) in zip(colours, [] if stacked else lines, strict=False):
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
    names = [Patch(color=c, label=line[0]) for c, line in zip(colours, lines, strict=True)]
    axes.legend(
        handles=names,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.12),
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
    inside = np.diff(below, axis=0, prepend=0).clip(min=0)
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
    lines = sorted(lines, key=lambda line: line[1][0])[-MOST_STATES:]
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


DRAWN = {
    "timeseries": draw_lines,
    "heatmap": draw_heatmap,
    "stat": draw_number,
    "state-timeline": draw_states,
}
