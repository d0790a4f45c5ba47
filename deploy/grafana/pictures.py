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
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from deploy.grafana.drawing import CARD, DRAWN, EDGE, FAINT, TEXT, Line
from deploy.grafana.reading import dashboards, queries
from deploy.stack import SCRAPE, Stack, running
from deploy.tools import ROOT

FOLDER = ROOT / "docs" / "images"
WINDOW = "15s"  # in place of $__rate_interval
PAGE = "#111217"
UNIT, GAP = 0.235, 0.06  # inches of one of Grafana's rows, and between two cards
COLUMN = 0.58  # inches of one of Grafana's 24 columns
COLOURS = 224  # of the finished file


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
        (named(legend, one["metric"]), *np.array(one["values"], dtype=float).T) for one in found
    ]


def named(legend: str, labels: dict[str, str]) -> str:
    """The legend with its {{labels}} filled in."""
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), legend)


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
        "state-timeline": (2.3, 0.25, 0.28),
        "heatmap": (0.5, 0.25, 0.3),
    }.get(kind, (0.5, 0.42, 0.3))
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
        locator = AutoDateLocator(minticks=2, maxticks=5)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
    return axes


def save(figure: plt.Figure, file: Path) -> None:
    """A PNG of few colours, which is small."""
    raw = BytesIO()
    figure.savefig(raw, dpi=110, facecolor=PAGE)
    plt.close(figure)
    Image.open(raw).convert("RGB").quantize(COLOURS).save(file, optimize=True)


if __name__ == "__main__":
    main()
