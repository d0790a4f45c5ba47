"""What a scenario found: figures, and checks that hold or do not."""

from dataclasses import dataclass, field, replace
from typing import Any

from bench.serving.report import table


@dataclass(frozen=True)
class Size:
    """How much of a scenario is done.

    Attributes:
        seconds: of load. Counts (hang-ups, swaps, requests) are in proportion, full at 60.
        redis: whether the scenario has a real Redis, to be killed under load.
    """

    seconds: float = 60.0
    redis: bool = False

    def of(self, count: int) -> int:
        """As many of so many as the seconds allow."""
        return max(1, round(count * min(1.0, self.seconds / 60)))


@dataclass(frozen=True)
class Check:
    """One thing that must hold.

    Attributes:
        what: must hold.
        holds: whether it did.
        found: what was seen.
        timing: it also depends on how fast and how quiet the machine is.
    """

    what: str
    holds: bool
    found: str
    timing: bool = False


@dataclass
class Findings:
    """Of one run of one scenario.

    Attributes:
        series: what is too long for a table, for the JSON.
    """

    figures: dict[str, float] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    series: dict[str, list[Any]] = field(default_factory=dict)

    def check(self, what: str, holds: bool, found: object, *, timing: bool = False) -> None:
        """Note whether something holds."""
        self.checks.append(Check(what, bool(holds), str(found), timing))

    def add(self, part: str, found: "Findings") -> None:
        """Take over what a part of the scenario found, under its name."""
        self.figures |= {f"{part}: {name}": value for name, value in found.figures.items()}
        self.checks += [replace(one, what=f"{part}: {one.what}") for one in found.checks]
        self.series |= {f"{part}: {name}": values for name, values in found.series.items()}

    def failed(self, *, timing: bool = True) -> list[Check]:
        """What did not hold, with or without what depends on the machine's speed."""
        return [one for one in self.checks if not one.holds and (timing or not one.timing)]

    def markdown(self, name: str) -> str:
        """Two tables."""
        checks = (
            [one.what, one.found.replace("|", "/"), "holds" if one.holds else "**DOES NOT HOLD**"]
            for one in self.checks
        )
        figures = ([key, f"{value:,.4g}"] for key, value in self.figures.items())
        return "\n".join(
            [
                f"## {name}",
                "",
                *table(["what must hold", "found", ""], checks),
                "",
                *table(["figure", "value"], figures),
            ]
        )
