"""Pages from what there is: all, some, or nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.quality import report
from bench.quality.cost import PROCESSOR
from bench.quality.report import BEGIN, END, NONE, fraction, spread, told_choice, write
from bench.quality.store import Store
from bench.quality.summary import Line
from bench.quality.tables import TABLES
from bench.serving.report import plotter
from tests.bench.quality.conftest import small


@pytest.fixture
def cells(monkeypatch):
    """A table of two cells and a sweep, all of it small."""
    told = [
        small("mf"),
        replace(small("mf+ours", method="adar", against="mf"), rivals=("mf+adar",)),
        small("mf+adar", method="adar", weight=0.7, against="mf"),
        small("adar:weight=0.1", method="adar", weight=0.1),
    ]
    monkeypatch.setattr(report, "TABLES", {"small": told})
    return told


@pytest.fixture
def to(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "quality.md").write_text(f"words\n\n{BEGIN}\n\nold\n\n{END}\n\nmore words\n")
    return folder


def rows(page: str, label: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith(f"| {label} |")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_nothing_is_said_of_nothing(cells, to, tmp_path):
    assert write(Store(tmp_path / "out"), to, ["small"]) == "no results there yet"
    assert not list((to / "quality").iterdir())
    text = (to / "quality.md").read_text()
    assert text == f"words\n\n{BEGIN}\n\nNothing has been run yet.\n\n{END}\n\nmore words\n"


def at_equal_cost_by_hand(mine: Line, other: Line) -> list[str]:
    ((mine,), (other,)) = (line.results for line in (mine, other))
    seconds = other["cost"][PROCESSOR] * other["best epoch"]
    epochs, recall = np.array([(row["epoch"], row["recall@20"]) for row in mine["history"]]).T
    reached = recall[mine["cost"][PROCESSOR] * epochs <= seconds]
    told = fraction(reached.max()) if len(reached) else NONE
    return [f"{seconds:.0f}", told, fraction(other["valid"]["recall@20"])]


def test_what_is_missing_is_a_dash(cells, do, to, tmp_path):
    out = tmp_path / "out"
    do(cells[:1], out)
    write(Store(out), to, ["small"])
    page = (to / "quality" / "small.md").read_text()
    (result,) = Line(cells[0], Store(out)).results
    assert rows(page, "mf")[0][:3] == ["mf", "1", fraction(result["test"]["recall@10"])]
    assert rows(page, "mf+ours")[0] == ["mf+ours", *[NONE] * 5]
    assert rows(page, "mf+ours")[1] == ["mf+ours", "mf", *[NONE] * 7]
    assert "1 of 4 cells" in page
    assert "1 of 4 cells" in (to / "quality.md").read_text()

    do(cells, out)
    write(Store(out), to, ["small"])
    page = (to / "quality" / "small.md").read_text()
    assert NONE not in rows(page, "mf+ours")[0]
    ours, literal = ([row for row in rows(page, "mf+ours") if row[1] == name]
                     for name in ("mf", "mf+adar"))  # fmt: skip
    assert ours[0][2] == literal[0][2] == "1"
    base, method = (Line(cell, Store(out)).figures("test", "recall@20")[0] for cell in cells[:2])
    assert ours[0][3] == f"{method - base:+.4f}"
    (told,) = (row for row in rows(page, "mf+ours") if len(row) == 10)
    line = Line(cells[1], Store(out))
    (epoch,) = line.figures("cost", PROCESSOR)
    assert told[7] == f"{epoch * line.results[0]['best epoch']:.0f}"
    (even,) = (row for row in rows(page, "mf+ours") if row[1] == "mf" and len(row) == 6)
    assert even[2:5] == at_equal_cost_by_hand(line, Line(cells[0], Store(out)))
    cost = [json.loads(f.read_text())["cost"] for f in (out / "runs").glob("*.json")]
    assert all(one["peak MiB"] > 100 and one["seconds"] > 0 for one in cost)
    if plotter():
        drawn = {file.name for file in (to / "quality").glob("*.png")}
        assert drawn == {"small-mf.png", "small-mf-users.png", "small-weight.png"}
        assert all(f"![{name}]({name})" in page for name in drawn)


def test_a_default_that_changed_since_is_told(cells, do, to, tmp_path):
    out = tmp_path / "out"
    do(cells[:2], out)
    write(Store(out), to, ["small"])
    assert "changed since" not in (to / "quality" / "small.md").read_text()
    for file in (out / "runs").glob("*.json"):
        result = json.loads(file.read_text())
        result["config"]["transition"]["hardness"] = 0.25  # matters with a method only
        file.write_text(json.dumps(result))
    write(Store(out), to, ["small"])
    page = (to / "quality" / "small.md").read_text()
    assert "* mf+ours: transition.hardness was 0.25, is 0.5" in page
    assert "* mf:" not in page


def test_a_choice_at_the_edge_is_marked():
    cell = replace(small("c"), space=({"l2": (0.1, 0.2, 0.3)}, {"weight": (0.3, 0.5), "dim": (8,)}))
    assert told_choice(cell, {"l2": 0.2, "weight": 0.5}) == "l2=0.2 weight=0.5°"
    assert told_choice(cell, {"l2": 0.1, "dim": 8}) == "l2=0.1° dim=8°"
    assert told_choice(cell, {}) == "the defaults"


def test_spread_by_hand():
    assert spread([0.1, 0.2, 0.3]) == ".2000 ± .1000"
    assert spread([0.25]) == ".2500"
    assert spread([]) == NONE
    assert fraction(1.0) == "1.0000"


def test_pages_of_the_declared_tables_can_be_made():
    """Every column of every table, with nothing in it."""
    for name, cells in TABLES.items():
        store = type("Empty", (), {"result": lambda *_: None})()
        page = report.page(name, [Line(cell, store) for cell in cells], [])
        assert all(f"| {cell.label} |" in page for cell in cells)
        assert "nan" not in page
