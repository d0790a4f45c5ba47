"""Callers who behave: `turnpoint_client` with its retries, each in a thread of its own."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from turnpoint_client import Client, Retries
from turnpoint_client.errors import TurnpointClientError

from bench.serving.checkpoint import pairs
from bench.serving.wires import Floats
from bench.soak.findings import Findings
from bench.soak.versions import DIM, ROWS, SEED, N, Truth, told_truly

# Patient enough for a service that is started anew: seconds until Python has imported torch.
PATIENT = Retries(limit=200, base=0.1, cap=0.5, max_wait=60.0)


@dataclass(frozen=True)
class Outcome:
    """One call.

    Attributes:
        at: when it began, on `time.monotonic`'s clock.
        seconds: until it was answered or given up, retries included.
        version: that answered.
        wrong: what is wrong with it; empty if nothing is.
    """

    at: float
    seconds: float
    version: str
    wrong: str = ""


class Callers:
    """Ask until the block ends, and compare every answer with what its version must say.

    Negatives with a seed, and the law itself without one, in turn: no cache may answer the first,
    any may answer the second.

    Args:
        url: of the service.
        truth: see `versions.Publisher`.
        count: callers.
        pause: seconds between an answer and the next call.
        retries: of every caller.
    """

    def __init__(
        self,
        url: str,
        truth: Mapping[str, Truth],
        count: int = 4,
        pause: float = 0.02,
        retries: Retries = PATIENT,
    ) -> None:
        self.url, self.truth, self.pause, self.policy = url, truth, pause, retries
        self.outcomes: list[Outcome] = []
        self.retries = 0
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(count)
        self._count = count

    def __enter__(self) -> Self:
        self._asking = [self._pool.submit(self._ask) for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with self._pool:
            for one in self._asking:
                one.result()

    def _ask(self) -> None:
        with Client(self.url, retries=self.policy) as client:
            for ask in itertools.cycle((negatives, law)):
                if self._stop.wait(self.pause):
                    break
                self.outcomes.append(self._one(client, ask))
        self.retries += client.stats.retries

    def _one(self, client: Client, ask: Callable[[Client], tuple[str, Floats]]) -> Outcome:
        begin, version = time.monotonic(), ""
        try:
            version, told = ask(client)
            wrong = told_truly(version, told, self.truth)
        except TurnpointClientError as error:
            wrong = f"{type(error).__name__}: {error}"
        return Outcome(begin, time.monotonic() - begin, version, wrong)

    def report(self, findings: Findings) -> None:
        """Into the findings: that nobody lost anything or got a wrong answer."""
        findings.figures["well-behaved retries"] = self.retries
        judge(findings, self.outcomes, self.truth)


def negatives(client: Client) -> tuple[str, Floats]:
    """The version that answered, and [B, n, d]."""
    answer = client.negatives(*pairs(ROWS, DIM), n=N, seed=SEED)
    return answer.version, answer.negatives


def law(client: Client) -> tuple[str, Floats]:
    """The version that answered, and [B, 2 d]."""
    answer = client.distribution(*pairs(ROWS, DIM))
    return answer.version, np.concatenate([answer.mean, answer.std], 1)


def judge(findings: Findings, outcomes: list[Outcome], truth: Mapping[str, Truth]) -> None:
    """That every call was answered, and rightly."""
    wrong = [one.wrong for one in outcomes if one.wrong]
    seconds = [one.seconds for one in outcomes] or [np.nan]
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    findings.figures |= {
        "well-behaved calls": len(outcomes),
        "well-behaved p50 ms": float(p50),
        "well-behaved p99 ms": float(p99),
        "well-behaved longest s": float(max(seconds)),
        "versions that answered": len({one.version for one in outcomes} & set(truth)),
    }
    findings.check(
        "no well-behaved caller loses a request or gets a wrong answer",
        bool(outcomes) and not wrong,
        f"{len(wrong)} of {len(outcomes)}" + (f", first: {wrong[0][:200]}" if wrong else ""),
    )
