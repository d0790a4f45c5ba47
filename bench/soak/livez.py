"""`/livez` while the model thread is saturated: whoever asks must not wait for the model."""

import tempfile
from pathlib import Path

from bench.serving.checkpoint import publish
from bench.serving.contenders import Case
from bench.serving.processes import served
from bench.serving.sweep import alive
from bench.soak.findings import Findings, Size

POLLS = 5000
P99 = 10.0  # ms


def run(size: Size) -> Findings:
    """Callers in another process keep the queue full; polls go on a connection of their own."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        model = publish(Path(folder), "film")
        case = Case(Path(folder), model, rows=2048, n=8, dim=64)
        with served(case.registry, CACHE__MODE="off") as running:
            found = alive(running, case, size.seconds)
    for state, figures in found.items():
        wanted = ("calls", "p50 ms", "p99 ms", "max ms")
        findings.figures |= {f"{state}: {k}": v for k, v in figures.items() if k in wanted}
    polls, p99 = (found["saturated"][name] for name in ("calls", "p99 ms"))
    findings.check("there were enough polls", polls >= size.of(POLLS), f"{polls:.0f}", timing=True)
    findings.check(
        f"/livez answers within {P99:g} ms in 99 of 100 cases",
        p99 < P99,
        f"{p99:.2f} ms",
        timing=True,
    )
    return findings
