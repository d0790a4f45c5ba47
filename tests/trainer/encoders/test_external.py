"""Encoders that are somebody else's: entry points, tables, exported modules."""

import itertools
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import nn

from core.errors import ConfigError, DataError
from tests.trainer.test_cotrain import data  # noqa: F401
from trainer.defaults import config_for
from trainer.encoders import MF, make
from trainer.encoders.external import Snapshot
from trainer.encoders.external.tables import read_tables
from trainer.pipeline import Outputs, train

_counter = itertools.count()
U, NUM_ITEMS, D = 30, 20, 4

SOURCE = """
from trainer.encoders import MF


def factory(interactions, dim, generator):
    return MF(interactions.num_users, interactions.num_items, dim, generator=generator)


def other_dim(interactions, dim, generator):
    return MF(interactions.num_users, interactions.num_items, dim + 1, generator=generator)


def failing(interactions, dim, generator):
    raise RuntimeError("the tower is down")


def no_encoder(interactions, dim, generator):
    return object()


number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch) -> str:
    name = f"their_module_{next(_counter)}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_an_entry_point_trains_as_the_same_encoder_by_name(module, data):  # noqa: F811
    name = f"external:{module}:factory"
    config = config_for(name, method="adar", epochs=2, dim=8)
    theirs = train(data, config, Outputs())
    ours = train(data, config_for("mf", method="adar", epochs=2, dim=8, l2=config.l2), Outputs())
    assert theirs.report["test"] == ours.report["test"]
    assert isinstance(theirs.run.encoder, MF)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("external:nonsense", "write external:module:factory"),
        ("external::factory", "write external:module:factory"),
        ("external:no.such.module:factory", "cannot import 'no.such.module'"),
        ("external:{module}:nothing", "has nothing called 'nothing'"),
        ("external:{module}:number", "is a int; it must be a function"),
        ("external:{module}:failing", "RuntimeError: the tower is down"),
        ("external:{module}:no_encoder", "it has no dim, encode, .*penalty.*tables"),
        ("external:{module}:other_dim", "dimension 9, 8 was asked for.*--dim 9"),
    ],
)
def test_an_entry_point_that_cannot_work_is_told_why(module, data, name, told):  # noqa: F811
    with pytest.raises(ConfigError, match=told):
        make(name.format(module=module), data, 8, 0)


def tables(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(U, D, generator=generator), torch.randn(NUM_ITEMS, D, generator=generator)


def write(folder, form: str, users: torch.Tensor, items: torch.Tensor) -> str:
    if form == "safetensors":
        safetensors.torch.save_file({"users": users, "items": items}, folder / "e.safetensors")
        return str(folder / "e.safetensors")
    for name, table in (("users", users), ("items", items)):
        if form == "npy":
            np.save(folder / f"{name}.npy", table.numpy())
        else:
            rows = {"id": [f"{name[0]}{i}" for i in range(len(table))], "embedding": table.tolist()}
            pq.write_table(pa.table(rows), folder / f"{name}.parquet")
    return str(folder)


def looked(snapshot: Snapshot):
    """A first look remembers, a second reads."""
    assert snapshot.look() is None
    return snapshot.look()


@pytest.mark.parametrize("form", ["safetensors", "npy", "parquet"])
def test_each_form_gives_the_rows_of_its_labels(form, tmp_path):
    users, items = tables()
    found = looked(Snapshot(write(tmp_path, form, users, items)))
    prefix = ("u", "i") if form == "parquet" else ("", "")
    pairs = found.locate([f"{prefix[0]}3", f"{prefix[0]}29"], [f"{prefix[1]}19", f"{prefix[1]}0"])
    assert pairs.tolist() == [[3, 19], [29, 0]]
    e_u, e_i = found.embed(pairs)
    torch.testing.assert_close(e_u, users[[3, 29]])
    torch.testing.assert_close(e_i, items[[19, 0]])
    with pytest.raises(DataError, match="pair 2: user '99' is none of"):
        found.locate([f"{prefix[0]}3", "99"], [f"{prefix[1]}0"] * 2)


def test_it_is_read_again_when_it_has_changed_and_settled(tmp_path):
    address = write(tmp_path, "safetensors", *tables(0))
    snapshot = Snapshot(address)
    assert looked(snapshot) is not None
    assert snapshot.look() is None
    write(tmp_path, "safetensors", *tables(1))
    again = looked(snapshot)
    torch.testing.assert_close(again.embed(torch.tensor([[0, 0]]))[0], tables(1)[0][:1])


@pytest.mark.parametrize("form", ["safetensors", "npy", "parquet"])
def test_a_half_written_file_is_looked_at_again_and_never_used(form, tmp_path, caplog):
    address = write(tmp_path, form, *tables())
    file = next(p for p in tmp_path.iterdir() if "item" in p.name or p.suffix == ".safetensors")
    whole = file.read_bytes()
    snapshot = Snapshot(address)
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        for _ in range(3):
            assert snapshot.look() is None
    assert "looking again" in caplog.text
    file.write_bytes(whole)
    assert looked(snapshot) is not None


def test_nothing_there_yet_is_waited_for(tmp_path, caplog):
    snapshot = Snapshot(str(tmp_path / "e.safetensors"))
    assert looked(snapshot) is None
    write(tmp_path, "safetensors", *tables())
    assert looked(snapshot) is not None
    with pytest.raises(ConfigError, match="cannot tell the form"):
        (tmp_path / "e.csv").touch()
        Snapshot(str(tmp_path / "e.csv")).look()


def test_an_object_store_is_followed_too():
    address = f"memory://snapshot-{next(_counter)}/e.safetensors"
    snapshot = Snapshot(address)
    for seed in (0, 1):
        users, items = tables(seed)
        content = safetensors.torch.save({"users": users, "items": items})
        snapshot._fs.pipe_file(snapshot._path, content)
        found = looked(snapshot)
        torch.testing.assert_close(found.embed(torch.tensor([[5, 6]]))[1], items[6:7])
        assert snapshot.look() is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda u, i: {"users": u}, "no tensor 'items'"),
        (lambda u, i: {"users": u, "items": i[:, :3].clone()}, "4 dimensions and items 3"),
        (lambda u, i: {"users": u.long(), "items": i}, "users: expected numbers of shape"),
        (lambda u, i: {"users": u[0].clone(), "items": i}, "users: expected numbers of shape"),
        (lambda u, i: {"users": u / 0, "items": i}, "users, row 0: not finite"),
        (lambda u, i: {"users": u[:0].clone(), "items": i}, "users has no rows"),
        (
            lambda u, i: {"users": u, "items": i, "train": torch.tensor([[0, NUM_ITEMS]])},
            "train: expected",
        ),
    ],
)
def test_tables_that_are_no_embeddings_are_refused(change, told):
    content = safetensors.torch.save(change(*tables()))
    with pytest.raises(DataError, match=told):
        read_tables({"e.safetensors": content})


class Towers(nn.Module):
    """What somebody exports."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(U, D), nn.Embedding(NUM_ITEMS, D)

    def forward(self, users: torch.Tensor, items: torch.Tensor):
        return self.users(users), self.items(items)


