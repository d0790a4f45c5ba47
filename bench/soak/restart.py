"""`kill -9` under load, and a supervisor that starts the service again: callers lose nothing."""

import itertools
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

from turnpoint_client import Retries

from bench.serving.processes import PATIENCE, free_port, served
from bench.soak.callers import PATIENT, Callers
from bench.soak.findings import Findings, Size
from bench.soak.versions import Publisher

KILLS = 5
DOWN = (1.0, 1.5, 2.0)  # seconds until the supervisor starts it again, in turn


def run(size: Size, retries: Retries = PATIENT) -> Findings:
    """So many kills at even distances; a caller with the client's own defaults looks on."""
    findings, kills, outages = Findings(), size.of(KILLS), []
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher(Path(folder))
        publisher.good()
        with (
            Supervised(Path(folder)) as service,
            Callers(service.url, publisher.truth, retries=retries) as callers,
            Callers(service.url, publisher.truth, count=1, retries=Retries()) as hasty,
        ):
            for _ in range(kills):
                time.sleep(size.seconds / (kills + 1))
                outages.append(service.kill())
            time.sleep(size.seconds / (kills + 1))
    callers.report(findings)
    lost = sum(bool(one.wrong) for one in hasty.outcomes)
    findings.figures |= {
        "kills": kills,
        "longest outage s": max(outages),
        "shortest outage s": min(outages),
        "lost with the client's default retries": lost,
    }
    longest = findings.figures["well-behaved longest s"]
    findings.check(
        "the outages were met by calls under way",
        longest > min(outages) / 2,
        f"a call of {longest:.1f} s",
    )
    return findings


class Supervised:
    """A service that is started again whenever it ends, on one port, while the block runs."""

    def __init__(self, registry: Path) -> None:
        self._registry, self._port = registry, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._pid = 0
        self._up = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        os.kill(self._pid, signal.SIGTERM)
        self._thread.join()

    def kill(self) -> float:
        """`kill -9`; seconds until it listens again."""
        begin = time.monotonic()
        self._up.clear()
        os.kill(self._pid, signal.SIGKILL)
        self._wait()
        return time.monotonic() - begin

    def _wait(self) -> None:
        if not self._up.wait(PATIENCE):
            raise TimeoutError(f"the service is not back after {PATIENCE} s")

    def _live(self) -> None:
        """One life after the other."""
        for down in itertools.cycle(DOWN):
            with served(self._registry, self._port) as running:
                self._pid = running.process.pid
                self._up.set()
                running.process.wait()
            if self._stopping.wait(down):
                return
