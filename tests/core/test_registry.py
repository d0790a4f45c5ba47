import itertools
import os

import pytest

from core.checkpoint import pack, unpack
from core.errors import CheckpointCorruptError, CheckpointMissingError, ConfigError
from core.registry import Registry
from core.stores import LocalStore
from tests.core.samplers.test_adar import make_sampler

_counter = itertools.count()


@pytest.fixture(params=["local", "remote"])
def registry(request, tmp_path) -> Registry:
    if request.param == "local":
        return Registry(tmp_path / "registry")
    return Registry(f"memory://registry-{next(_counter)}")


def test_an_empty_registry_has_nothing(registry):
    assert registry.models() == []
    assert registry.versions("demo") == []
    assert registry.live("demo") is None


def test_publish_makes_live_and_keeps_the_old(registry):
    first = registry.publish("demo", pack(make_sampler(), metrics={"recall@20": 0.1}))
    second = registry.publish("demo", pack(make_sampler(num_steps=10)))
    assert registry.models() == ["demo"]
    assert registry.versions("demo") == [first, second]
    assert registry.live("demo") == second
    assert registry.manifest("demo", first).metrics == {"recall@20": 0.1}
    sampler, _ = unpack(registry.read("demo", second))
    assert sampler.num_steps == 10
    registry.set_live("demo", first)
    assert registry.live("demo") == first


def test_the_same_version_is_never_overwritten(registry):
    packed = pack(make_sampler())
    registry.publish("demo", packed)
    with pytest.raises(FileExistsError):
        registry.publish("demo", packed)


def test_a_bad_checkpoint_is_not_published(registry):
    packed = pack(make_sampler())
    with pytest.raises(CheckpointCorruptError):
        registry.publish("demo", type(packed)(packed.weights[:-1], packed.manifest))
    assert registry.versions("demo") == []
    assert registry.live("demo") is None


def test_missing_versions_are_named(registry):
    version = registry.publish("demo", pack(make_sampler()))
    for action in (registry.read, registry.manifest, registry.set_live):
        with pytest.raises(CheckpointMissingError, match=f"no version 'v0'.*latest: {version}"):
            action("demo", "v0")
    assert registry.live("demo") == version


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../../etc", "a" * 129, "é", "a\n"])
def test_names_cannot_climb_out(registry, name):
    for action in (registry.versions, registry.live):
        with pytest.raises(ConfigError, match="is no model or version name"):
            action(name)
    with pytest.raises(ConfigError, match="is no model or version name"):
        registry.read("demo", name)


def test_a_version_without_manifest_is_none(registry):
    registry.publish("demo", pack(make_sampler()))
    registry.store.create("demo/half", {"model.safetensors": b"x"})
    assert len(registry.versions("demo")) == 1
    with pytest.raises(CheckpointMissingError):
        registry.set_live("demo", "half")


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    store = LocalStore(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.create("demo/v1", {"a": b"1"})
    assert store.folders("demo") == []
    assert list((tmp_path / "demo").iterdir()) == []


def test_pruning_keeps_the_latest_and_the_live_one(registry):
    versions = [registry.publish("demo", pack(make_sampler())) for _ in range(5)]
    registry.set_live("demo", versions[1])  # rolled back, or pinned
    assert registry.prune("demo", keep=2) == [versions[0], versions[2]]
    assert registry.versions("demo") == [versions[1], *versions[3:]]
    assert registry.live("demo") == versions[1]
    unpack(registry.read("demo", versions[1]))
    registry.set_live("demo", versions[4])
    assert registry.prune("demo", keep=1) == [versions[1], versions[3]]
    with pytest.raises(ConfigError, match="keep = 0"):
        registry.prune("demo", keep=0)


def test_a_roll_back_while_pruning_is_seen(registry, monkeypatch):
    versions = [registry.publish("demo", pack(make_sampler())) for _ in range(4)]
    remove = registry.store.remove

    def roll_back_then_remove(path, files):
        remove(path, files)
        registry.set_live("demo", versions[1])

    monkeypatch.setattr(registry.store, "remove", roll_back_then_remove)
    assert registry.prune("demo", keep=1) == [versions[0], versions[2]]


def test_drafts_of_a_killed_publisher_are_swept_once_they_are_old(tmp_path):
    registry = Registry(tmp_path)
    version = registry.publish("demo", pack(make_sampler()))
    folder = tmp_path / "demo"
    (folder / f".{version}.0a1b2c3d").mkdir()
    (folder / f".{version}.0a1b2c3d" / "model.safetensors").write_bytes(b"half")
    (folder / ".LATEST.0a1b2c3d").write_bytes(b"")
    (folder / ".follow").mkdir()  # somebody's own, no draft
    assert registry.prune("demo", keep=1) == []
    os.utime(folder / ".LATEST.0a1b2c3d", (0, 0))
    assert registry.prune("demo", keep=1) == [".LATEST.0a1b2c3d"]
    assert registry.prune("demo", keep=1, drafts_older=-1.0) == [f".{version}.0a1b2c3d"]
    assert sorted(p.name for p in folder.iterdir()) == [".follow", version, "LATEST"]
