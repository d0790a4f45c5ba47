"""Twenty times what the service can do: answered or refused, never lost, and soon well again."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from turnpoint_client import AsyncClient

from bench.serving.checkpoint import pairs, publish
from bench.serving.load import Request, asking
from bench.serving.processes import Running, served
from bench.soak.findings import Findings, Size
from bench.soak.open_loop import Shot, fire
from bench.soak.prober import Prober
from bench.soak.watch import Watch
from cli.bench import drive

TIMES = 20
# Dear to compute and cheap to move, since both ends share the machine: FiLM, and all of many steps.
DENOISER, DIM, STEPS, ROWS = "film", 64, 1000, 64
PATH = "/negatives?n=1&transition=fixed&hardness=1"
BODY = pairs(ROWS, DIM).tobytes()
KIND = {"Content-Type": "application/octet-stream"}
DEADLINE_MS = 2000
HURRIED = KIND | {"X-Request-Timeout-Ms": str(DEADLINE_MS)}
HUNG = 15.0  # seconds without an answer
RECOVERY = 5.0  # seconds
SIZED = 0.5  # of the deadline: what a queue that is sized for it takes to drain
BURST = 3  # times what that queue holds


def run(size: Size) -> Findings:
    """With the default queue; with one sized for the deadline; and callers who wait as told."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), DENOISER, DIM, STEPS)
        with served(Path(folder), CACHE__MODE="off") as running:
            capacity = measured_capacity(running)
            findings.figures["capacity calls/s"] = capacity
            findings.add("default queue", overload(running, capacity, size))
        holds = max(4, round(capacity * SIZED * DEADLINE_MS / 1000))
        settings = {"SERVER__MAX_ROWS": ROWS, "BATCHING__QUEUE_ROWS": holds * ROWS}
        with served(Path(folder), CACHE__MODE="off", **settings) as running:
            measured_capacity(running)  # now it knows how long it takes
            findings.add("sized queue", overload(running, capacity, size))
            findings.add("burst", burst(running, BURST * holds))
    return findings


def measured_capacity(running: Running) -> float:
    """Calls a second of four callers who ask again as soon as they are answered."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
        return other.submit(_capacity, running.port).result()


def _capacity(port: int, seconds: float = 3.0) -> float:
    driven = drive(asking(port, Request.post(PATH, BODY, KIND)), 4, seconds, {})
    return len(driven.latencies) / driven.elapsed


def overload(running: Running, capacity: float, size: Size) -> Findings:
    """An open loop at `TIMES` the capacity; beside it one caller whom it must not harm for long."""
    findings, request = Findings(), Request.post(PATH, BODY, HURRIED)
    dues = np.arange(0, size.seconds, 1 / (TIMES * capacity)).tolist()
    with Prober(running.port, request) as prober:
        normal = prober.normal()
        with Watch(running) as watch:
            shots, ended = fire(running.port, request, dues, HUNG)
        recovered = prober.recovered(normal) - ended
    findings.figures["normal p50 ms"] = 1e3 * normal
    judge(findings, shots, recovered)
    watch.report(findings, warm_up=0.25)
    return findings


def judge(findings: Findings, shots: Sequence[Shot], recovered: float) -> None:
    """That each request was answered or refused, in time."""
    fates = Counter(f"{shot.status} {shot.code}".strip() for shot in shots)
    lost = [shot.trouble for shot in shots if not shot.status]
    odd = [name for name in fates if name[:3] not in {"200", "429", "504", "0"}]
    answered = [1e3 * shot.seconds for shot in shots if shot.status == 200]
    refused = [1e3 * shot.seconds for shot in shots if shot.status == 429] or [0.0]
    p50, p99 = np.percentile(answered, [50, 99]) if answered else (np.inf, np.inf)
    in_time = sum(ms < DEADLINE_MS for ms in answered)
    untold = sum(shot.status == 429 and shot.retry_after is None for shot in shots)
    findings.figures |= {f"answers {fate}": count for fate, count in sorted(fates.items())}
    findings.figures |= {
        "accepted p50 ms": float(p50),
        "accepted p99 ms": float(p99),
        "accepted and answered in time %": 100 * in_time / max(1, len(answered)),
        "refused (429) p99 ms": float(np.percentile(refused, 99)),
        "left late p99 ms": float(1e3 * np.percentile([s.lag for s in shots] or [0.0], 99)),
        "recovery s": recovered,
    }
    findings.check(
        "every request is answered or refused, none hangs or breaks",
        bool(shots) and not lost,
        f"{len(lost)} of {len(shots)}" + (f", first: {lost[0]}" if lost else ""),
    )
    findings.check("nothing but 200, 429 and 504", not odd, ", ".join(fates))
    findings.check("some are answered", bool(answered), f"{len(answered)}")
    findings.check("every 429 has a Retry-After", not untold, f"{untold} without")
    findings.check(
        "p99 of what was accepted is below the deadline",
        p99 < DEADLINE_MS,
        f"{p99:.0f} ms of {DEADLINE_MS}",
        timing=True,
    )
    findings.check(
        f"latency is normal {RECOVERY:g} s after the last request left",
        recovered <= RECOVERY,
        f"{recovered:.1f} s",
        timing=True,
    )


def burst(running: Running, callers: int) -> Findings:
    """More than the queue holds at one moment, by callers who obey Retry-After."""
    findings = Findings()
    tries, failures = asyncio.run(_burst(running.url, callers))
    findings.figures |= {
        "callers": callers,
        "mean tries": float(np.mean(tries)),
        "most tries": max(tries),
    }
    findings.check(
        "whoever waits as Retry-After says succeeds, with the client's default retries",
        not failures,
        f"{len(failures)} of {callers} gave up" + (f", first: {failures[0]}" if failures else ""),
        timing=True,
    )
    findings.check("it was more than the queue holds", max(tries) > 1, f"{max(tries)} tries")
    return findings


async def _burst(url: str, callers: int) -> tuple[list[int], list[str]]:
    """Tries of every caller, and what those who gave up were told."""
    users, positives = pairs(ROWS, DIM)

    async def one() -> tuple[int, str]:
        async with AsyncClient(url, timeout=120) as client:
            told = ""
            try:
                await client.negatives(users, positives, transition="fixed", hardness=1)
            except Exception as error:  # whatever it is, it is a caller who gave up
                told = f"{type(error).__name__}: {error}"
            return client.stats.requests, told

    fates = await asyncio.gather(*(one() for _ in range(callers)))
    return [tries for tries, _ in fates], [told for _, told in fates if told]
