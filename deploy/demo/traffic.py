"""Traffic for a demonstration: callers come and go, in every format, and some get it wrong.

    python deploy/demo/traffic.py --url http://localhost:8000

The load rises and falls with `--period`, so that every panel of the dashboards moves. The same
users come back, so that a cache can pay; one call in fifty holds a NaN, so that errors are seen. A
service that is away is waited for. Ends on SIGTERM or after `--seconds`.
"""

import argparse
import asyncio
import contextlib
import math
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
from turnpoint_client import AsyncClient, TransportError, TurnpointClientError

USERS = 5000
SCALE = 0.3  # of one embedding's entries
LONGEST_PAUSE = 2.0  # seconds between two calls of one caller, where the load is lowest
BROKEN = 0.02  # share of calls with a NaN
ROWS, ROW_SHARES = (64, 512, 1024, 2048), (0.4, 0.3, 0.2, 0.1)
NEGATIVES, N_SHARES = (1, 4, 8, 16), (0.2, 0.2, 0.5, 0.1)
FORMATS, FORMAT_SHARES = ("octet-stream", "safetensors", "json"), (0.7, 0.25, 0.05)
RULES = ("score_aware", "calibrated", "exact", "random")
JSON_ROWS = 64
TELL_SECONDS = 15.0


class Crowd:
    """A fixed crowd of users, and calls on their behalf."""

    def __init__(self, client: AsyncClient, dim: int, seed: int) -> None:
        self.client = client
        self.random = np.random.default_rng(seed)
        self.users = SCALE * self.random.standard_normal((USERS, dim), dtype=np.float32)
        self.told: Counter[str] = Counter()

    async def ask(self) -> None:
        """One call, counted by its outcome."""
        users, positives, options = self._request()
        try:
            await self.client.negatives(users, positives, **options)
            self.told["answered"] += 1
        except TurnpointClientError as error:
            self.told[type(error).__name__] += 1
            if isinstance(error, TransportError):
                await asyncio.sleep(LONGEST_PAUSE)

    def _request(self) -> tuple[np.ndarray, np.ndarray, dict]:
        """users and positives [B, d], liked to very different degrees, and the call's options."""
        pick = self.random
        format_ = pick.choice(FORMATS, p=FORMAT_SHARES)
        rows = JSON_ROWS if format_ == "json" else pick.choice(ROWS, p=ROW_SHARES)
        users = self.users[pick.integers(USERS, size=rows)]
        liked = pick.uniform(0, 0.9, (rows, 1)).astype(np.float32)
        noise = SCALE * pick.standard_normal(users.shape, dtype=np.float32)
        positives = liked * users + np.sqrt(1 - liked**2) * noise
        if pick.random() < BROKEN:
            positives[0, 0] = np.nan
        n = int(pick.choice(NEGATIVES, p=N_SHARES))
        options = {"n": n, "transition": str(pick.choice(RULES)), "format": str(format_)}
        return users, positives, options


async def caller(crowd: Crowd, number: int, callers: int, period: float) -> None:
    """Ask for ever; the pause between two calls swells and shrinks, each caller a little later."""
    while True:
        phase = time.monotonic() / period + number / (4 * callers)
        load = 0.5 - 0.5 * math.cos(2 * math.pi * phase)  # 0 to 1
        await crowd.ask()
        await asyncio.sleep(LONGEST_PAUSE * (1 - load) ** 3)


async def tell(crowd: Crowd) -> None:
    """A line now and then."""
    while True:
        await asyncio.sleep(TELL_SECONDS)
        shown = ", ".join(f"{count} {name}" for name, count in sorted(crowd.told.items()))
        print(f"in {TELL_SECONDS:.0f} s: {shown or 'nothing'}", flush=True)
        crowd.told.clear()


async def dimension(client: AsyncClient, name: str | None) -> int:
    """d of the model of that name, or of the first; waits until there is one."""
    while True:
        with contextlib.suppress(TurnpointClientError):
            for model in await client.models():
                if name in (None, model.name):
                    return model.dim or 0
        await asyncio.sleep(1)


async def run(options: argparse.Namespace) -> None:
    """All callers, until they are told to stop."""
    key = options.key_file and first_key(options.key_file)
    named = {"model": options.model, "api_key": key or None, "retries": 0}
    async with AsyncClient(options.url, **named) as client:
        async with asyncio.timeout(options.seconds):
            crowd = Crowd(client, await dimension(client, options.model), options.seed)
            async with asyncio.TaskGroup() as group:
                group.create_task(tell(crowd))
                for number in range(options.callers):
                    group.create_task(caller(crowd, number, options.callers, options.period))


def first_key(file: Path) -> str:
    """The first `[name:]key` of a file like that of TURNPOINT_AUTH__KEYS_FILE."""
    lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return next(filter(None, lines)).rpartition(":")[2].strip()


async def main() -> None:
    """Read the options; stop quietly on SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://localhost:8000", help="of the service")
    parser.add_argument("--model", help="of all calls; default: the service's own")
    parser.add_argument("--key-file", type=Path, help="file of keys; the first is sent")
    parser.add_argument("--callers", type=int, default=4, help="calls at once when load is highest")
    parser.add_argument("--period", type=float, default=90.0, help="seconds from low to low")
    parser.add_argument("--seconds", type=float, help="how long; default: until stopped")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    running = asyncio.create_task(run(parser.parse_args()))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await running


if __name__ == "__main__":
    asyncio.run(main())
