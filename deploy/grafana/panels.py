"""What a panel is: a title, a unit, what it tells, its queries and its form."""

from dataclasses import dataclass, field
from enum import Enum

RATE = "$__rate_interval"
HERE = 'instance=~"$instance"'
GOOD, BAD, IDLE = "green", "red", "text"  # Grafana's names of colours


class Form(Enum):
    """How a panel draws its queries."""

    LINES = "lines"
    STACK = "stack"
    HEATMAP = "heatmap"
    NUMBER = "number"
    STATES = "states"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: two or three words.
        about: what it tells, and when to worry.
        unit: in Grafana's words: s, reqps, percentunit, ...
        queries: legend -> PromQL; a legend may hold {{label}}.
        form: lines by default.
        width: of 24.
        states: value -> (word, colour), of the form `STATES`.
        colours: pattern of whole legends -> colour, where a series means good or bad.
        limit: from which on a value is too high, or too low where `limit_below`.
        limit_below: whether low values are the bad ones.
    """

    title: str
    about: str
    unit: str
    queries: dict[str, str]
    form: Form = Form.LINES
    width: int = 8
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    colours: dict[str, str] = field(default_factory=dict)
    limit: float | None = None
    limit_below: bool = False

    @property
    def height(self) -> int:
        """In Grafana's rows of 30 pixels."""
        return {Form.NUMBER: 4, Form.STATES: 5}.get(self.form, 8)


@dataclass(frozen=True)
class Board:
    """One dashboard.

    Attributes:
        title: also its name.
        uid: its address, and its file's name.
        about: who looks at it, and why.
        variables: name -> the query of its values; each may be used as `name=~"$name"`.
        rows: heading -> panels.
    """

    title: str
    uid: str
    about: str
    variables: dict[str, str]
    rows: dict[str, list[Panel]]


def quantiles(bucket: str, by: str, *shares: float) -> dict[str, str]:
    """Quantiles of a histogram, e.g. p99; `bucket` holds its selector, `by` further labels."""
    legend = "".join(f" {{{{{name}}}}}" for name in by.split(", ") if name)
    grouped = ", ".join(filter(None, ["le", by]))
    return {
        f"p{100 * share:g}{legend}": (
            f"histogram_quantile({share}, sum by ({grouped}) (rate({bucket}[{RATE}])))"
        )
        for share in shares
    }
