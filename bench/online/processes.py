"""Redis, `turnpoint serve` and `turnpoint follow` beside the process that measures."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.serving.processes import PATIENCE, UNCACHED, Running, served, started
from bench.soak.redis_server import RedisServer
from core.registry import Registry

MODEL = "online"
NOTICED = re.compile(r"the embedding space has changed at step (\d+)")


@dataclass(frozen=True)
class Loop:
    """What runs.

    Attributes:
        registry: where versions appear.
        url: of the service.
        follower: its process; `log` has a line a publication.
        metrics: address of the follower's page.
    """

    registry: Registry
    url: str
    follower: Running
    metrics: str

    def steps(self) -> int:
        """Of the follower so far."""
        page = httpx.get(self.metrics, timeout=30).text
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == "turnpoint_trainer_steps_total":
                    return int(sample.value)
        raise RuntimeError("the follower's page has no steps")

    def caught_up(self) -> int:
        """Its steps once it makes no more: everything that was sent is learnt."""
        steps = -1
        while (now := self.steps()) != steps:
            steps = now
            time.sleep(2)
        return steps

    def jumps(self) -> list[int]:
        """The steps at which it noticed another space."""
        return [int(step) for step in NOTICED.findall(self.follower.log())]


@contextlib.contextmanager
def online(folder: Path, dim: int, *options: object) -> Iterator[Loop]:
    """The three processes; the service has an untrained model when this is entered."""
    redis, registry = RedisServer(), folder / "registry"
    registry.mkdir(parents=True)
    redis.start()
    command = ("cli.main", "follow", "--registry", registry, "--model", MODEL)
    more = ("--redis", redis.url, "--dim", dim, "--threads", 1, "--metrics-port", 0, *options)
    settings = {"REDIS__URL": redis.url, "STREAM__SHARE": 1.0, "REGISTRY__POLL_SECONDS": 0.5}
    settings |= {name.removeprefix("TURNPOINT_"): value for name, value in UNCACHED.items()}
    try:
        with started((*command, *more), port=-1) as follower:
            wait_until("the untrained model", lambda: Registry(registry).live(MODEL))
            address = follower.log().partition("metrics on ")[2].split()[0]
            with served(registry, **settings) as service:
                ready = f"{service.url}/readyz"
                wait_until("the service", lambda: httpx.get(ready).status_code == 200)
                yield Loop(Registry(registry), service.url, follower, address)
    finally:
        redis.kill()


def wait_until(what: str, happened: Callable[[], object]) -> None:
    """Raises TimeoutError where it does not happen."""
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {PATIENCE} s")
        time.sleep(0.1)
