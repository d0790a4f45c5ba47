"""Versions, corrupt versions, callers who hang up and a Redis that dies; nobody else may notice."""

import itertools
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from bench.serving.checkpoint import pairs
from bench.serving.load import Request, connected
from bench.serving.processes import Running, served
from bench.soak.callers import Callers
from bench.soak.findings import Findings, Size
from bench.soak.redis_server import RedisServer, redis_server
from bench.soak.versions import CORRUPT, DIM, MODEL, Publisher
from bench.soak.watch import Watch, metrics, total

VERSIONS = 20  # of which every kind of corrupt one
HANG_UPS = 500
REDIS_KILLS = 3
PATIENCE = 10.0  # seconds in which a service must have looked at a version
WARM_CALLERS, WARM_CALLS = 4, 8  # large requests at once: their buffers are no growth
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST instead of FIN


def run(size: Size) -> Findings:
    """Everything at once, for so many seconds."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        publisher = Publisher(Path(folder))
        publisher.good()
        settings: dict[str, object] = {"REGISTRY__POLL_SECONDS": 0.1}
        redis = stack.enter_context(redis_server()) if size.redis else None
        if redis is not None:
            settings |= {"REDIS__URL": redis.url, "CACHE__MODE": "on"}
        running = stack.enter_context(served(Path(folder), **settings))
        warm_up(running.port)
        with (
            Watch(running) as watch,
            Callers(running.url, publisher.truth) as callers,
            ThreadPoolExecutor(2) as pool,
        ):
            trouble = [pool.submit(hang_up, running.port, size)]
            if redis is not None:
                trouble.append(pool.submit(restart_redis, redis, size.seconds))
            expected, unseen = publish(publisher, running, size.seconds)
            for one in trouble:
                one.result()
        callers.report(findings)
        watch.report(findings, warm_up=0.25)
        report(findings, running, size, expected, unseen)
    return findings


def publish(publisher: Publisher, running: Running, seconds: float) -> tuple[Counter[str], int]:
    """Good and corrupt versions at even distances.

    Returns:
        What `swaps_total` must show by result, and how many versions it did not show in time.
    """
    expected, unseen, begin = Counter(ok=1), 0, time.monotonic()
    corrupt = iter(CORRUPT.items())
    for count in range(VERSIONS):
        time.sleep(max(0.0, begin + count * seconds / VERSIONS - time.monotonic()))
        if count % 4 == 3:
            how, result = next(corrupt)
            publisher.corrupt(how)
        else:
            result = "ok"
            publisher.good()
        expected[result] += 1
        unseen += not seen(running, result, expected[result])
    return expected, unseen


def seen(running: Running, result: str, count: int) -> bool:
    """Whether the service has told of so many swaps with that result, within `PATIENCE`."""
    labels = {"model": MODEL, "result": result}
    return within(
        PATIENCE, lambda: total(metrics(running.url), "turnpoint_swaps_total", **labels) >= count
    )


def large_request() -> Request:
    """2048 pairs, 8 negatives each."""
    kind = {"Content-Type": "application/octet-stream"}
    return Request.post(f"/negatives?n=8&model={MODEL}", pairs(2048, DIM).tobytes(), kind)


def warm_up(port: int) -> None:
    """Every buffer that the run will need at once, however fast the machine is."""

    def ask(request: Request) -> None:
        with connected(port) as connection:
            for _ in range(WARM_CALLS):
                connection.call(request)

    with ThreadPoolExecutor(WARM_CALLERS) as pool:
        list(pool.map(ask, [large_request()] * WARM_CALLERS))


def hang_up(port: int, size: Size) -> None:
    """Callers who leave: in the middle of their request or of the answer, with FIN or with RST."""
    request = large_request()
    body = request.body
    count, begin = size.of(HANG_UPS), time.monotonic()
    ways = itertools.cycle(itertools.product((len(body) // 2, len(body)), (False, True)))
    for index, (sent, reset) in zip(range(count), ways, strict=False):
        time.sleep(max(0.0, begin + index * size.seconds / count - time.monotonic()))
        with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
            if reset:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            caller.sendall(request.head + request.body[:sent])


def restart_redis(redis: RedisServer, seconds: float) -> None:
    """Kill it and start it again, at even distances."""
    for _ in range(REDIS_KILLS):
        time.sleep(seconds / (2 * REDIS_KILLS))
        redis.kill()
        time.sleep(min(2.0, seconds / (2 * REDIS_KILLS)))
        redis.start()


def report(
    findings: Findings, running: Running, size: Size, expected: Counter[str], unseen: int
) -> None:
    """Into the findings: what the service itself tells of all this."""
    time.sleep(1)  # whoever hung up last is noticed
    page = metrics(running.url)
    told = {
        result: round(total(page, "turnpoint_swaps_total", model=MODEL, result=result))
        for result in ("ok", "corrupt", "refused", "missing", "unreachable")
    }
    told = {result: count for result, count in told.items() if count}
    findings.figures |= {
        "hung up": size.of(HANG_UPS),
        "noticed as 499": total(page, "turnpoint_requests_total", code="499"),
        "versions published": expected.total(),
    }
    findings.check(
        "swaps_total{result} agrees with what was published",
        told == dict(expected) and not unseen,
        told,
    )
    waiting = total(page, "turnpoint_queue_rows")
    findings.check("nothing is left in the queue", waiting == 0, f"{waiting:.0f} rows")
    failed = [
        f"{count:.0f} x {dict(labels)['code']}"
        for (name, labels), count in page.items()
        if name == "turnpoint_requests_total" and dict(labels)["code"].startswith("5")
    ]
    findings.check("no answer is a 5xx", not failed, ", ".join(failed) or "none")
    traces = running.log().count("Traceback")
    findings.check("the log has no trace", not traces, f"{traces}")
    if size.redis:
        findings.figures["cache hits"] = total(page, "turnpoint_cache_requests_total", result="hit")
        back = within(PATIENCE, lambda: total(metrics(running.url), "turnpoint_redis_up") == 1)
        findings.check("the service finds Redis again", back, f"redis_up = {back:d}")


def within(patience: float, condition: Callable[[], bool]) -> bool:
    """Whether it is true in that many seconds."""
    end = time.monotonic() + patience
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return true
