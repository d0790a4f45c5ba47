"""Memory over time, and the metrics page."""

import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from bench.serving.processes import Running
from bench.soak.findings import Findings

GROWTH = 5.0  # per cent that memory may grow after the warm-up
EVERY = 0.2  # seconds between two looks


@dataclass(frozen=True)
class Growth:
    """Of a series of MiB.

    Attributes:
        warm: median of a tenth of the run after the warm-up.
        end: median of the last tenth.
        slope: MiB a minute, by least squares over all after the warm-up.
        peak: of all.
    """

    warm: float
    end: float
    slope: float
    peak: float

    @property
    def percent(self) -> float:
        """From warm to end."""
        return 100 * (self.end / self.warm - 1)


def growth(seconds: Sequence[float], mib: Sequence[float], warm_up: float = 0.1) -> Growth:
    """How a series grew after its first part; `warm_up` is a fraction of its length."""
    at, values = np.asarray(seconds), np.asarray(mib)
    begin, tenth = int(warm_up * len(values)), max(1, len(values) // 10)
    slope = np.polyfit(at[begin:], values[begin:], 1)[0] if len(values) - begin > 2 else 0.0
    return Growth(
        warm=float(np.median(values[begin : begin + tenth])),
        end=float(np.median(values[-tenth:])),
        slope=60 * float(slope),
        peak=float(values.max()),
    )


class Watch:
    """Resident memory of a process tree, looked at in a thread while the block runs."""

    def __init__(self, running: Running, now: Callable[[Running], float] | None = None) -> None:
        self._look = now or (lambda one: one.memory("VmRSS"))
        self._running = running
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop)
        self.seconds: list[float] = []
        self.mib: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _loop(self) -> None:
        begin = time.monotonic()
        while not self._stop.is_set():
            self.seconds.append(time.monotonic() - begin)
            self.mib.append(self._look(self._running))
            self._stop.wait(EVERY)

    def report(self, findings: Findings, warm_up: float = 0.1) -> Growth:
        """Into the findings: that memory is flat after the warm-up, and the series."""
        found = growth(self.seconds, self.mib, warm_up)
        findings.figures |= {
            "memory warm MiB": found.warm,
            "memory end MiB": found.end,
            "memory peak MiB": found.peak,
            "memory growth %": found.percent,
            "memory slope MiB/min": found.slope,
        }
        findings.series["memory"] = [
            list(pair) for pair in zip(self.seconds, self.mib, strict=True)
        ]
        findings.check(
            f"memory grows by at most {GROWTH:g} % after the warm-up",
            found.percent <= GROWTH,
            f"{found.percent:+.1f} % ({found.warm:.0f} to {found.end:.0f} MiB)",
        )
        return found


Series = tuple[str, tuple[tuple[str, str], ...]]


def metrics(url: str) -> dict[Series, float]:
    """Every series of the metrics page: (name, sorted labels) -> value."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as page:
        families = text_string_to_metric_families(page.read().decode())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


def total(page: dict[Series, float], name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    wanted = labels.items()
    return sum(v for (key, have), v in page.items() if key == name and wanted <= dict(have).items())
