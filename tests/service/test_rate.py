"""The limit is what it says, alike in process and in Redis; without Redis nobody is refused."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.errors import RateLimitedError
from service import rate
from service.app import create_app
from service.rate import PREFIX, RateLimit, RedisScripts
from service.settings import load_settings
from tests.service.live import OCTET, octet, pairs, settings_for
from tests.service.redis_server import RedisServer, redis_server

__all__ = ["redis_server"]


async def waited(limit: RateLimit, caller: str, rows: int) -> float:
    """Seconds to wait, 0 where the rows were granted."""
    try:
        await limit.take(caller, rows)
    except RateLimitedError as refused:
        return refused.retry_after
    return 0.0


class Bucket:
    """The textbook's token bucket, which is refilled at every look."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.tokens, self.at = rate, burst, burst, 0.0

    def take(self, rows: int, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + self.rate * (now - self.at))
        self.at = now
        if rows > self.tokens + 1e-6:
            return False
        self.tokens -= rows
        return True


async def test_it_is_a_token_bucket() -> None:
    now = 0.0
    limit = RateLimit(100, 500, clock=lambda: now)
    bucket, dice = Bucket(100, 500), random.Random(1)
    granted = 0
    for _ in range(3000):
        now += dice.expovariate(1.0)
        rows = dice.randrange(1, 400)
        wait = await waited(limit, "a", rows)
        assert (wait == 0) == bucket.take(rows, now)
        granted += rows * (wait == 0)
    assert 0.9 < granted / (100 * now) <= 1 + 500 / now


async def test_what_it_says_to_wait_is_exact() -> None:
    now = 50.0
    limit = RateLimit(100, 500, clock=lambda: now)
    assert await waited(limit, "a", 500) == 0
    assert await waited(limit, "a", 200) == pytest.approx(2.0)
    assert await waited(limit, "b", 500) == 0  # a caller of its own
    now += 1.99
    assert await waited(limit, "a", 200) > 0
    now += 0.02
    assert await waited(limit, "a", 200) == 0


async def test_none_is_no_limit() -> None:
    assert await waited(RateLimit(None, 1), "a", 10**9) == 0


async def test_replicas_share_the_count_in_redis(redis_server: RedisServer) -> None:
    one, two = RedisScripts(redis_server.url), RedisScripts(redis_server.url)
    replicas = itertools.cycle([RateLimit(100, 500, one), RateLimit(100, 500, two)])
    granted = [await waited(next(replicas), "a", 100) == 0 for _ in range(10)]
    assert granted == [True] * 5 + [False] * 5
    wait = await waited(next(replicas), "a", 100)
    assert 0.5 < wait <= 1.0
    assert await waited(next(replicas), "b", 100) == 0
    kept = redis_server.admin.pttl(f"{PREFIX}a")
    assert 0 < kept <= 5000  # type: ignore[operator]  # milliseconds, until the bucket is full
    await one.close()
    await two.close()


async def test_it_fills_up_in_redis(redis_server: RedisServer) -> None:
    scripts = RedisScripts(redis_server.url)
    limit = RateLimit(1000, 500, scripts)
    assert await waited(limit, "a", 500) == 0
    wait = await waited(limit, "a", 200)
    await asyncio.sleep(wait + 0.01)
    assert await waited(limit, "a", 200) == 0
    await scripts.close()


@pytest.mark.parametrize("garbage", [b"garbage", b"1e300", b"-1e300", b"nan", b"inf", b""])
async def test_garbage_under_our_key_locks_nobody_out(
    redis_server: RedisServer, garbage: bytes
) -> None:
    scripts = RedisScripts(redis_server.url)
    redis_server.admin.set(f"{PREFIX}a", garbage)
    assert await waited(RateLimit(100, 500, scripts), "a", 200) <= 2.0
    redis_server.admin.delete(f"{PREFIX}a")
    redis_server.admin.rpush(f"{PREFIX}a", "x")
    assert await waited(RateLimit(100, 500, scripts), "a", 200) == 0
    await scripts.close()


async def test_without_redis_each_counts_for_itself(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    scripts = RedisScripts(redis_server.url)
    limit = RateLimit(100, 500, scripts)
    assert await waited(limit, "a", 500) == 0
    redis_server.stop()
    assert await waited(limit, "a", 500) == 0  # the count in process is fresh
    assert await waited(limit, "a", 500) > 0  # and counts
    assert caplog.text.count("Redis does not count rows") == 1
    redis_server.start()
    limit._not_before = 0.0  # the pause is over
    assert await waited(limit, "a", 500) == 0
    assert redis_server.admin.exists(f"{PREFIX}a")
    await scripts.close()


async def test_a_slow_redis_is_not_waited_for(redis_server: RedisServer) -> None:
    scripts = RedisScripts(redis_server.url)
    limit = RateLimit(100, 500, scripts)
    await limit.take("a", 1)
    redis_server.admin.client_pause(5000)  # type: ignore[no-untyped-call]
    began = time.monotonic()
    for _ in range(50):
        await limit.take("a", 1)
    assert time.monotonic() - began < 10 * rate.PATIENCE  # one wait, and then none for a while
    await scripts.close()


class Broken:
    """Not Redis at all."""

    async def eval(self, script: str, keys: Sequence[str], args: Sequence[str | float]) -> Any:
        return b"no number"

    async def close(self) -> None:
        pass


async def test_an_answer_that_is_no_number_is_none() -> None:
    assert await waited(RateLimit(100, 500, Broken()), "a", 500) == 0


async def test_over_http_it_is_429_with_the_time_to_wait(registry: Path) -> None:
    limits = {"rate_rows_per_second": 10, "rate_burst_rows": 100}
    settings = settings_for(registry, server={"max_rows": 100}, auth=limits)
    app = create_app(settings)
    body = octet(*pairs(60))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client,
    ):
        assert (await client.post("/negatives", content=body, headers=OCTET)).status_code == 200
        refused = await client.post("/negatives", content=body, headers=OCTET)
        assert (refused.status_code, refused.json()["code"]) == (429, "overloaded")
        assert refused.headers["retry-after"] == "2"
        assert "60 rows" in refused.json()["detail"]
        page = (await client.get("/metrics")).text
        assert 'turnpoint_rejected_total{reason="rate_limited"} 1.0' in page


def test_a_burst_below_the_largest_request_is_refused_at_the_start() -> None:
    with pytest.raises(Exception, match="RATE_BURST_ROWS = 10 is below SERVER__MAX_ROWS"):
        load_settings({"auth": {"rate_rows_per_second": 1, "rate_burst_rows": 10}})
