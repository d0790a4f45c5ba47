"""A real Redis under every fault: no request fails, no negative is wrong, and the metrics tell.

Each test speaks to the whole application. `Cached.ask` makes a request without a seed and compares
the law and the draws that come back with what core computes from the published weights.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import safetensors.torch
import torch

from core.checkpoint import unpack
from core.errors import ConfigError
from core.registry import Registry
from core.samplers import Query
from service.app import create_app
from service.cache.link import FAILURES
from service.cache.remote import HEAD, PREFIX, RedisStore
from service.metrics import Metrics
from service.negatives import Service
from service.settings import print_config
from tests.service.live import DIM, SAFE, pairs, publish, safe, settings_for
from tests.service.redis_server import Proxy, RedisServer

ROWS = 64
RECORD = 4 * (1 + 2 * DIM)


class Cached:
    """A running application that shares its laws in Redis."""

    def __init__(self, service: Service, client: httpx.AsyncClient) -> None:
        self.service, self._client = service, client

    @property
    def breaker(self) -> str:
        store = self.service.laws.store
        assert isinstance(store, RedisStore)
        return store.breaker.state

    def count(self, name: str, **labels: str) -> float:
        value = self.service.metrics.registry.get_sample_value(f"turnpoint_{name}", labels)
        return 0.0 if value is None else value

    def rows(self, result: str) -> float:
        return self.count("cache_requests_total", result=result)

    @property
    def written(self) -> float:
        results = ("stored", "failed", "dropped")
        return sum(self.count("cache_writes_total", result=result) for result in results)

    async def ask(self, seed: int = 0, n: int = 32) -> float:
        """One request; its seconds."""
        users, positives = pairs(ROWS, seed=seed)
        body, began = safe(users=users, positives=positives), time.monotonic()
        wanted = "returns=negatives&returns=distribution&returns=transition"
        answer = await self._client.post(f"/negatives?n={n}&{wanted}", content=body, headers=SAFE)
        took = time.monotonic() - began
        assert answer.status_code == 200, answer.text
        self._check(safetensors.torch.load(answer.content), users, positives)
        return took

    def _check(
        self, got: dict[str, torch.Tensor], users: torch.Tensor, positives: torch.Tensor
    ) -> None:
        model = self.service.models.live["demo"]
        sampler, _ = unpack(
            Registry(self.service.settings.registry.address).read("demo", model.version)
        )
        law = sampler.law(Query(users, positives, sampler.transition), torch.Generator())
        assert torch.equal(got["transition"], law.transition)
        assert torch.allclose(got["mean"], law.mean, rtol=1e-5, atol=1e-6)
        assert torch.allclose(got["std"], law.std, rtol=1e-5, atol=1e-6)
        z = (got["negatives"] - law.mean.unsqueeze(1)) / law.std.unsqueeze(1)
        # 32,768 numbers: 4.5 standard errors of mean and deviation.
        assert abs(z.mean()) < 0.025
        assert abs(z.std() - 1) < 0.018

    async def until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        for _ in range(int(seconds * 200)):
            if holds():
                return
            await asyncio.sleep(0.005)
        pytest.fail("it did not come about")

    async def ready(self) -> None:
        await self.until(lambda: self.breaker != "open")

    async def fill(self, seed: int = 0) -> None:
        """Have the laws of these pairs written."""
        before = self.count("cache_writes_total", result="stored")
        await self.ask(seed)
        await self.until(lambda: self.count("cache_writes_total", result="stored") == before + ROWS)

    async def hits(self, seed: int = 0) -> float:
        before = self.rows("hit")
        await self.ask(seed)
        return self.rows("hit") - before


Start = Callable[..., contextlib.AbstractAsyncContextManager[Cached]]


@pytest.fixture
def start(registry: Path) -> Start:
    @contextlib.asynccontextmanager
    async def begin(url: str, **redis_settings: float) -> AsyncIterator[Cached]:
        settings = settings_for(
            registry,
            cache={"mode": "on"},
            redis={"url": url, "timeout_ms": 500, "probe_seconds": 0.05, **redis_settings},
        )
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                yield Cached(app.state.service, client)

    return begin


def our_keys(server: RedisServer) -> list[bytes]:
    return sorted(server.admin.scan_iter(PREFIX + b"*"))  # type: ignore[type-var]


async def test_what_one_replica_computed_another_finds(
    start: Start, redis_server: RedisServer
) -> None:
    async with start(redis_server.url) as one, start(redis_server.url) as other:
        await one.ready()
        await other.ready()
        await one.fill()
        assert one.rows("miss") == ROWS
        assert await other.hits() == ROWS
        assert await other.hits() == ROWS
        assert await other.hits(seed=1) == 0
        assert other.breaker == "closed"
        assert other.count("redis_up") == 1
        assert other.count("cache_seconds_count") == 3
    for key in our_keys(redis_server):
        assert 3500 < redis_server.admin.ttl(key) <= 3600  # type: ignore[operator]


async def test_a_new_version_never_matches_an_old_law(
    start: Start, redis_server: RedisServer, registry: Path
) -> None:
    async with start(redis_server.url) as cached:
        await cached.ready()
        await cached.fill()
        version = publish(registry, seed=1)
        await cached.until(lambda: cached.service.models.live["demo"].version == version)
        assert await cached.hits() == 0


async def test_down_from_the_start_and_back_later(start: Start, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    try:
        async with start(server.url) as cached:
            for _ in range(5):
                await cached.ask()
            assert (cached.breaker, cached.rows("error")) == ("open", 5 * ROWS)
            assert cached.count("redis_up") == 0
            server.start()
            await cached.ready()
            await cached.fill()
            assert await cached.hits() == ROWS
            assert cached.count("redis_up") == 1
    finally:
        server.close()


async def test_killed_and_started_again_three_times(
    start: Start, redis_server: RedisServer
) -> None:
    async with start(redis_server.url) as cached:
        for _ in range(3):
            await cached.ready()
            await cached.fill()
            assert await cached.hits() == ROWS
            redis_server.stop()
            for _ in range(FAILURES + 2):
                await cached.ask()
            assert (cached.breaker, cached.count("redis_up")) == ("open", 0)
            redis_server.start()


async def test_flushed(start: Start, redis_server: RedisServer) -> None:
    async with start(redis_server.url) as cached:
        await cached.ready()
        await cached.fill()
        assert await cached.hits() == ROWS
        redis_server.admin.flushall()
        assert await cached.hits() == 0
        await cached.until(lambda: len(our_keys(redis_server)) == ROWS)
        assert await cached.hits() == ROWS
        assert cached.breaker == "closed"


async def test_answers_that_take_five_seconds_cost_a_few_time_outs_and_then_nothing(
    start: Start, proxy: Proxy
) -> None:
    async with start(proxy.url, timeout_ms=50) as cached:
        await cached.ready()
        await cached.fill()
        proxy.delay = 5.0
        took = [await cached.ask() for _ in range(FAILURES)]
        assert cached.breaker == "open"
        # Each waited for the time-out, none for the answer.
        assert all(0.05 <= seconds < 2 for seconds in took)
        errors = cached.rows("error")
        assert errors == FAILURES * ROWS
        for _ in range(10):
            await cached.ask()
        assert cached.rows("error") == errors + 10 * ROWS
        assert cached.breaker == "open"  # probes meet the same slowness
        proxy.delay = 0.0
        await cached.ready()
        await cached.until(lambda: cached.count("redis_up") == 1)


async def test_an_answer_drop_by_drop_is_not_waited_for(start: Start, proxy: Proxy) -> None:
    """Every byte arrives well within a socket's time-out, the whole answer within minutes."""
    async with start(proxy.url, timeout_ms=100) as cached:
        await cached.ready()
        await cached.fill()
        proxy.piece, proxy.delay = 1, 0.02
        for _ in range(FAILURES):
            assert await cached.ask() < 2
        assert (cached.breaker, cached.rows("error")) == ("open", FAILURES * ROWS)


