"""A greedy caller and a modest one, each with a key: the first must not harm the second."""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from bench.serving.checkpoint import pairs, publish
from bench.serving.load import Request, connected
from bench.serving.processes import Running, served
from bench.soak.findings import Findings, Size

KEYS = {who: f"{who}-{'k' * 24}" for who in ("greedy", "modest")}
DIM, MANY, FEW = 64, 2048, 8  # rows of a request
CONNECTIONS = 16  # of the greedy one
PAUSE = 0.05  # seconds between the modest one's calls
RATE = 20_000  # rows a second of each key; the modest one stays far below
BURST = 65_536  # rows at once: the largest request that is allowed

Calls = list[tuple[float, int, float]]  # seconds, status, Retry-After


def run(size: Size) -> Findings:
    """First with a fair queue alone, then with a limit for each key."""
    findings, limited = Findings(), {"AUTH__RATE_ROWS_PER_SECOND": RATE}
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder), "film", DIM)
        for name, settings in (("fair share", {}), ("rate limit", limited)):
            keys = ",".join(f"{who}:{key}" for who, key in KEYS.items())
            with served(Path(folder), AUTH__KEYS=keys, **settings) as running:
                greedy, modest = both(running, size.seconds)
            part = Findings()
            (judge_limit if settings else judge_share)(part, greedy, modest, size.seconds)
            findings.add(name, part)
    return findings


def both(running: Running, seconds: float) -> tuple[Calls, Calls]:
    """Calls of the greedy one, over many connections without a pause, and of the modest one."""
    with ExitStack() as stack:
        modest = stack.enter_context(asking(running.port, "modest", FEW, PAUSE))
        greedy = [
            stack.enter_context(asking(running.port, "greedy", MANY, 0.0))
            for _ in range(CONNECTIONS)
        ]
        time.sleep(seconds)
    return [call for calls in greedy for call in calls], modest


@contextmanager
def asking(port: int, who: str, rows: int, pause: float) -> Iterator[Calls]:
    """Somebody who asks again and again while the block runs, refused or not."""
    head = {"Content-Type": "application/octet-stream", "Authorization": f"Bearer {KEYS[who]}"}
    request = Request.post("/negatives?n=8", pairs(rows, DIM).tobytes(), head)
    calls: Calls = []
    stop = threading.Event()

    def loop() -> None:
        with connected(port) as connection:
            while not stop.wait(pause):
                begin = time.monotonic()
                answer = connection.exchange(request)
                after = float(answer.header("retry-after") or 0)
                calls.append((time.monotonic() - begin, answer.status, after))
                if answer.status == 429:
                    stop.wait(0.01)  # who is refused at once would be nothing but noise

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(loop)
        try:
            yield calls
        finally:
            stop.set()
        asked.result()


def judge_share(findings: Findings, greedy: Calls, modest: Calls, _: float) -> None:
    """That the modest one waits for a job or two, not for all that the greedy one has queued."""
    mine, theirs = (float(np.median([one[0] for one in calls])) for calls in (modest, greedy))
    findings.figures |= {"greedy p50 ms": 1e3 * theirs, "modest p50 ms": 1e3 * mine}
    refused = Counter(status for _, status, _ in modest if status != 200)
    findings.check("the modest caller is never refused", not refused, dict(refused))
    findings.check(
        "the modest caller waits less than half as long as the greedy one",
        mine < theirs / 2,
        f"{1e3 * mine:.0f} and {1e3 * theirs:.0f} ms",
    )


def judge_limit(findings: Findings, greedy: Calls, modest: Calls, seconds: float) -> None:
    """That the greedy one gets what its key may have, and is told when to come again."""
    answered = sum(status == 200 for _, status, _ in greedy)
    refused = [after for _, status, after in greedy if status == 429]
    allowed = BURST + RATE * seconds
    findings.figures |= {
        "greedy rows": answered * MANY,
        "rows that its key may have": allowed,
        "greedy 429": len(refused),
    }
    odd = Counter(status for _, status, _ in modest if status != 200)
    findings.check("the modest caller is never refused", not odd, dict(odd))
    findings.check(
        "the greedy caller gets at most what its key may have",
        0 < answered * MANY <= 1.1 * allowed,
        f"{answered * MANY:,} of {allowed:,.0f} rows",
    )
    findings.check(
        "each of its refusals has a Retry-After", all(after > 0 for after in refused), len(refused)
    )
