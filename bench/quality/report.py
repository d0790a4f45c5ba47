"""Markdown and plots from the results that exist; what is missing stays as it was, or is a dash.

<to>/quality/<table>.md, *.png   a page for each table of which something is known
<to>/quality.md                  links to them, between its two markers
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.quality import earlier, plots
from bench.quality.cells import Cell, Settings
from bench.quality.cost import PROCESSOR
from bench.quality.earlier import NONE, Earlier, Row
from bench.quality.published import METRICS, PUBLISHED
from bench.quality.search import TEST, Result
from bench.quality.statistics import Comparison, holm
from bench.quality.store import Store
from bench.quality.summary import Line, contests, opponents
from bench.quality.tables import TABLES
from bench.serving.report import table

BEGIN, END = "<!-- tables: written by bench.quality report -->", "<!-- end of tables -->"
RAN = re.compile("what had been run: (.*?)\\. The words")  # of a page's first sentence
EDGE = "°"
REPORTED = tuple(name for name in TABLES if name != "smoke")  # its figures mean nothing


def write(store: Store, to: Path, names: Sequence[str] = REPORTED) -> str:
    """The pages of these tables, as far as something is known of them; tells what was written."""
    folder = to / "quality"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        lines = [Line(cell, store) for cell in TABLES[name]]
        path = folder / f"{name}.md"
        before = earlier.read(path, lines)
        if any(line.tried or line.jobs for line in lines):
            pictures = plots.draw(name, lines, folder, before.kept)
            path.write_text(page(name, lines, pictures, before))
        if path.exists():
            written.append(f"[{name}](quality/{name}.md): {known(lines, before)}")
    index(to / "quality.md", folder)
    return "\n".join(written) or "no results there yet"


def page(name: str, lines: Sequence[Line], pictures: Sequence[str], before: Earlier) -> str:
    """A table's page, in the place of the one `before`."""
    parts = [
        f"# {name}",
        f"Written by `python -m bench.quality report` from what had been run: "
        f"{known(lines, before)}. The words are in [quality](../quality.md), the protocol is a "
        "[page](protocol.md) of its own.",
        *(part for split in splits(lines, before) for part in judged(name, lines, split, before)),
        *costs(lines, before),
        *at_equal_cost(lines, before),
        *hardness(lines, before),
        *(f"![{picture}]({picture})" for picture in pictures),
        *drifts(lines, before),
    ]
    return "\n\n".join(parts) + "\n"


def splits(lines: Sequence[Line], before: Earlier) -> list[str]:
    """The test splits of a table's data."""
    return max((*(line.splits for line in lines), before.splits), key=len) or [TEST]


def judged(name: str, lines: Sequence[Line], split: str, before: Earlier) -> list[str]:
    """What was found on one test split."""
    return [*results(name, lines, split, before), *differences(lines, split, before)]


def known(lines: Sequence[Line], before: Earlier) -> str:
    """How much of a table there is."""
    done = sum(bool(line.jobs) or line.cell.label in before.kept for line in lines)
    return f"{done} of {len(lines)} cells"


def results(name: str, lines: Sequence[Line], split: str, before: Earlier) -> list[str]:
    """The metrics, beside published ones."""
    heading = split.capitalize()
    published = PUBLISHED.get(name, {}) if split == TEST else {}
    columns = ["cell", "seeds", *METRICS]
    columns += [f"published: {' / '.join(METRICS)}"] if published else []
    rows = []
    for line in lines:
        row = [line.cell.label, str(len(line.jobs) or NONE)]
        row += [spread(line.figures(split, metric)) for metric in METRICS]
        if published:
            there = published.get(line.cell.label, {})
            told = [fraction(there[one]) if one in there else NONE for one in METRICS]
            row.append(" / ".join(told) if there else NONE)
        rows.append(row)
    return [
        f"## {heading}",
        "Mean over seeds ± their standard deviation.",
        markdown(columns, before.merged(heading, columns, rows)),
    ]


def differences(lines: Sequence[Line], split: str, before: Earlier) -> list[str]:
    """Who is better than whom, and how sure that is."""
    heading = f"Differences in {split} Recall@20"
    columns = ["cell", "against", "seeds", "difference", "relative", "95 %", "p users", "Holm",
               "p seeds"]  # fmt: skip
    found = [
        [a.cell.label, b.cell.label, *(_told(one) if one else [NONE] * 7)]
        for a, b, one in contests(lines, split)
    ]
    rows = before.merged(heading, columns, found)
    if not rows:
        return [f"### {heading}", "Nothing is compared in this table."]
    users, corrected = columns.index("p users"), columns.index("Holm")
    tested = [row for row in rows if row[users] != NONE]
    for row, p in zip(tested, holm([float(row[users]) for row in tested]), strict=True):
        row[corrected] = f"{p:.4f}"
    return [
        f"### {heading}",
        f"Holm corrects the p over users for the {len(tested)} comparisons of this table that "
        "could be made.",
        markdown(columns, rows),
    ]