async def test_a_paused_server_is_left_alone_until_it_answers(
    start: Start, redis_server: RedisServer
) -> None:
    async with start(redis_server.url, timeout_ms=50) as cached:
        await cached.ready()
        await cached.fill()
        redis_server.admin.client_pause(1500)  # type: ignore[no-untyped-call]
        for _ in range(FAILURES):
            await cached.ask()
        assert cached.breaker == "open"
        await cached.ready()
        await cached.until(lambda: cached.count("redis_up") == 1)


async def test_full_and_not_evicting(start: Start, redis_server: RedisServer) -> None:
    async with start(redis_server.url) as cached:
        await cached.ready()
        await cached.fill()
        redis_server.admin.config_set("maxmemory-policy", "noeviction")
        redis_server.admin.config_set("maxmemory", "1")
        for seed in range(1, 4):
            await cached.ask(seed)
        await cached.until(lambda: cached.count("cache_writes_total", result="failed") == 3 * ROWS)
        assert cached.breaker == "closed"  # what it holds it still tells
        assert await cached.hits(seed=0) == ROWS
        redis_server.admin.config_set("maxmemory", "0")
        await cached.fill(seed=5)


async def test_evicting(start: Start, redis_server: RedisServer) -> None:
    redis_server.admin.config_set("maxmemory-policy", "allkeys-lru")
    used = redis_server.admin.info("memory")["used_memory"]  # type: ignore[index]
    redis_server.admin.config_set("maxmemory", used + 200_000)
    async with start(redis_server.url) as cached:
        await cached.ready()
        for seed in [*range(20), 19]:
            written = cached.written
            misses = cached.rows("miss")
            await cached.ask(seed)
            missed = cached.rows("miss") - misses
            await cached.until(lambda: cached.written == written + missed)  # noqa: B023
        assert redis_server.admin.info("stats")["evicted_keys"] > 0  # type: ignore[index]
        assert cached.rows("hit") > 0
        assert cached.breaker == "closed"


