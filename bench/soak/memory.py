"""Many requests of the usual size: memory stays flat, and little above a bare `import torch`."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.serving.checkpoint import publish
from bench.serving.contenders import Case, everybody
from bench.serving.load import Request, connected
from bench.serving.processes import bare_torch, served
from bench.soak.findings import Findings, Size
from bench.soak.watch import Watch

ABOVE_BARE = 250.0  # MiB
ROWS, N, DIM = 2048, 8, 64
# Format, callers, requests in all.
LOADS = (
    ("octet-stream", 1, 10_000),
    ("octet-stream", 16, 10_000),
    ("safetensors", 1, 2_000),
    ("json", 1, 500),
    ("json", 16, 500),
)
# Measured and not judged: 16 bodies of 5 MB and answers of 12 MB in text, more or less of them at
# once, are the larger part of what is there.
UNBOUND = ("json", 16)


def run(size: Size) -> Findings:
    """Each load on a service of its own, so that its peak is its own."""
    findings, bare = Findings(), bare_torch()
    findings.figures["bare import torch MiB"] = bare
    with tempfile.TemporaryDirectory() as folder:
        model = publish(Path(folder), "film", DIM)
        case = Case(Path(folder), model, ROWS, N, DIM)
        for format_, callers, count in LOADS:
            name = f"{format_}, {callers} caller(s)"
            part = one(case, format_, callers, size.of(count))
            above = part.figures["memory peak MiB"] - bare
            part.figures["memory peak above bare MiB"] = above
            part.check(
                f"the peak is at most {ABOVE_BARE:g} MiB above a bare import torch",
                above <= ABOVE_BARE,
                f"{above:.0f} MiB",
            )
            if (format_, callers) == UNBOUND:
                part.checks.clear()
            findings.add(name, part)
    return findings


def one(case: Case, format_: str, callers: int, count: int) -> Findings:
    """So many requests over so many connections."""
    findings = Findings({"requests": count})
    (contender,) = (who for who in everybody(case) if who.name == f"turnpoint {format_}")
    request = Request.to(contender, case)

    def ask(times: int) -> None:
        with connected(running.port) as connection:
            for _ in range(times):
                connection.call(request)

    with served(case.registry) as running, ThreadPoolExecutor(callers) as pool:
        findings.figures["memory at start MiB"] = running.memory("VmRSS")
        with Watch(running) as watch:
            list(pool.map(ask, [-(-count // callers)] * callers))
        watch.report(findings)
        findings.figures["memory peak MiB"] = running.memory("VmHWM")
    return findings
