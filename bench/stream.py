"""What copying rows to the stream of pairs costs a request: services with and without it, in turn.

    python -m bench.stream [--redis ADDRESS] [--rows 2048] [--n 8] [--rounds 60] [--seconds 0.4]

All services run at once and are asked in rotating order, so that a busy moment of the machine
meets all of them; ratios are medians of those within a round. One without a stream is there twice:
its second ratio says what the machine's noise makes of equals. Without an address a redis-server is
started on the same machine, whose work then counts as well.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx
import redis

from bench.serving.checkpoint import publish
from bench.serving.contenders import TURNPOINT, Case, Contender, everybody
from bench.serving.load import measured
from bench.serving.processes import UNCACHED, Running, served
from bench.soak.redis_server import redis_server
from core.pairs import stream_key
from service.settings import MIB, StreamSettings

SHARES = {"off": 0.0, "off again": 0.0, "0.1": 0.1, "1": 1.0}
BASE = "off"
FIGURES = ("p50 ms", "p99 ms", "calls/s", "server CPU ms/call")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", help="address of a Redis; default: one of its own")
    parser.add_argument("--denoiser", default="film", choices=("film", "moment"))
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=1, help="callers at once")
    parser.add_argument("--seconds", type=float, default=0.4, help="of each round")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = args.redis or stack.enter_context(redis_server()).url
        model = publish(folder, args.denoiser, args.dim)
        case = Case(folder, model, args.rows, args.n, args.dim)
        (contender,) = (one for one in everybody(case) if one.name == TURNPOINT)
        services = {name: start(stack, folder, address, share) for name, share in SHARES.items()}
        rounds = [
            turn(services, contender, case, args.concurrency, args.seconds, index)
            for index in range(args.rounds + 1)
        ][1:]  # the first one warms up
        print(table(rounds))
        for name, running in services.items():
            print(f"{name}: {told(running)}")
        key = stream_key(model)
        with redis.Redis.from_url(address) as client:
            used, bound = client.memory_usage(key, samples=0), StreamSettings().max_bytes
            print(f"{client.xlen(key)} entries, {used / MIB:.1f} MiB of {bound / MIB:.0f}")
            client.delete(key)


def start(stack: ExitStack, folder: Path, address: str, share: float) -> Running:
    """A service that copies this share of what it is asked."""
    settings = {name.removeprefix("TURNPOINT_"): value for name, value in UNCACHED.items()}
    settings |= {"REDIS__URL": address, "STREAM__SHARE": str(share)}
    return stack.enter_context(served(folder, **settings))


def turn(
    services: dict[str, Running],
    contender: Contender,
    case: Case,
    concurrency: int,
    seconds: float,
    index: int,
) -> dict[str, dict[str, float]]:
    """One round: every service once, beginning with another each time."""
    names = list(services)
    first = index % len(names)
    return {
        name: measured(services[name], contender, case, concurrency, seconds, warm_up=2)
        for name in names[first:] + names[:first]
    }


def table(rounds: list[dict[str, dict[str, float]]]) -> str:
    """Medians over rounds, and in brackets those of the ratios to no stream within a round."""
    lines = ["| share | " + " | ".join(FIGURES) + " |", "|---" * (1 + len(FIGURES)) + "|"]
    for name in SHARES:
        cells = [name]
        for figure in FIGURES:
            plain = median(one[name][figure] for one in rounds)
            ratio = median(one[name][figure] / one[BASE][figure] for one in rounds)
            cells.append(f"{plain:.2f} ({ratio:.3f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def told(running: Running) -> str:
    """What became of the rows that were to be copied."""
    page = httpx.get(f"{running.url}/metrics").text
    lines = [line for line in page.splitlines() if line.startswith("turnpoint_stream_")]
    return ", ".join(line.removeprefix("turnpoint_stream_") for line in lines)


if __name__ == "__main__":
    main()
