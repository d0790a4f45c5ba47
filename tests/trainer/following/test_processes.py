"""`turnpoint follow` as processes on a real Redis: kills, a Redis that goes, other encoders."""

import json
import time

import pytest
from safetensors import safe_open

from core.registry import Registry
from tests.service.redis_server import RedisServer, redis_server  # noqa: F401
from tests.trainer.following.processes import following
from tests.trainer.following.world import MODEL, World
from trainer.following.state import STATE_FILE

pytestmark = pytest.mark.timeout(400)  # each starts some processes that import torch


def rows_in_state(folder) -> int:
    """Fresh rows that the saved state has seen, over all workers that wrote it."""
    with safe_open(folder / "registry" / MODEL / ".follow" / STATE_FILE, framework="pt") as state:
        return json.loads(state.metadata()["record"])["learner"]["counts"]["rows"]


def test_one_of_two_is_killed_and_every_row_is_learnt_once(redis_server, tmp_path):  # noqa: F811
    """They share the state: what was saved is not learnt again, what was not is."""
    world, sent = World(), 0
    redis = ("--redis", redis_server.url)
    with following(tmp_path, "a", *redis) as first, following(tmp_path, "b", *redis) as second:
        first.wait_for(lambda: first.metrics()["leading"] + second.metrics()["leading"] == 1)
        leader, other = (first, second) if first.metrics()["leading"] else (second, first)
        other.wait_for(lambda: "standing by" in other.log)
        for _ in range(30):
            world.send(redis_server.admin, 10)
            sent += 640
            time.sleep(0.02)
        both = (first, second)  # on a busy machine the lease may have gone to the other meanwhile
        first.wait_for(lambda: sum(one.metrics()["publish_totalok"] for one in both) >= 1)
        first.wait_for(lambda: first.metrics()["leading"] + second.metrics()["leading"] == 1)
        leader, other = both if first.metrics()["leading"] else (second, first)
        world.send(redis_server.admin, 100)
        sent += 6400
        before = Registry(tmp_path / "registry").live(MODEL)
        leader.kill()
        assert Registry(tmp_path / "registry").live(MODEL) >= before
        world.send(redis_server.admin, 100)
        sent += 6400
        other.wait_for(lambda: rows_in_state(tmp_path) == sent)
        assert "goes on from the state" in other.log
        redelivered = other.metrics()["redelivered_total"]
        assert other.metrics()["entries_totallost"] == 0
        other.wait_for(lambda: other.metrics()["publish_totalok"] >= 1)
    assert rows_in_state(tmp_path) == sent
    assert redis_server.admin.xpending(f"turnpoint:pairs:{MODEL}", "follow")["pending"] == 0
    print(f"{redelivered:.0f} entries redelivered")


def test_killed_at_any_time_it_goes_on_without_loss(redis_server, tmp_path):  # noqa: F811
    world, sent = World(), 0
    for kill_after in (0.05, 0.37):
        with following(tmp_path, "one", "--redis", redis_server.url) as one:
            one.wait_for(lambda one=one: one.metrics()["leading"] == 1)
            world.send(redis_server.admin, 80)
            sent += 80 * 64
            time.sleep(kill_after)
            one.kill()
    with following(tmp_path, "last", "--redis", redis_server.url) as last:
        last.wait_for((tmp_path / "registry" / MODEL / ".follow" / STATE_FILE).exists)
        last.wait_for(lambda: rows_in_state(tmp_path) == sent)
        last.wait_for(lambda: Registry(tmp_path / "registry").live(MODEL))


