"""Malformed requests by the hundred thousand: refused by name, never a crash, never a 5xx."""

import socket
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.serving.checkpoint import publish
from bench.serving.load import END, Answer, Connection
from bench.serving.processes import Running, served
from bench.soak.conformance import conformance
from bench.soak.findings import Findings, Size
from bench.soak.garbage import Garbage
from bench.soak.refusals import judge
from bench.soak.watch import Watch, metrics, total

REQUESTS = 200_000
EXAMPLES = 2_000  # of schemathesis, for each operation and mode
DIM, CALLERS = 16, 3
NO_HTTP = 0.05  # of all
PARSERS_OWN = b"Invalid HTTP request received."  # what uvicorn says of it, in plain text


def run(size: Size) -> Findings:
    """The grammar of nonsense for volume; schemathesis, which reads the document."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), "moment", DIM)
        with served(Path(folder)) as running:
            with Watch(running) as watch:
                flood(findings, running, size.of(REQUESTS))
            watch.report(findings)
            asked, broken = conformance(running.url, size.of(EXAMPLES))
            findings.figures["schemathesis cases"] = asked
            findings.check(
                "every answer is as the OpenAPI document says", not broken, _first(broken)
            )
            report(findings, running)
    return findings


def flood(findings: Findings, running: Running, count: int) -> None:
    """So many requests, from a few callers."""
    with ThreadPoolExecutor(CALLERS) as pool:
        throwers = [Thrower(running.port, seed) for seed in range(CALLERS)]
        list(pool.map(lambda one: one.throw(-(-count // CALLERS)), throwers))
    fates = sum((one.fates for one in throwers), Counter[str]())
    wrong = [line for one in throwers for line in one.wrong]
    findings.figures |= {f"answers {fate}": times for fate, times in sorted(fates.items())}
    findings.figures["malformed requests"] = fates.total()
    findings.check(
        "every refusal is a problem+json with a known code, and none a 5xx",
        fates.total() >= count and not wrong,
        f"{len(wrong)} of {fates.total()} otherwise{': ' + wrong[0] if wrong else ''}",
    )


class Thrower:
    """One caller, who throws and judges.

    Attributes:
        fates: what came back, by status.
        wrong: what should not have come back.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.garbage = Garbage(seed, DIM)
        self.fates: Counter[str] = Counter()
        self.wrong: list[str] = []

    def throw(self, count: int) -> None:
        """So many, over connections that are kept for as long as the service keeps them."""
        connection = None
        for _ in range(count):
            if self.garbage.random.random() < NO_HTTP:
                self._no_http()
                continue
            kind, request = self.garbage.next()
            connection = connection or Connection(self.port)
            try:
                answer = connection.exchange(request)
            except (OSError, RuntimeError) as error:
                self.wrong.append(f"{kind}: {error!r} to {request.head[:200]!r}")
                connection.socket.close()
                connection = None
                continue
            self.fates[str(answer.status)] += 1
            if why := judge(answer.status, answer.header("content-type"), bytes(answer.body)):
                self.wrong.append(f"{kind}: {why} to {request.head[:200]!r}")
            if answer.header("connection") == "close":
                connection.socket.close()
                connection = None
        if connection is not None:
            connection.socket.close()

    def _no_http(self) -> None:
        """Refused by the parser, or hung up on; not understood."""
        sent = self.garbage.no_http()
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as caller:
            try:
                caller.sendall(sent)
                caller.shutdown(socket.SHUT_WR)
                told = b"".join(iter(lambda: caller.recv(1 << 16), b""))
            except OSError:  # it hung up first
                told = b""
        head, _, body = told.partition(END)
        self.fates["to what is no HTTP: " + (head[9:12].decode() or "hung up")] += 1
        if not head or (head.startswith(b"HTTP/1.1 400") and body == PARSERS_OWN):
            return
        answer = Answer(head, memoryview(body))
        if why := judge(answer.status, answer.header("content-type"), body):
            self.wrong.append(f"no HTTP: {why} to {sent[:200]!r}")


def report(findings: Findings, running: Running) -> None:
    """Into the findings: what the service itself tells."""
    page = metrics(running.url)
    failed = {
        code: count
        for code in ("500", "503")
        if (count := total(page, "turnpoint_requests_total", code=code))
    }
    findings.check("the service counts no 500 or 503", not failed, failed or "none")
    findings.check("the service lives", running.process.poll() is None, running.process.poll())
    traces = running.log().count("Traceback")
    findings.check("the log has no trace", not traces, traces)


def _first(broken: Counter[str]) -> str:
    return f"{broken.total()} times, most often: {broken.most_common(1)[0][0]}" if broken else "yes"