@pytest.mark.parametrize("secret", ["wrong-secret", "right-secret"])
async def test_the_password(
    start: Start,
    redis_server: RedisServer,
    secret: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis_server.admin.config_set("requirepass", "right-secret")
    url = redis_server.url.replace("://", f"://:{secret}@")
    async with start(url) as cached:
        shown = print_config(cached.service.settings)
        if secret == "right-secret":
            await cached.ready()
            await cached.fill()
            assert await cached.hits() == ROWS
        else:
            await cached.until(lambda: "AuthenticationError" in caplog.text)
            for _ in range(FAILURES + 1):
                await cached.ask()
            assert (cached.breaker, cached.count("redis_up")) == ("open", 0)
            assert caplog.text.count("AuthenticationError") == 1  # said once, not every second
    assert secret not in shown + caplog.text


def spoiled(key: bytes, value: bytes, others: list[bytes]) -> dict[str, bytes]:
    """Ways in which a value can be no record of this key."""
    flipped = bytearray(value)
    flipped[HEAD.size + 7] ^= 1
    return {
        "random": torch.randint(0, 256, (len(value),), dtype=torch.uint8).numpy().tobytes(),
        "random record under a right head": value[: HEAD.size] + bytes(RECORD),
        "one bit flipped": bytes(flipped),
        "truncated": value[:-1],
        "longer": value + b"\0",
        "empty": b"",
        "no head": value[HEAD.size :],
        "another format": b"T2" + value[2:],
        "another key's": others[0],
        "text": b"not a law",
    }


@pytest.mark.parametrize("how", list(spoiled(b"", bytes(HEAD.size + RECORD), [b""])))
async def test_garbage_under_our_keys_is_counted_computed_and_mended(
    start: Start, redis_server: RedisServer, how: str
) -> None:
    admin = redis_server.admin
    async with start(redis_server.url) as cached:
        await cached.ready()
        await cached.fill()
        keys = our_keys(redis_server)
        values: list[bytes] = admin.mget(keys)  # type: ignore[assignment]
        for index, key in enumerate(keys):
            others = values[index - 1 :] or values
            admin.set(key, spoiled(key, values[index], others)[how], ex=100)
        stored = cached.count("cache_writes_total", result="stored")
        assert await cached.hits() == 0
        assert cached.rows("garbage") == ROWS
        assert cached.breaker == "closed"
        await cached.until(
            lambda: cached.count("cache_writes_total", result="stored") == stored + ROWS
        )
        assert await cached.hits() == ROWS
        assert admin.mget(keys) == values


async def test_another_type_under_our_keys(start: Start, redis_server: RedisServer) -> None:
    async with start(redis_server.url) as cached:
        await cached.ready()
        await cached.fill()
        for key in our_keys(redis_server):
            redis_server.admin.delete(key)
            redis_server.admin.rpush(key, b"a list")
        assert await cached.hits() == 0
        await cached.until(lambda: cached.count("cache_writes_total", result="stored") == 2 * ROWS)
        assert await cached.hits() == ROWS


async def test_the_test_would_see_a_wrong_law(start: Start, redis_server: RedisServer) -> None:
    """The negative control: records that pass for whole but are not the law fail `Cached.ask`."""
    async with start(redis_server.url) as cached:
        await cached.ready()
        await cached.fill()
        store = cached.service.laws.store
        keys = [key.removeprefix(PREFIX) for key in our_keys(redis_server)]
        wrong = b"\x19\0\0\0" + (0.5 * torch.ones(2 * DIM)).numpy().tobytes()
        store.put(keys, [wrong] * ROWS)
        await cached.until(lambda: cached.count("cache_writes_total", result="stored") == 2 * ROWS)
        with pytest.raises(AssertionError):
            await cached.ask()


async def test_something_that_is_no_redis(start: Start) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, start(f"redis://127.0.0.1:{port}/0") as cached:
        for _ in range(3):
            await cached.ask()
            await asyncio.sleep(0.1)
        assert (cached.breaker, cached.rows("error")) == ("open", 3 * ROWS)


async def test_writes_that_find_no_room_are_dropped_and_counted(
    start: Start, redis_server: RedisServer, proxy: Proxy
) -> None:
    async with start(proxy.url, timeout_ms=500) as cached:
        await cached.ready()
        await cached.fill()
        store = cached.service.laws.store
        proxy.delay = 0.2  # look-ups come in time, and answers to writes are slow
        for index in range(20):
            store.put([bytes([index]) * 16] * ROWS, [bytes(RECORD)] * ROWS)
        assert cached.count("cache_writes_total", result="dropped") >= 10 * ROWS
        await cached.until(lambda: cached.written == 21 * ROWS, seconds=20)


async def test_closing_does_not_wait_for_a_redis_that_hangs(start: Start, proxy: Proxy) -> None:
    async with start(proxy.url, timeout_ms=50) as cached:
        await cached.ready()
        await cached.fill()
        proxy.delay = 30.0
        await cached.ask(seed=1)
        began = time.monotonic()
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("url", ["redis://host:port/0", "redis://:pa/ss-secret@host/0"])
def test_an_address_without_sense_stops_the_start(registry: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="TURNPOINT_REDIS__URL") as refused:
        create_app(settings_for(registry, redis={"url": url}))
    assert "secret" not in str(refused.value)


def test_the_scheme_is_checked(registry: Path) -> None:
    with pytest.raises(ConfigError, match="TURNPOINT_REDIS__URL = http://"):
        settings_for(registry, redis={"url": "http://host"})


def test_an_unbound_store_reports_itself_down(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_for("nowhere", redis={"url": "redis://127.0.0.1:1/0"})
    store = RedisStore(settings.redis, 60, Metrics())
    assert store.up == 0
    assert store.get([b"k" * 16], RECORD) is None
    store.put([b"k" * 16], [bytes(RECORD)])
    store.close()
