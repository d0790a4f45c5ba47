"""The stream of pairs, in a real Redis: what arrives is what was asked, and no request notices."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import torch
from torch import Tensor

from core.errors import ConfigError
from core.pairs import Pairs, decode, stream_key
from service.app import create_app
from service.codecs import Inputs
from service.negatives import Service
from service.stream import PairStream
from tests.service.live import (
    JSON,
    OCTET,
    SAFE,
    as_json,
    octet,
    pairs,
    publish,
    safe,
    settings_for,
)
from tests.service.redis_server import RedisServer, proxy, redis_server

__all__ = ["proxy", "redis_server"]


class Streaming:
    """A running application and what it put on the streams."""

    def __init__(self, service: Service, client: httpx.AsyncClient, server: RedisServer) -> None:
        self.service, self.client, self.server = service, client, server

    async def ask(self, rows: int = 8, seed: int = 0, **params: str) -> tuple[Tensor, Tensor]:
        """A request that must be answered; what it asked about."""
        users, positives = pairs(rows, seed=seed)
        answer = await self.client.post(
            "/negatives", content=octet(users, positives), headers=OCTET, params=params
        )
        assert answer.status_code == 200, answer.text
        return users, positives

    def count(self, name: str, **labels: str) -> float:
        value = self.service.metrics.registry.get_sample_value(f"turnpoint_{name}", labels)
        assert value is not None
        return value

    def entries(self, model: str = "demo") -> list[Pairs]:
        return [decode(fields) for _, fields in self.server.admin.xrange(stream_key(model))]

    async def until(self, true: Callable[[], bool], seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, "it did not come to pass"
            await asyncio.sleep(0.01)

    async def ready(self) -> None:
        """Until Redis was found."""
        stream = self.service.stream
        assert stream is not None
        await self.until(lambda: stream._link.breaker.lets_through)

    async def written(self, rows: int) -> None:
        await self.until(lambda: self.count("stream_pairs_total") == rows)


@contextlib.asynccontextmanager
async def streaming(
    registry: Path, server: RedisServer, url: str | None = None, **stream: float
) -> AsyncIterator[Streaming]:
    """An application that streams, share 1, entries of 8 rows."""
    settings = settings_for(
        registry,
        redis={"url": url or server.url, "probe_seconds": 0.05},
        stream={"share": 1.0, "entry_rows": 8, **stream},
        cache={"mode": "off"},
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            one = Streaming(app.state.service, client, server)
            if settings.stream.share:
                await one.ready()
            yield one


def same(entry: Pairs, users: Tensor, positives: Tensor) -> bool:
    """Within float16."""
    return all(
        torch.allclose(got, sent, rtol=2.0**-10, atol=1e-6)
        for got, sent in ((entry.users, users), (entry.positives, positives))
    )


async def test_what_was_asked_arrives(registry: Path, redis_server: RedisServer) -> None:
    began = time.time()
    async with streaming(registry, redis_server) as one:
        asked = [await one.ask(seed=seed) for seed in range(5)]
        await one.written(40)
        entries = one.entries()
        live = one.service.models.live["demo"]
    assert [(entry.model, entry.version) for entry in entries] == [("demo", live.version)] * 5
    assert all(began <= entry.at <= time.time() for entry in entries)
    assert all(same(entry, *sent) for entry, sent in zip(entries, asked, strict=True))
    assert not same(entries[0], *asked[1])


@pytest.mark.parametrize("headers", [SAFE, JSON])
async def test_every_format_is_streamed_and_no_id_is(
    registry: Path, redis_server: RedisServer, headers: dict[str, str]
) -> None:
    users, positives = pairs(8)
    ids = torch.arange(8) + 987_654_321
    make = safe if headers is SAFE else as_json
    async with streaming(registry, redis_server) as one:
        body = make(users=users, positives=positives, user_ids=ids)
        answer = await one.client.post("/negatives", content=body, headers=headers)
        assert answer.status_code == 200
        await one.written(8)
        (entry,) = one.entries()
        ((_, fields),) = redis_server.admin.xrange(stream_key("demo"))
    assert same(entry, users, positives)
    assert set(fields) == {
        *(b"schema", b"model", b"version", b"at", b"rows", b"dim"),
        *(b"users", b"positives", b"users_scale", b"positives_scale"),
    }


async def test_half_precision_is_streamed(registry: Path, redis_server: RedisServer) -> None:
    users, positives = (array.bfloat16() for array in pairs(8))
    async with streaming(registry, redis_server) as one:
        body = safe(users=users, positives=positives)
        assert (await one.client.post("/negatives", content=body, headers=SAFE)).is_success
        await one.written(8)
        (entry,) = one.entries()
    assert same(entry, users.float(), positives.float())


async def test_off_by_default(registry: Path, redis_server: RedisServer) -> None:
    async with streaming(registry, redis_server, share=0.0) as one:
        for _ in range(3):
            await one.ask()
        assert one.service.stream is None
        assert one.count("stream_pairs_total") == 0
    assert redis_server.admin.dbsize() == 0


async def test_only_the_share_is_copied(registry: Path, redis_server: RedisServer) -> None:
    """Of 400 requests at 0.25: 100, standard deviation 8.7; six of them either way."""
    async with streaming(registry, redis_server, share=0.25, entry_rows=1) as one:
        for _ in range(400):
            await one.ask(1)
        stream = one.service.stream
        assert stream is not None
        await one.until(lambda: stream._taken == stream._released)
        assert 48 <= one.count("stream_pairs_total") <= 152


async def test_small_requests_share_an_entry(registry: Path, redis_server: RedisServer) -> None:
    """Full at 8 rows, or after a second."""
    async with streaming(registry, redis_server) as one:
        asked = [await one.ask(3, seed) for seed in range(3)]
        await one.written(9)
        first, second = one.entries()
    users, positives = (torch.cat(parts) for parts in zip(*asked, strict=True))
    assert same(first, users[:6], positives[:6])
    assert same(second, users[6:], positives[6:])


async def test_of_a_large_request_rows_from_everywhere_are_taken(
    registry: Path, redis_server: RedisServer
) -> None:
    async with streaming(registry, redis_server, entry_rows=16) as one:
        for _ in range(40):
            users, _ = await one.ask(64)
        await one.written(40 * 16)
        taken = torch.cat([entry.users for entry in one.entries()])
    matches = (taken[:, None] - users[None]).abs().sum(-1).argmin(1).bincount(minlength=64)
    assert all(len(entry.users) == 16 for entry in one.entries())
    assert (matches > 0).all()  # each is left out with probability 0.75^40 = 1e-5


async def test_what_was_refused_is_not_streamed(registry: Path, redis_server: RedisServer) -> None:
    async with streaming(registry, redis_server) as one:
        users, positives = pairs(8)
        users[3, 2] = torch.nan
        answer = await one.client.post("/negatives", content=octet(users, positives), headers=OCTET)
        assert answer.status_code == 422
        assert (await one.client.post("/negatives", content=b"x", headers=OCTET)).is_client_error
        await one.ask()
        await one.written(8)
        assert len(one.entries()) == 1


async def test_rows_that_float16_cannot_carry_are_counted(
    registry: Path, redis_server: RedisServer
) -> None:
    async with streaming(registry, redis_server) as one:
        users, positives = pairs(8)
        body = octet(users * 1e-35, positives)
        assert (await one.client.post("/negatives", content=body, headers=OCTET)).is_success
        await one.until(lambda: one.count("stream_dropped_total", reason="refused") == 8)
        await one.ask()
        await one.written(8)


async def test_models_have_streams_of_their_own(registry: Path, redis_server: RedisServer) -> None:
    publish(registry, seed=1, model="other")
    async with streaming(registry, redis_server) as one:
        first = await one.ask(seed=1, model="demo")
        second = await one.ask(seed=2, model="other")
        await one.written(16)
        ((one_entry,), (other_entry,)) = (one.entries(name) for name in ("demo", "other"))
    assert same(one_entry, *first)
    assert same(other_entry, *second)
    assert other_entry.model == "other"


async def test_an_entry_has_one_version(registry: Path, redis_server: RedisServer) -> None:
    async with streaming(registry, redis_server) as one:
        old = one.service.models.live["demo"].version
        new = publish(registry, seed=1)
        await one.until(lambda: one.service.models.live["demo"].version == new)
        for version in (old, new):
            await one.ask(4, version=version)
        await one.written(8)
        assert sorted(entry.version for entry in one.entries()) == sorted([old, new])


async def test_no_request_fails_while_redis_is_gone_and_it_goes_on_after(
    registry: Path, redis_server: RedisServer
) -> None:
    async with streaming(registry, redis_server) as one:
        await one.ask()
        await one.written(8)
        redis_server.stop()
        for _ in range(20):
            await one.ask()
        stream = one.service.stream
        assert stream is not None
        await one.until(lambda: stream._taken == stream._released)
        assert one.count("stream_dropped_total", reason="redis") == 160
        assert not stream._link.breaker.lets_through
        redis_server.start()
        await one.ready()
        users, positives = await one.ask(seed=5)
        await one.written(16)
        (entry,) = one.entries()
    assert same(entry, users, positives)


async def test_a_redis_that_does_not_take_it_costs_no_request(
    registry: Path, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with streaming(registry, redis_server) as one:
        redis_server.admin.set(stream_key("demo"), b"no stream")
        for _ in range(3):
            await one.ask()
        await one.until(lambda: one.count("stream_dropped_total", reason="redis") == 24)
        redis_server.admin.delete(stream_key("demo"))
        await one.ask()
        await one.written(8)
    told = [line for line in caplog.messages if line.startswith("the stream's Redis")]
    assert ["answers" in told[0], "WRONGTYPE" in told[1], "answers" in told[2]] == [True] * 3
    assert len(told) == 3


async def test_what_finds_no_room_is_dropped_and_counted(
    registry: Path, redis_server: RedisServer
) -> None:
    """A writing thread that stands still; 1 MiB of references, 128 KiB a request."""
    async with streaming(registry, redis_server, entry_rows=1024, queue_bytes=2**20) as one:
        redis_server.admin.client_pause(600)
        for _ in range(12):
            await one.ask(1024)
        stream = one.service.stream
        assert stream is not None
        assert stream._taken - stream._released <= 2**20
        await one.until(lambda: stream._taken == stream._released)
        assert one.count("stream_dropped_total", reason="queue") == 4 * 1024
        await one.ask(1024)
        await one.until(lambda: stream._taken == stream._released)
        assert one.count("stream_dropped_total", reason="queue") == 4 * 1024


@pytest.mark.parametrize("rows", [[64], [1], [1, 64, 7]])
async def test_redis_stays_below_the_bound(
    registry: Path, redis_server: RedisServer, rows: list[int]
) -> None:
    """By Redis's own measure of the key, and of all its memory."""
    bound = 2**20
    async with streaming(registry, redis_server, max_bytes=bound, entry_rows=64) as one:
        stream = one.service.stream
        assert stream is not None
        before = redis_server.admin.info("memory")["used_memory"]
        users, positives = pairs(64)
        model = one.service.models.live["demo"]
        most, sent = 0, 0
        for index in range(1500):
            size = rows[index % len(rows)]
            stream._take(model, Inputs(users[:size], positives[:size]), 0)
            stream.flush()
            sent += size
            if index % 60 == 59:
                await one.written(sent)
                usage = redis_server.admin.memory_usage(stream_key("demo"), samples=0)
                most = max(most, usage)
        after = redis_server.admin.info("memory")["used_memory"]
        entries = redis_server.admin.xlen(stream_key("demo"))
    assert most <= bound
    assert after - before <= bound
    assert entries < 1500, "the bound was never reached"


def test_an_entry_of_any_dimension_fits_into_the_bound(
    registry: Path, redis_server: RedisServer
) -> None:
    settings = settings_for(
        registry,
        redis={"url": redis_server.url},
        stream={"share": 1.0, "max_bytes": 2**20, "entry_rows": 10_000},
    )
    stream = create_app(settings).state.service.stream
    assert isinstance(stream, PairStream)
    for dim in (1, 64, 4096):
        entry = 4 * dim * stream._most_rows(dim)
        assert 1 <= stream._most_entries(dim) * entry <= 2**20
        assert stream._most_entries(dim) >= 6


def test_a_share_without_a_redis_stops_the_start(registry: Path) -> None:
    with pytest.raises(ConfigError, match=r"STREAM__SHARE = 0\.1 without a Redis"):
        settings_for(registry, stream={"share": 0.1})
    with pytest.raises(ConfigError, match=r"TURNPOINT_STREAM__SHARE = 1\.5"):
        settings_for(registry, redis={"url": "redis://h"}, stream={"share": 1.5})
