"""`turnpoint bench`: what a running service gives to a caller who reads whole answers."""

import contextlib
import json
import threading
import time
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
) -> None:
    """Measure latency and throughput of a running service. Times include this caller's own work."""
    result = measure(url, Load(rows, n, format, concurrency, seconds))
    for name, value in result["figures"].items():
        typer.echo(f"{name:24} {value:,.2f}")
    if report is not None:
        report.write_text(json.dumps(result, indent=2) + "\n")


def measure(url: str, load: Load) -> dict[str, Any]:
    """The figures of one load: milliseconds, and rates per second."""
    import numpy as np
    from turnpoint_client import Client

    with Client(url) as client:
        model = client.models()[0]
    dim = model.dim or 0
    users, positives = np.random.default_rng(0).standard_normal((2, load.rows, dim), "f4")
    latencies: list[float] = []
    failures: list[BaseException] = []
    barrier = threading.Barrier(load.concurrency + 1)

    def call() -> None:
        try:
            with Client(url) as client:
                for _ in range(WARM_UP_CALLS):
                    client.negatives(users, positives, n=load.n, format=load.format)
                barrier.wait()
                end = time.perf_counter() + load.seconds
                while (begin := time.perf_counter()) < end:
                    client.negatives(users, positives, n=load.n, format=load.format)
                    latencies.append(time.perf_counter() - begin)
        except BaseException as error:  # told by the main thread
            failures.append(error)
            barrier.abort()

    callers = [threading.Thread(target=call) for _ in range(load.concurrency)]
    for caller in callers:
        caller.start()
    with contextlib.suppress(threading.BrokenBarrierError):  # a warm-up failed; raised below
        barrier.wait()
    begin = time.perf_counter()
    for caller in callers:
        caller.join()
    elapsed = time.perf_counter() - begin
    if failures:
        raise failures[0]

    p50, p95, p99 = 1e3 * np.percentile(latencies, [50, 95, 99])
    per_second = len(latencies) / elapsed
    moved = load.rows * dim * 4 * (2 + load.n) / 2**20
    figures = {
        "calls": len(latencies),
        "p50 ms": p50,
        "p95 ms": p95,
        "p99 ms": p99,
        "calls/s": per_second,
        "rows/s": per_second * load.rows,
        "negatives/s": per_second * load.rows * load.n,
        "float32 MiB/s": per_second * moved,
    }
    told = {"name": model.name, "version": model.live, "dim": dim, "denoiser": model.denoiser}
    rounded = {name: float(value) for name, value in figures.items()}
    return {"load": asdict(load), "model": told, "figures": rounded}
