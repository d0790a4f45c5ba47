"""A thousand hot swaps under light load: memory must not grow."""

import json
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.serving.processes import Running, served
from bench.soak.callers import Callers
from bench.soak.findings import Findings, Size
from bench.soak.versions import MODEL, Publisher
from bench.soak.watch import Watch, metrics, total

SWAPS = 1000
PATIENCE = 10.0  # seconds until a version is live


def run(size: Size) -> Findings:
    """Publish, wait until it is live, publish the next."""
    findings, count = Findings(), size.of(SWAPS)
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher(Path(folder), "film")
        publisher.good()
        with served(Path(folder), REGISTRY__POLL_SECONDS=0.02) as running:
            begin = time.monotonic()
            with (
                Watch(running) as watch,
                Callers(running.url, publisher.truth, count=1) as callers,
            ):
                late = sum(not becomes_live(running, publisher.good()) for _ in range(count))
            seconds = time.monotonic() - begin
            page = metrics(running.url)
    swaps = total(page, "turnpoint_swaps_total", model=MODEL, result="ok") - 1
    findings.figures |= {"swaps": swaps, "swaps/s": swaps / seconds}
    findings.check("every version becomes live", swaps == count and not late, f"{swaps:.0f}")
    findings.check(
        "only the live version has a series",
        sum(name == "turnpoint_model_info" for name, _ in page) == 1,
        "turnpoint_model_info",
    )
    callers.report(findings)
    watch.report(findings)
    return findings


def becomes_live(running: Running, version: str) -> bool:
    """Whether `/readyz` names it within `PATIENCE`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{running.url}/readyz", timeout=30) as answer:
            if json.load(answer)["models"][MODEL] == version:
                return True
        time.sleep(0.01)
    return False
