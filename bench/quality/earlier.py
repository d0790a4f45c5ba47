"""A page as it stands, of runs whose results may be elsewhere.

Results stay in the folder where they were made, pages are part of the repository. A page that is
written anew from another folder keeps its rows of what that folder does not know.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from bench.quality.summary import Line
from core.errors import ConfigError

NONE = "–"  # stands for a figure that is not known

Row = list[str]


@dataclass(frozen=True)
class Earlier:
    """A page's tables.

    Attributes:
        columns: of the table under each heading.
        rows: of the table under each heading, by what they are about.
        told: the page's list, by cell.
        kept: the labels of cells of which the page knows more seeds than the results do.
    """

    columns: Mapping[str, Row] = field(default_factory=dict)
    rows: Mapping[str, Mapping[tuple[str, ...], Row]] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    @cached_property
    def splits(self) -> list[str]:
        """The test splits that the page has results of."""
        return [heading.lower() for heading in self.columns if heading.startswith("Test")]

    def merged(self, heading: str, columns: Row, rows: Sequence[Row]) -> list[Row]:
        """The rows of a table, those about kept cells as they stand on the page.

        Raises:
            ConfigError: the page's table has other columns, so that they cannot be kept.
        """
        found = []
        for row in rows:
            key = about(columns, row)
            there = self.rows.get(heading, {}).get(key)
            if self.kept.isdisjoint(key) or there is None or there[len(key)] == NONE:
                found.append(row)
                continue
            if self.columns[heading] != columns:
                raise ConfigError(
                    f"the page's table '{heading}' has the columns {self.columns[heading]}, now "
                    f"they are {columns}: its row of {' and '.join(key)} would be lost; give the "
                    "page's table those columns, or delete the row and run the cell again"
                )
            found.append(there)
        return found


def read(path: Path, lines: Sequence[Line]) -> Earlier:
    """The page of a table, and which of its cells are to be kept; no page has nothing."""
    text = path.read_text().splitlines() if path.exists() else []
    columns: dict[str, Row] = {}
    rows: dict[str, dict[tuple[str, ...], Row]] = {}
    told: dict[str, str] = {}
    for number, line in enumerate(text):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("* "):
            told[line[2:].split(": ")[0]] = line
        elif line.startswith("|---"):
            columns[heading] = head = cells(text[number - 1])
            below = takewhile(lambda one: one.startswith("|"), text[number + 1 :])
            rows[heading] = {about(head, row): row for row in map(cells, below)}
    there = {key[0]: row[1] for key, row in rows.get("Test", {}).items()}
    seeds = {label: int(count) for label, count in there.items() if count != NONE}
    kept = {one.cell.label for one in lines if seeds.get(one.cell.label, 0) > len(one.jobs)}
    return Earlier(columns, rows, told, frozenset(kept))


def cells(line: str) -> Row:
    """Of a row of Markdown."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def about(columns: Row, row: Row) -> tuple[str, ...]:
    """A cell's label, in a table of comparisons the other's, too."""
    return tuple(row[: 2 if columns[1] == "against" else 1])