def costs(lines: Sequence[Line], before: Earlier) -> list[str]:
    """What was chosen, and what an epoch, and all up to the best one, cost beside the base's."""
    heading = "Search and cost"
    by_label = {line.cell.label: line for line in lines}
    columns = ["cell", "trials", "chosen", "best epoch", "s an epoch", "processor s", "x base",
               "processor s to best", "x base", "peak MiB"]  # fmt: skip
    rows = []
    for line in lines:
        base = by_label.get(line.cell.against or "")
        chosen = told_choice(line.cell, line.first["chosen"]) if line.first else NONE
        epoch, to_best = line.figures("cost", PROCESSOR), line.to_best
        rows.append(
            [
                line.cell.label,
                f"{line.tried} of {line.cell.budget}",
                chosen,
                ", ".join(map(_epochs, line.results)) or NONE,
                _mean(line.figures("cost", "seconds per epoch"), ".2f"),
                _mean(epoch, ".2f"),
                _ratio(epoch, base.figures("cost", PROCESSOR) if base else []),
                _mean(to_best, ".0f"),
                _ratio(to_best, base.to_best if base else []),
                _mean(line.figures("cost", "peak MiB"), ".0f"),
            ]
        )
    return [
        f"## {heading}",
        markdown(columns, before.merged(heading, columns, rows)),
        f"{EDGE} the largest or smallest value that was tried: the best may lie beyond it.",
    ]


def at_equal_cost(lines: Sequence[Line], before: Earlier) -> list[str]:
    """Who is ahead on validation when the other has come to its best."""
    heading = "At equal cost"
    columns = ["cell", "against", "processor s", "its validation", "theirs", "relative"]
    rows = []
    for mine, other in opponents(lines):
        row = [mine.cell.label, other.cell.label]
        if not (mine.results and other.to_best):
            rows.append(row + [NONE] * 4)
            continue
        seconds = float(np.mean(other.to_best))
        ours = mine.within(seconds)
        best = other.figures("valid", other.metric)
        whole = len(ours) == len(mine.results)  # every run was validated by then
        relative = f"{np.mean(ours) / np.mean(best) - 1:+.1%}" if whole else NONE
        rows.append([*row, f"{seconds:.0f}", spread(ours) if whole else NONE, spread(best),
                     relative])  # fmt: skip
    return [
        f"### {heading}",
        "The best on validation within the processor time in which the other came to its own best, "
        "and that best.",
        markdown(columns, before.merged(heading, columns, rows)),
    ] if rows else []  # fmt: skip


def told_choice(cell: Cell, chosen: Settings) -> str:
    """The chosen settings, with a mark where a wider search might choose another."""
    tried: dict[str, set[Any]] = {}
    for stage in cell.space:
        for name, values in stage.items():
            tried.setdefault(name, set()).update(values)
    ends = {name: (min(values), max(values)) for name, values in tried.items()}
    told = [
        f"{name}={value}{EDGE if value in ends[name] else ''}" for name, value in chosen.items()
    ]
    return " ".join(told) or "the defaults"


def hardness(lines: Sequence[Line], before: Earlier) -> list[str]:
    """The diagnostics of the best epoch."""
    heading = "What the negatives are like"
    shares = ("negative > positive", "generated > positive", "generated > negative",
              "negative > hardest", "generated > hardest", "false negatives")  # fmt: skip
    columns = ["cell", *shares, "mean t*"]
    rows = []
    for line in lines:
        row = _best_row(line.first)
        told = [format(row[name], ".4f") if name in row else NONE for name in shares]
        counts = np.asarray(row.get("transition", []), dtype=float)
        mean = counts @ np.arange(len(counts)) / counts.sum() if counts.sum() else None
        rows.append([line.cell.label, *told, NONE if mean is None else f"{mean:.1f}"])
    return [
        f"## {heading}",
        "In the best epoch of the first seed, shares of a batch's rows.",
        markdown(columns, before.merged(heading, columns, rows)),
    ]


def drifts(lines: Sequence[Line], before: Earlier) -> list[str]:
    """Runs that another default was in force for."""
    found = []
    for line in lines:
        label = line.cell.label
        if label in before.kept:
            found += [before.told[label]] if label in before.told else []
        elif told := line.drift():
            found.append(f"* {label}: {'; '.join(told)}")
    return ["Run under defaults that have changed since:", "\n".join(found)] if found else []


def index(page_of_words: Path, folder: Path) -> None:
    """Put links to all pages between the markers of `quality.md`, where there is such a page."""
    if not page_of_words.exists():
        return
    text = page_of_words.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    pages = {name: folder / f"{name}.md" for name in TABLES}
    links = (
        "\n".join(
            f"* [{name}](quality/{name}.md): {told[1]}"
            for name, path in pages.items()
            if path.exists() and (told := RAN.search(path.read_text()))
        )
        or "Nothing has been run yet."
    )
    page_of_words.write_text(f"{text[:before]}\n\n{links}\n\n{text[after:]}")


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, the latter from two values on."""
    if not values:
        return NONE
    told = fraction(float(np.mean(values)))
    return f"{told} ± {fraction(float(np.std(values, ddof=1)))}" if len(values) > 1 else told


def fraction(value: float) -> str:
    """Four places, without the 0 before them."""
    return f"{value:.4f}".replace("0.", ".", 1)


def markdown(columns: Row, rows: Sequence[Row]) -> str:
    """A table."""
    return "\n".join(table(columns, rows))


def _told(one: Comparison) -> Row:
    low, high = one.interval
    return [
        str(one.seeds),
        f"{one.difference:+.4f}",
        f"{one.relative:+.1%}",
        f"{low:+.4f} to {high:+.4f}",
        f"{one.p_users:.4f}",
        NONE,  # Holm's, which needs the others
        NONE if one.p_seeds is None else f"{one.p_seeds:.4f}",
    ]


def _epochs(result: Result) -> str:
    return f"{result['best epoch']} of {result['epochs']}"


def _mean(values: Sequence[float], form: str) -> str:
    return format(float(np.mean(values)), form) if values else NONE


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> str:
    return f"{np.mean(mine) / np.mean(theirs):.2f}" if mine and theirs else NONE


def _best_row(result: Result | None) -> Result:
    rows = result["diagnostics"] if result else []
    return next((row for row in rows if result and row["epoch"] == result["best epoch"]), {})
