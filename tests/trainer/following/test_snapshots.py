"""Snapshots as a source: passes, changes, resuming, and one worker a folder."""

import pytest
import safetensors.torch
import torch

from core.errors import ConfigError
from core.registry import Registry
from tests.trainer.following.world import CONFIG, MODEL, World
from trainer.encoders.external import Snapshot
from trainer.follow import follow
from trainer.following.metrics import FollowMetrics
from trainer.following.snapshots import SnapshotSource
from trainer.following.source import Entry

ROWS = 1000


def write(folder, world: World, *, pairs: bool = True) -> str:
    """Row i of users goes with row i of items; perhaps it says so itself."""
    users, items = world.rows(ROWS)
    rows = torch.arange(ROWS).unsqueeze(1).expand(ROWS, 2).contiguous()
    tensors = {"users": users, "items": items} | ({"train": rows} if pairs else {})
    file = folder / "e.safetensors"
    (folder / "draft").write_bytes(safetensors.torch.save(tensors))
    (folder / "draft").rename(file)
    return str(file)


def source(address: str, folder, labels=None, **changed) -> SnapshotSource:
    options = {"batch": 256, "passes": 2, "poll_seconds": 0.0, "sleep": lambda _: None}
    one = SnapshotSource(Snapshot(address), labels, MODEL, folder, **{**options, **changed})
    assert one.lead()
    one.begin([], "")
    return one


def read(one: SnapshotSource) -> list[Entry]:
    """Until nothing is left; the first look only remembers."""
    assert one.read() is None
    found = []
    while (entry := one.read()) is not None:
        found.append(entry)
    return found


def test_every_pair_comes_once_a_pass(tmp_path):
    world = World()
    one = source(write(tmp_path, world), tmp_path / "s")
    entries = read(one)
    assert [len(entry.pairs.users) for entry in entries] == [256, 256, 256, 232] * 2
    for part in (entries[:4], entries[4:]):
        rows = torch.cat([entry.pairs.users for entry in part])
        assert len(rows.unique(dim=0)) == ROWS
    assert not torch.equal(entries[0].pairs.users, entries[4].pairs.users)
    write(tmp_path, world)
    assert len(read(one)) == 8
    one.close()


def test_it_goes_on_where_the_state_ends(tmp_path):
    address = write(tmp_path, World())
    one = source(address, tmp_path / "s")
    entries = read(one)
    one.close()
    again = source(address, tmp_path / "s")
    again.begin([], entries[4].id)
    rest = read(again)
    assert [entry.id for entry in rest] == [entry.id for entry in entries[5:]]
    for ours, before in zip(rest, entries[5:], strict=True):
        assert torch.equal(ours.pairs.positives, before.pairs.positives)
    again.close()


def test_labels_choose_the_pairs(tmp_path, caplog):
    address = write(tmp_path, World(), pairs=False)
    one = source(address, tmp_path / "s", (["3", "5"], ["3", "5"]), passes=1)
    (entry,) = read(one)
    assert len(entry.pairs.users) == 2
    one.close()
    unknown = source(address, tmp_path / "s", (["3"], ["1000"]))
    assert read(unknown) == []
    assert "item '1000' is none of rows 0 to 999" in caplog.text
    unknown.close()
    nothing = source(address, tmp_path / "s")
    assert nothing.read() is None
    with pytest.raises(ConfigError, match="has no pairs; name a file of them: --data"):
        nothing.read()
    nothing.close()


def test_one_worker_a_folder(tmp_path):
    address = write(tmp_path, World())
    one = source(address, tmp_path / "s")
    other = SnapshotSource(
        Snapshot(address), None, MODEL, tmp_path / "s", batch=1, passes=1, poll_seconds=0.0
    )
    assert not other.lead()
    one.close()
    assert other.lead()
    other.close()


def test_a_snapshot_that_is_rotated_is_noticed_and_followed(tmp_path):
    world, metrics, registry = World(), FollowMetrics(), Registry(tmp_path / "r")

    def run(idle: float) -> None:
        one = source(str(tmp_path / "e.safetensors"), tmp_path / "s", passes=20)
        follow(one, registry, MODEL, CONFIG, tmp_path / "s", metrics=metrics, idle_seconds=idle)

    write(tmp_path, world)
    run(0.3)
    first = registry.live(MODEL)
    assert (
        registry.manifest(MODEL, first).metrics["loss_candidate"]
        < 0.9 * (registry.manifest(MODEL, first).metrics["loss_unconditional"])
    )
    world.rotate()
    write(tmp_path, world)
    run(0.3)
    value = metrics.registry.get_sample_value
    assert value("turnpoint_trainer_jumps_total") == 1
    second = registry.manifest(MODEL, registry.live(MODEL))
    assert second.version > first
    assert second.metrics["loss_candidate"] < 0.9 * second.metrics["loss_unconditional"]
