"""Path scans, made-up names and floods of random headers: no new metric series, no growth."""

import random
import string
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.serving.checkpoint import pairs, publish
from bench.serving.load import Connection, Request, connected
from bench.serving.processes import served
from bench.soak.findings import Findings, Size
from bench.soak.watch import Series, Watch, metrics

REQUESTS = 30_000
DIM, ROWS = 16, 4
LETTERS = string.ascii_letters + string.digits
SCANNED = ("wp-login.php", ".env", ".git/config", "admin", "actuator/health", "models", "negatives")
NAMES = ("X-Forwarded-For", "X-Request-ID", "User-Agent", "Authorization", "Origin", "Cookie")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
SHOWN = 5  # new series in the message


def run(size: Size) -> Findings:
    """Each kind once, so that its series is there; then many, each different from all before."""
    findings = Findings()
    kinds = Stranger(0).kinds
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), "moment", DIM)
        with served(Path(folder)) as running:
            with connected(running.port) as connection:
                meet(connection, Stranger(1), 20 * len(kinds))
            metrics(running.url)  # it has series of its own
            before = metrics(running.url)
            with Watch(running) as watch, connected(running.port) as connection:
                meet(connection, Stranger(2), size.of(REQUESTS))
            after = metrics(running.url)
    judge(findings, set(before), set(after))
    findings.figures |= {"requests": size.of(REQUESTS), "series": len(after)}
    watch.report(findings)
    return findings


def judge(findings: Findings, before: set[Series], after: set[Series]) -> None:
    """That nobody made a series."""
    new = sorted(after - before)
    told = "; ".join(f"{name}{dict(labels)}" for name, labels in new[:SHOWN])
    findings.check("strangers create no metric series", not new, f"{len(new)} new {told}")


def meet(connection: Connection, stranger: "Stranger", count: int) -> None:
    """The kinds in turn, over one connection."""
    for index in range(count):
        connection.exchange(stranger.kinds[index % len(stranger.kinds)]())


class Stranger:
    """Makes requests, no two alike."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.body = pairs(ROWS, DIM).tobytes()
        self.kinds: list[Callable[[], Request]] = [
            self.path_scan,
            self.scanned_method,
            self.made_up_model,
            self.model_parameter,
            self.header_flood,
        ]

    def path_scan(self) -> Request:
        """A path that many ask for, or one that nobody has."""
        return Request.get(f"/{self.random.choice(SCANNED)}/{self._word()}")

    def scanned_method(self) -> Request:
        """Any method, a path and a query that nobody has."""
        method = self.random.choice(METHODS)
        request = Request.get(f"/{self._word()}?{self._word()}={self._word()}")
        return Request(method.encode() + request.head.removeprefix(b"GET"))

    def made_up_model(self) -> Request:
        """A model that is not there."""
        return Request.get(f"/models/{self._word()}")

    def model_parameter(self) -> Request:
        """The same in a request for negatives."""
        query = f"model={self._word()}&version={self._word()}"
        kind = {"Content-Type": "application/octet-stream"}
        return Request.post(f"/negatives?{query}", self.body, kind)

    def header_flood(self) -> Request:
        """An honest request under forty headers."""
        headers = {f"X-{self._word()}": self._word() for _ in range(40)}
        headers |= {name: self._word() for name in NAMES}
        kind = {"Content-Type": "application/octet-stream"}
        return Request.post("/negatives?n=1", self.body, headers | kind)

    def _word(self) -> str:
        return "".join(self.random.choices(LETTERS, k=self.random.randrange(4, 24)))
