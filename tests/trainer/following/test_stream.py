"""The consumer group on a real Redis: who is given what, and what becomes of it in a fault."""

import time

import pytest

from core.errors import ConfigError
from core.pairs import encode, stream_key
from tests.service.redis_server import RedisServer, redis_server  # noqa: F401
from tests.trainer.following.world import MODEL, World
from trainer.following.source import Entry
from trainer.following.stream import GROUP, StreamSource

KEY = stream_key(MODEL)


def source(server: RedisServer, lease: float = 0.6) -> StreamSource:
    one = StreamSource(server.url, MODEL, lease, sleep=lambda seconds: time.sleep(seconds / 10))
    one.begin([], "")
    return one


def leading(server: RedisServer, lease: float = 0.6) -> StreamSource:
    one = source(server, lease)
    assert one.lead()
    return one


def read(one: StreamSource, count: int) -> list[Entry]:
    """So many entries; fails if they do not come."""
    found: list[Entry] = []
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline, found
        entry = one.read()
        found += [entry] if entry else []
    return found


def pending(server: RedisServer) -> int:
    return server.admin.xpending(KEY, GROUP)["pending"]


def test_what_was_there_before_and_what_comes_is_read_in_order(redis_server):  # noqa: F811
    world = World()
    world.send(redis_server.admin, 20)
    one = leading(redis_server)
    entries = read(one, 20)
    world.send(redis_server.admin, 3)
    entries += read(one, 3)
    ids = [entry.id for entry in entries]
    assert ids == [name.decode() for name, _ in redis_server.admin.xrange(KEY)]
    assert not any(entry.redelivered or entry.fault for entry in entries)
    assert pending(redis_server) == 23
    one.settle(ids)
    assert pending(redis_server) == 0
    one.close()


def test_one_leads_and_another_takes_over_what_was_not_settled(redis_server):  # noqa: F811
    World().send(redis_server.admin, 40)
    first, second = leading(redis_server), source(redis_server)
    assert not second.lead()
    entries = read(first, 30)
    first.settle([entry.id for entry in entries[:10]])
    deadline = time.monotonic() + 10
    while not second.lead():  # the first is as good as dead: it does not renew
        assert time.monotonic() < deadline
    found = read(second, 30)
    assert [entry.id for entry in found[:20]] == [entry.id for entry in entries[10:]]
    assert all(entry.redelivered for entry in found[:20])
    assert {entry.id for entry in found} | {entry.id for entry in entries[:10]} == {
        name.decode() for name, _ in redis_server.admin.xrange(KEY)
    }
    assert len(found) == len({entry.id for entry in found})
    assert not first.lead()  # and it learns that it was replaced
    second.settle([entry.id for entry in found])
    assert pending(redis_server) == 0
    names = [one["name"] for one in redis_server.admin.xinfo_consumers(KEY, GROUP)]
    assert names == [second.consumer.encode()]
    for one in (first, second):
        one.close()


def test_given_back_is_free_at_once(redis_server):  # noqa: F811
    first, second = leading(redis_server, 60.0), source(redis_server, 60.0)
    assert not second.lead()
    first.close()
    assert second.lead()
    second.close()


def test_what_the_state_has_is_settled_and_not_given_again(redis_server):  # noqa: F811
    World().send(redis_server.admin, 10)
    first = leading(redis_server)
    ids = [entry.id for entry in read(first, 10)]
    first.close()  # as if killed between saving 6 of them and settling
    second = leading(redis_server)
    second.begin(ids[:6], ids[5])
    assert [entry.id for entry in read(second, 4)] == ids[6:]
    assert pending(redis_server) == 4
    second.close()


def test_redis_away_is_waited_for_and_a_lost_group_made_anew(redis_server):  # noqa: F811
    world = World()
    world.send(redis_server.admin, 3)
    one = leading(redis_server, 30.0)
    before = read(one, 3)
    redis_server.stop()
    assert one.read() is None
    assert not one.up
    one.settle([entry.id for entry in before])  # cannot be told now
    assert len(one.waiting) == 3
    redis_server.start()  # empty
    world.send(redis_server.admin, 4)
    after = read(one, 4)
    assert one.up
    assert not one.waiting
    assert {entry.id for entry in after}.isdisjoint(entry.id for entry in before)
    assert not one.lead() or one.lead()  # the lease is gone with Redis; asking is no error
    one.close()


def test_garbage_and_what_fell_out_are_told_apart(redis_server):  # noqa: F811
    world = World()
    redis_server.admin.xadd(KEY, {"schema": "9"})
    fields = encode(world.pairs(4))
    redis_server.admin.xadd(KEY, {**fields, b"users": fields[b"users"][:-1]})
    world.send(redis_server.admin, 2)
    first = leading(redis_server)
    schema, short, good, _ = read(first, 4)
    assert "schema b'9'" in schema.fault
    assert "users has" in short.fault
    assert good.pairs is not None
    assert not any(entry.lost for entry in (schema, short, good))
    first.close()
    redis_server.admin.xtrim(KEY, maxlen=1, approximate=False)
    second = leading(redis_server)
    found = read(second, 1)
    deadline = time.monotonic() + 5
    while not all(entry.lost for entry in found[:-1]) or found[-1].pairs is None:
        assert time.monotonic() < deadline
        found += [entry for entry in [second.read()] if entry]
    assert found[-1].redelivered
    second.close()


def test_an_address_that_makes_no_sense_is_one_line():
    with pytest.raises(ConfigError, match=r"--redis: .*redis://host:6379/0"):
        StreamSource("http://host", MODEL, 1.0)
