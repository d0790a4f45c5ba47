"""Pages from what there is: all, some, or nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.quality import earlier, report
from bench.quality.cost import PROCESSOR
from bench.quality.earlier import NONE, Earlier
from bench.quality.report import BEGIN, END, fraction, spread, told_choice, write
from bench.quality.statistics import holm
from bench.quality.store import Store
from bench.quality.summary import Line
from bench.quality.tables import TABLES
from bench.serving.report import plotter
from core.errors import ConfigError
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


def comparison(page: str, label: str) -> list[str]:
    """The one row of the table of comparisons on test; that at equal cost has fewer columns."""
    (found,) = (row for row in rows(page, label) if len(row) == 9 and row[1:3] == ["mf", "1"])
    return found


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


def test_a_page_that_is_not_written_now_keeps_its_link(cells, do, to, tmp_path, monkeypatch):
    out = tmp_path / "out"
    do(cells[:1], out)
    monkeypatch.setattr(report, "TABLES", {"first": cells, "small": cells})
    write(Store(out), to, ["first"])
    write(Store(out), to, ["small"])
    words = (to / "quality.md").read_text()
    assert all(f"* [{name}](quality/{name}.md): 1 of 4 cells" in words for name in report.TABLES)


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
    told = "* mf+ours: transition.hardness was 0.25, is 0.5"
    assert told in page
    assert "* mf:" not in page
    do(cells[3:], tmp_path / "new")  # and is told on while the page keeps the cell
    write(Store(tmp_path / "new"), to, ["small"])
    assert told in (to / "quality" / "small.md").read_text()


def test_a_page_keeps_what_the_results_do_not_know(cells, do, to, tmp_path):
    """Results of the base and a method are lost; the other method's are new."""
    path = to / "quality" / "small.md"
    do([*cells[:2], cells[3]], tmp_path / "lost")
    write(Store(tmp_path / "lost"), to, ["small"])
    before = path.read_text()
    was = {file: file.read_bytes() for file in (to / "quality").glob("*.png")}

    assert "3 of 4 cells" in write(Store(tmp_path / "empty"), to, ["small"])
    assert path.read_text() == before

    do(cells[2:3], tmp_path / "new")
    write(Store(tmp_path / "new"), to, ["small"])
    page = path.read_text()
    assert "4 of 4 cells" in page
    for label in ("mf", "mf+ours", "adar:weight=0.1"):
        # All tables, but the comparison with what was not known then.
        assert [row for row in rows(page, label) if row[1] != "mf+adar"] == [
            row for row in rows(before, label) if row[1] != "mf+adar"
        ]
    assert rows(before, "mf+adar")[0][1] == NONE
    assert rows(page, "mf+adar")[0][1] == "1"
    assert {file: file.read_bytes() for file in was} == was
    assert all(f"![{file.name}]({file.name})" in page for file in was)

    do(cells, tmp_path / "new")  # all is known again
    write(Store(tmp_path / "new"), to, ["small"])
    page = path.read_text()
    told = [row for row in map(earlier.cells, page.splitlines()) if len(row) == 9]
    figures = [row for row in told if row[2] == "1"]
    assert len(figures) == 3
    assert [row[7] for row in figures] == [f"{p:.4f}" for p in holm([float(r[6]) for r in figures])]


def test_a_page_with_more_seeds_is_kept(cells, do, to, tmp_path):
    cells[0] = replace(cells[0], seeds=(0, 1))
    do(cells[:1], tmp_path / "two")
    write(Store(tmp_path / "two"), to, ["small"])
    two = rows((to / "quality" / "small.md").read_text(), "mf")
    cells[0] = replace(cells[0], seeds=(0,))
    do(cells[:1], tmp_path / "one")
    write(Store(tmp_path / "one"), to, ["small"])
    assert rows((to / "quality" / "small.md").read_text(), "mf") == two


def test_holm_counts_the_comparisons_that_were_kept(cells, do, to, tmp_path):
    path = to / "quality" / "small.md"
    do(cells[:2], tmp_path / "lost")
    write(Store(tmp_path / "lost"), to, ["small"])
    page = path.read_text()
    kept = comparison(page, "mf+ours")
    path.write_text(page.replace(f"| {kept[6]} | {kept[7]} |", "| 0.0100 | 0.0100 |"))
    do([cells[0], cells[2]], tmp_path / "new")
    write(Store(tmp_path / "new"), to, ["small"])
    page = path.read_text()
    kept = comparison(page, "mf+ours")
    new = comparison(page, "mf+adar")
    assert float(new[6]) > 0.05  # two epochs of little difference
    assert (kept[6], kept[7], new[7]) == ("0.0100", "0.0200", new[6])


def test_a_page_of_other_columns_is_not_lost(cells, do, to, tmp_path):
    path = to / "quality" / "small.md"
    do(cells[:1], tmp_path / "lost")
    write(Store(tmp_path / "lost"), to, ["small"])
    before = path.read_text().replace("| peak MiB |", "| peak GiB |")
    path.write_text(before)
    do(cells[3:], tmp_path / "new")
    with pytest.raises(ConfigError, match=r"'Search and cost'.*its row of mf would be lost"):
        write(Store(tmp_path / "new"), to, ["small"])
    assert path.read_text() == before


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
        page = report.page(name, [Line(cell, store) for cell in cells], [], Earlier())
        assert all(f"| {cell.label} |" in page for cell in cells)
        assert "nan" not in page
