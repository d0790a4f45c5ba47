"""`turnpoint follow` as a process of a test's own."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import ENVIRONMENT, ROOT
from tests.trainer.following.world import MODEL

PATIENCE = 120  # seconds for anything to happen on a busy machine
SMALL = (
    *("--batch-size", "256", "--buffer", "4096", "--half-life", "2048", "--held-out", "512"),
    *("--publish-every", "50", "--num-steps", "10", "--learning-rate", "3e-3"),
    *("--save-every", "0.3", "--lease", "3", "--threads", "1"),
)


class Follower:
    """A running one; `log` is what it has told, `metrics` its page."""

    def __init__(self, folder: Path, name: str, *arguments: object) -> None:
        self.told = folder / f"{name}.log"
        command = [sys.executable, "-m", "cli.main", "follow", "--registry", folder / "registry"]
        command += ["--model", MODEL, "--metrics-port", "0", *SMALL, *arguments]
        with self.told.open("w") as log:
            self.process = subprocess.Popen(
                [*map(str, command)], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log
            )
        self.wait_for(lambda: "metrics on" in self.log)
        self.address = self.log.partition("metrics on ")[2].split()[0]

    @property
    def log(self) -> str:
        return self.told.read_text()

    def metrics(self) -> dict[str, float]:
        """name and label values -> value, without the prefix."""
        page = httpx.get(self.address, timeout=10).text
        return {
            sample.name.removeprefix("turnpoint_trainer_") + "".join(sample.labels.values()): (
                sample.value
            )
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def wait_for(self, happened: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def following(folder: Path, name: str, *arguments: object) -> Iterator[Follower]:
    """A follower that is stopped in the end, with exit code 0 unless it was killed."""
    one = Follower(folder, name, *arguments)
    try:
        yield one
        if one.process.poll() is None:
            one.process.terminate()
            assert one.process.wait(30) == 0, one.log
    finally:
        one.process.kill()
        one.process.wait(10)
