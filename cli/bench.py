"""`turnpoint bench`: what a running service gives to a caller who reads whole answers."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Format = Literal["octet-stream", "safetensors", "json"]
WARM_UP_CALLS = 3


@dataclass(frozen=True)
class Load:
    """One load: `concurrency` callers, each asking again as soon as it is answered."""

    rows: int
    n: int
    format: Format
    concurrency: int
    seconds: float


def bench(
    url: Annotated[str, typer.Option(help="of the service")] = "http://127.0.0.1:8000",
    rows: Annotated[int, typer.Option(help="rows per request")] = 2048,
    n: Annotated[int, typer.Option(help="negatives per row")] = 8,
    format: Annotated[  # noqa: A002
        Format, typer.Option(help="of request and answer")
    ] = "octet-stream",
    concurrency: Annotated[int, typer.Option(help="callers at once")] = 1,
    seconds: Annotated[float, typer.Option(help="how long")] = 10.0,
    report: Annotated[Path | None, typer.Option(help="JSON report to write")] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="of a service that asks for one", envvar="TURNPOINT_API_KEY"),
    ] = None,
) -> None:
    """Measure latency and throughput of a running service. Times include this caller's own work."""
    from turnpoint_client import TurnpointClientError

    from core.errors import TurnpointError

    try:
        result = measure(url, Load(rows, n, format, concurrency, seconds), api_key)
    except TurnpointClientError as error:
        raise TurnpointError(f"{url}: {error}") from error
    for name, value in result["figures"].items():
        typer.echo(f"{name:24} {value:,.2f}")
    if report is not None:
        report.write_text(json.dumps(result, indent=2) + "\n")


def measure(url: str, load: Load, api_key: str | None = None) -> dict[str, Any]:
    """The figures of one load: milliseconds, and rates per second."""
    import numpy as np
    from turnpoint_client import Client

    with Client(url, api_key=api_key) as client:
        model = client.models()[0]
    dim = model.dim or 0
    users, positives = np.random.default_rng(0).standard_normal((2, load.rows, dim), "f4")

    @contextlib.contextmanager
    def caller() -> Iterator[Callable[[], object]]:
        with Client(url, api_key=api_key) as client:
            yield lambda: client.negatives(users, positives, n=load.n, format=load.format)

    driven = drive(caller, load.concurrency, load.seconds, {"client": time.process_time})
    told = {"name": model.name, "version": model.live, "dim": dim, "denoiser": model.denoiser}
    moved = load.rows * dim * 4 * (2 + load.n) / 2**20
    figures = driven.figures(load.rows, load.n)
    figures["float32 MiB/s"] = figures["calls/s"] * moved
    return {"load": asdict(load), "model": told, "figures": figures}


@dataclass(frozen=True)
class Driven:
    """What a closed loop saw.

    Attributes:
        latencies: seconds of each call, of all callers.
        elapsed: seconds.
        spent: CPU seconds by each of the clocks.
    """

    latencies: list[float]
    elapsed: float
    spent: dict[str, float]

    def figures(self, rows: int, n: int) -> dict[str, float]:
        """Milliseconds, and rates per second."""
        import numpy as np

        p50, p95, p99 = 1e3 * np.percentile(self.latencies, [50, 95, 99])
        calls = len(self.latencies)
        per_second = calls / self.elapsed
        figures = {
            "calls": calls,
            "p50 ms": p50,
            "p95 ms": p95,
            "p99 ms": p99,
            "calls/s": per_second,
            "rows/s": per_second * rows,
            "negatives/s": per_second * rows * n,
        }
        for name, seconds in self.spent.items():
            figures[f"{name} CPU ms/call"] = 1e3 * seconds / calls
        return {name: float(value) for name, value in figures.items()}


def drive(
    caller: Callable[[], AbstractContextManager[Callable[[], object]]],
    concurrency: int,
    seconds: float,
    clocks: Mapping[str, Callable[[], float]],
    warm_up: int = WARM_UP_CALLS,
) -> Driven:
    """A closed loop: each caller asks again as soon as it is answered.

    Args:
        caller: opens one caller's connection and gives the call that it repeats.
        concurrency: callers, a thread each.
        seconds: how long; every caller makes at least one call.
        clocks: CPU seconds so far, by whose they are; read at the start and at the end.
        warm_up: calls of each caller before the clock runs.
    """
    latencies: list[float] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(concurrency + 1)

    def loop() -> None:
        try:
            with caller() as call:
                for _ in range(warm_up):
                    call()
                barrier.wait()
                end = time.perf_counter() + seconds
                while not latencies or time.perf_counter() < end:
                    begin = time.perf_counter()
                    call()
                    latencies.append(time.perf_counter() - begin)
        except BaseException as error:  # told by the main thread
            failures.append(error)
            barrier.abort()

    callers = [threading.Thread(target=loop) for _ in range(concurrency)]
    for thread in callers:
        thread.start()
    before = {name: clock() for name, clock in clocks.items()}
    with contextlib.suppress(threading.BrokenBarrierError):  # a warm-up failed; raised below
        barrier.wait()
        before = {name: clock() for name, clock in clocks.items()}
    begin = time.perf_counter()
    for thread in callers:
        thread.join()
    elapsed = time.perf_counter() - begin
    if failures:
        raise failures[0]
    spent = {name: clock() - before[name] for name, clock in clocks.items()}
    return Driven(latencies, elapsed, spent)
