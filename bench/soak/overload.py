"""Twenty times what the service can do: answered or refused, never lost, and soon well again."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from turnpoint_client import AsyncClient

from bench.serving.checkpoint import pairs, publish
from bench.serving.load import Request, asking, connected
from bench.serving.processes import served
from bench.soak.findings import Findings, Size
from bench.soak.open_loop import Shot, fire
from bench.soak.watch import Watch
from cli.bench import drive

TIMES = 20
# Dear to compute and cheap to move: both ends share the machine. FiLM, and all of T steps.
DENOISER, DIM, STEPS, ROWS = "film", 64, 200, 512
PATH = "/negatives?n=1&transition=fixed&hardness=1"
KIND = {"Content-Type": "application/octet-stream"}
DEADLINE_MS = 2000
HUNG = 15.0  # seconds without an answer
RECOVERY = 5.0  # seconds
NORMAL = 2.0  # times the median latency without load
SMALL_QUEUE = {"SERVER__MAX_ROWS": ROWS, "BATCHING__QUEUE_ROWS": 32 * ROWS}
BURST = 96  # callers at once, three times what that queue holds


def run(size: Size) -> Findings:
    """The overload with the default settings, then a burst of callers who wait as they are told."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), DENOISER, DIM, STEPS)
        overload(findings, Path(folder), size)
        burst(findings, Path(folder))
    return findings


def overload(findings: Findings, registry: Path, size: Size) -> None:
    """An open loop at `TIMES` the measured capacity."""
    body = pairs(ROWS, DIM).tobytes()
    hurried = KIND | {"X-Request-Timeout-Ms": str(DEADLINE_MS)}
    with served(registry) as running:
        request = Request.post(PATH, body, KIND)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:
            capacity = other.submit(_capacity, running.port, request).result()
        normal = float(np.median(_latencies(running.port, request, 30)))
        with Watch(running) as watch:
            dues = np.arange(0, size.seconds, 1 / (TIMES * capacity)).tolist()
            shots = fire(running.port, Request.post(PATH, body, hurried), dues, HUNG)
        recovered = recovery(running.port, request, normal)
    judge(findings, shots, recovered)
    findings.figures |= {"capacity calls/s": capacity, "normal p50 ms": 1e3 * normal}
    watch.report(findings, warm_up=0.25)


def _capacity(port: int, request: Request, seconds: float = 3.0) -> float:
    """Calls a second of four callers who ask again as soon as they are answered."""
    driven = drive(asking(port, request), 4, seconds, {})
    return len(driven.latencies) / driven.elapsed


def _latencies(port: int, request: Request, count: int) -> list[float]:
    """Seconds of so many calls, one after the other."""
    found = []
    with connected(port) as connection:
        for _ in range(count):
            begin = time.perf_counter()
            connection.exchange(request)
            found.append(time.perf_counter() - begin)
    return found


def recovery(port: int, request: Request, normal: float, patience: float = 30.0) -> float:
    """Seconds until the median of five calls is near to normal; infinite if it takes too long."""
    begin = time.monotonic()
    while (took := time.monotonic() - begin) < patience:
        if np.median(_latencies(port, request, 5)) <= NORMAL * normal:
            return took
    return float("inf")


def judge(findings: Findings, shots: Sequence[Shot], recovered: float) -> None:
    """That each request was answered or refused, in time."""
    fates = Counter(f"{shot.status} {shot.code}".strip() for shot in shots)
    lost = [shot.trouble for shot in shots if not shot.status]
    odd = [name for name in fates if name[:3] not in {"200", "429", "504", "0"}]
    findings.figures |= {f"answers {fate}": count for fate, count in sorted(fates.items())}
    findings.check(
        "every request is answered or refused, none hangs or breaks",
        bool(shots) and not lost,
        f"{len(lost)} of {len(shots)}" + (f", first: {lost[0]}" if lost else ""),
    )
    findings.check("nothing but 200, 429 and 504", not odd, ", ".join(fates))
    answered = [1e3 * shot.seconds for shot in shots if shot.status == 200]
    findings.check("some are answered", bool(answered), f"{len(answered)}")
    p50, p99 = np.percentile(answered, [50, 99]) if answered else (np.inf, np.inf)
    refused = [1e3 * shot.seconds for shot in shots if shot.status == 429] or [0.0]
    findings.figures |= {
        "accepted p50 ms": float(p50),
        "accepted p99 ms": float(p99),
        "refused (429) p99 ms": float(np.percentile(refused, 99)),
        "left late p99 ms": float(1e3 * np.percentile([shot.lag for shot in shots] or [0.0], 99)),
        "recovery s": recovered,
    }
    findings.check(
        "p99 of what was accepted is below the deadline",
        p99 < DEADLINE_MS,
        f"{p99:.0f} ms of {DEADLINE_MS}",
        timing=True,
    )
    findings.check(
        f"latency is normal {RECOVERY:g} s afterwards",
        recovered <= RECOVERY,
        f"{recovered:.1f} s",
        timing=True,
    )
    untold = sum(shot.status == 429 and shot.retry_after is None for shot in shots)
    findings.check("every 429 has a Retry-After", not untold, f"{untold} without")


def burst(findings: Findings, registry: Path) -> None:
    """Three times what a small queue holds at one moment, by callers who obey Retry-After."""
    with served(registry, **SMALL_QUEUE) as running:
        _latencies(running.port, Request.post(PATH, pairs(ROWS, DIM).tobytes(), KIND), 5)
        tries, failures = asyncio.run(_burst(running.url))
    findings.figures |= {
        "burst: callers": BURST,
        "burst: mean tries": float(np.mean(tries)),
        "burst: most tries": max(tries),
    }
    findings.check(
        "whoever waits as Retry-After says succeeds, with the client's default retries",
        not failures,
        f"{len(failures)} of {BURST} gave up" + (f", first: {failures[0]}" if failures else ""),
    )
    findings.check("the burst was more than the queue holds", max(tries) > 1, f"{max(tries)} tries")


async def _burst(url: str) -> tuple[list[int], list[str]]:
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

    fates = await asyncio.gather(*(one() for _ in range(BURST)))
    return [tries for tries, _ in fates], [told for _, told in fates if told]