def test_a_worker_with_a_state_of_its_own_counts_what_it_was_given_again(
    redis_server,  # noqa: F811
    tmp_path,
):
    """At least once: the dead one's unsettled entries are claimed, and counted."""
    world = World()
    redis = ("--redis", redis_server.url, "--save-every", "1000")
    with following(tmp_path, "a", *redis, "--state", tmp_path / "a") as first:
        world.send(redis_server.admin, 200)
        first.wait_for(lambda: first.metrics()["fresh_pairs_total"] >= 100 * 64)
        first.kill()  # while it reads, so that it has not saved at a pause
    settled = 200 - redis_server.admin.xpending(f"turnpoint:pairs:{MODEL}", "follow")["pending"]
    with following(tmp_path, "b", *redis, "--state", tmp_path / "b") as second:
        second.wait_for(lambda: second.metrics()["entries_totallearnt"] >= 200 - settled)
        found = second.metrics()
        assert found["redelivered_total"] <= found["entries_totallearnt"]
        assert found["redelivered_total"] > 0
        assert found["fresh_pairs_total"] == found["entries_totallearnt"] * 64


def test_redis_goes_and_comes_back(redis_server, tmp_path):  # noqa: F811
    world = World()
    with following(tmp_path, "one", "--redis", redis_server.url) as one:
        world.send(redis_server.admin, 50)
        one.wait_for(lambda: one.metrics()["fresh_pairs_total"] == 50 * 64)
        redis_server.stop()
        one.wait_for(lambda: one.metrics()["source_up"] == 0)
        time.sleep(2)  # longer than the lease
        redis_server.start()
        world.send(redis_server.admin, 50)
        one.wait_for(lambda: one.metrics()["fresh_pairs_total"] == 100 * 64)
        assert one.metrics()["source_up"] == 1
        assert "waiting for it" in one.log
        assert "Redis is back" in one.log


def test_another_dimension_is_refused_and_told_and_a_rotation_too(
    redis_server,  # noqa: F811
    tmp_path,
):
    world = World()
    with following(tmp_path, "one", "--redis", redis_server.url) as one:
        world.send(redis_server.admin, 150)
        one.wait_for(lambda: one.metrics()["publish_totalok"] >= 1)
        one.wait_for(lambda: one.metrics()["fresh_pairs_total"] == 150 * 64)
        live = Registry(tmp_path / "registry").live(MODEL)
        World(dim=12).send(redis_server.admin, 20)
        one.wait_for(lambda: one.metrics()["entries_totalrefused"] == 20)
        assert one.log.count("pairs of dimension 12, this model has 8") == 1
        assert "under a new name" in one.log
        assert one.metrics()["jumps_total"] == 0
        world.rotate()
        world.send(redis_server.admin, 20)
        one.wait_for(lambda: one.metrics()["jumps_total"] == 1)
        assert "the embedding space has changed" in one.log
        world.send(redis_server.admin, 100)
        one.wait_for(lambda: Registry(tmp_path / "registry").live(MODEL) > live)
        assert one.metrics()["held_out_losslive"] > 0


def test_an_untrained_model_is_there_at_once_and_versions_are_pruned(
    redis_server,  # noqa: F811
    tmp_path,
):
    registry, world = Registry(tmp_path / "registry"), World()
    options = ("--redis", redis_server.url, "--dim", "8", "--keep", "2", "--publish-every", "10")
    with following(tmp_path, "one", *options) as one:
        one.wait_for(lambda: registry.live(MODEL))
        assert registry.manifest(MODEL, registry.live(MODEL)).dim == 8
        for _ in range(40):
            world.send(redis_server.admin, 5)
            time.sleep(0.02)
        one.wait_for(lambda: one.metrics()["publish_totalok"] >= 4)
        one.wait_for(lambda: len(registry.versions(MODEL)) == 2)
        assert registry.live(MODEL) in registry.versions(MODEL)
        one.wait_for(lambda: rows_in_state(tmp_path) == 40 * 5 * 64)  # nothing is under way
        # ---- somebody rolls back: it learns on, and publishes nothing over that --------------
        older = registry.versions(MODEL)[0]
        registry.set_live(MODEL, older)
        world.rotate()
        world.send(redis_server.admin, 60)
        one.wait_for(lambda: "was made live in place of" in one.log)
        one.wait_for(lambda: one.metrics()["publish_totalheld"] >= 1)
        assert registry.live(MODEL) == older
