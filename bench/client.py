"""What `turnpoint_client` costs a caller, beside the same bytes moved by less.

    python -m bench.client --rows 2048 --n 8 [--seconds 1 --rounds 9]

The server is the echo of the serving benchmark: whatever it is sent, it answers bytes that are
there already, so that what differs is the caller. All take turns in rotating order, a connection
and a thread for each turn; figures are medians over rounds, ratios medians of those within a round.
"""

import argparse
import asyncio
import contextlib
import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from turnpoint_client import AsyncClient, Client

from bench.serving.checkpoint import pairs
from bench.serving.contenders import ECHO, Case, Contender
from bench.serving.load import Caller, Request, asking
from bench.serving.processes import free_port, started, wait_for
from bench.serving.report import machine, median, ratio, table
from bench.serving.wires import RAW
from cli.bench import drive

BARE = "bare sockets"
P50, CPU = "p50 ms", "client CPU ms/call"

Rounds = dict[str, list[dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    before = machine()["load average"]
    case = Case(Path(), "none", args.rows, args.n, args.dim)
    found = run(case, args.seconds, args.rounds)
    up, down = (args.rows * args.dim * count * 4 / 2**20 for count in (2, args.n))
    load = f"load average {before:.1f} before and {machine()['load average']:.1f} after"
    print(
        f"{up:g} MiB up and {down:g} MiB down, {args.rounds} rounds of {args.seconds:g} s, {load}"
    )
    print("\n".join(markdown(found)))


def run(case: Case, seconds: float, rounds: int) -> Rounds:
    """The figures of every caller, round by round."""
    port = free_port()
    echo = _echo(case)
    with started((*echo.command, "--port", port), port) as running:
        wait_for(running)
        callers = everybody(port, echo, case)
        names = list(callers)
        found: Rounds = {name: [] for name in names}
        for index in range(rounds):
            first = index % len(names)
            for name in names[first:] + names[:first]:
                driven = drive(callers[name], 1, seconds, {"client": time.process_time})
                found[name].append(driven.figures(case.rows, case.n))
    return found


def markdown(found: Mapping[str, list[dict[str, float]]]) -> list[str]:
    """The table."""
    rows = []
    for name, rounds in found.items():
        cells = [name]
        for figure in (P50, CPU):
            cells.append(f"{median(rounds)[figure]:.2f}")
            cells.append(f"{ratio(rounds, found[BARE], figure):.2f}")
        rows.append(cells)
    return table(["caller", "p50, ms", "ratio", "CPU, ms a call", "ratio"], rows)


def everybody(port: int, echo: Contender, case: Case) -> dict[str, Callable[[], Caller]]:
    """Opens each caller's connection, and gives the call that it repeats."""
    request = Request.to(echo, case)
    users, positives = pairs(case.rows, case.dim)
    url = f"http://127.0.0.1:{port}"

    def ask(client: Any) -> Any:
        return client.negatives(users, positives, n=case.n, returns="negatives")

    @contextlib.contextmanager
    def standard() -> Iterator[Callable[[], object]]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:

            def call() -> bytes:
                connection.request("POST", echo.path, request.body)
                return connection.getresponse().read()

            yield call

    @contextlib.contextmanager
    def blocking(transport: Callable[[], Any]) -> Iterator[Callable[[], object]]:
        with Client(url, transport=transport()) as client:
            yield lambda: ask(client)

    @contextlib.contextmanager
    def awaited(transport: Callable[[], Any]) -> Iterator[Callable[[], object]]:
        with asyncio.Runner() as runner:
            client = AsyncClient(url, transport=transport())
            yield lambda: runner.get_loop().run_until_complete(ask(client))
            runner.run(client.aclose())

    return {
        BARE: asking(port, request),
        "http.client": standard,
        "Client": partial(blocking, lambda: None),
        "Client, httpx's transport": partial(blocking, httpx.HTTPTransport),
        "AsyncClient": partial(awaited, lambda: None),
        "AsyncClient, httpx's transport": partial(awaited, httpx.AsyncHTTPTransport),
    }


def _echo(case: Case) -> Contender:
    """The server, which says of its bytes what the service would."""
    told = {
        "x-negatives-shape": f"{case.rows},{case.n},{case.dim}",
        "x-negatives-dtype": "float32",
        "x-model": case.model,
        "x-model-version": "none",
        "x-seed": "0",
    }
    size = case.rows * case.n * case.dim * 4
    headers = (word for pair in told.items() for word in ("--header", *pair))
    command = ("bench.serving.echo", "--size", size, *headers)
    return Contender(ECHO, command, RAW, f"/negatives?n={case.n}&returns=negatives")


if __name__ == "__main__":
    main()