def export(path, form: str) -> Towers:
    torch.manual_seed(0)
    towers = Towers().eval()
    example = (torch.tensor([0, 1]), torch.tensor([0, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own making: TorchScript is deprecated
        if form == "pt2":
            batch = torch.export.Dim("B")
            program = torch.export.export(towers, example, dynamic_shapes=({0: batch}, {0: batch}))
            torch.export.save(program, path)
        else:
            torch.jit.script(towers).save(path)
    return towers


@pytest.mark.parametrize("form", ["pt2", "pt"])
def test_an_exported_module_embeds_as_its_original(form, tmp_path):
    towers = export(tmp_path / f"e.{form}", form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = looked(Snapshot(str(tmp_path / f"e.{form}"), trust_code=True))
    pairs = found.locate(["3", "4", "5"], ["1", "2", "0"])
    for ours, theirs in zip(found.embed(pairs), towers(*pairs.unbind(1)), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
    with pytest.raises(DataError, match="must give two tensors"):
        found.embed(torch.tensor([[U + 5, 0]]))


def test_what_can_run_code_needs_a_word(tmp_path):
    export(tmp_path / "e.pt2", "pt2")
    with pytest.raises(ConfigError, match="can run code as it is loaded; say --trust-code"):
        looked(Snapshot(str(tmp_path / "e.pt2")))
