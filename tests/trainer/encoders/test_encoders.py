"""What every encoder promises the loop, whatever it reads."""

import pytest
import torch

from core.errors import ConfigError
from tests.trainer.encoders.six import DIM, M, U
from trainer.batches import Batch, make_batches
from trainer.data import Interactions
from trainer.defaults import DEFAULTS
from trainer.encoders import ENCODERS, Encoder, HasAuxiliary, Options, ReadsSequences, make

OF_PAIRS = ("mf", "lightgcn", "ngcf", "vbpr", "mmlightgcn")


def whole_batch(encoder: Encoder, data: Interactions) -> Batch:
    (batch,) = make_batches(encoder, data, 100).epoch(torch.Generator().manual_seed(0))
    return batch


def test_every_encoder_has_defaults() -> None:
    assert list(DEFAULTS) == list(ENCODERS)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_what_is_encoded_is_what_the_tables_hold(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, seed=0)
    users, items = torch.tensor([5, 0, 0]), torch.tensor([[4, 1, 6]])
    encoded = encoder.encode(users)
    users_table, items_table = encoder.tables()
    torch.testing.assert_close(encoded.users, users_table[users])
    torch.testing.assert_close(encoded.items(items), items_table[items])


@pytest.mark.parametrize("name", ENCODERS)
def test_tables_are_whole_and_without_gradient(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, seed=0)
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder, ReadsSequences) == (name not in OF_PAIRS)
    assert isinstance(encoder, HasAuxiliary) == (name == "cl4srec")
    assert encoder.dim == DIM
    for split in ("valid", "test"):
        users, items = encoder.tables(split)
        assert users.shape == (U, DIM)
        assert items.shape == (M, DIM)
        assert not users.requires_grad
        assert not items.requires_grad


@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_every_parameter(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, seed=0)
    batch = whole_batch(encoder, data)
    encoded = encoder.encode(batch.contexts)
    loss = (encoded.users * encoded.items(batch.items)).sum(1).exp().sum()
    if isinstance(encoder, HasAuxiliary):
        loss = loss + encoder.auxiliary(batch.contexts, torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize("name", ["mf", "lightgcn", "ngcf", "mmlightgcn"])
def test_penalty_is_half_the_squared_norm_of_the_raw_rows(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, seed=0)
    tables = [p.detach() for p in encoder.parameters() if len(p) in {U, M, U + M}]
    raw = torch.cat(tables)  # users above items
    users, items = torch.tensor([1, 1]), torch.tensor([0, 3, 4])
    rows = torch.cat([users, items + U])
    expected = raw[rows].square().sum() / 2 / 2
    torch.testing.assert_close(encoder.penalty(users, items).detach(), expected)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_seed_fixes_the_first_values_and_a_state_brings_them_back(
    name: str, data: Interactions
) -> None:
    one, same, other = (make(name, data, DIM, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.tables()[0], same.tables()[0])
    assert not torch.equal(one.tables()[0], other.tables()[0])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.tables()[1], other.tables()[1])


@pytest.mark.parametrize("name", ["ngcf", "gru4rec", "sasrec", "cl4srec"])
def test_dropout_is_for_training_alone(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, 0, Options(dropout=0.5))
    contexts = whole_batch(encoder, data).contexts
    encoder.eval()
    assert torch.equal(encoder.encode(contexts).users, encoder.encode(contexts).users)
    encoder.train()
    assert not torch.equal(encoder.encode(contexts).users, encoder.encode(contexts).users)


def test_first_values_are_of_xaviers_variance(data: Interactions) -> None:
    users, _ = make("mf", data, 20_000, seed=0).tables()
    variance = 2 / (U + 20_000)
    # 120000 uniform values: the relative deviation of the variance is 0.26 %; 5 deviations.
    assert users.var().item() == pytest.approx(variance, rel=0.013)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("word2vec", {}, r"'word2vec'.*mf, lightgcn"),
        ("mf", {"dim": 0}, "not 0"),
        ("ngcf", {"dim": 6}, "dim = 6; NGCF puts 4 layers"),
        ("sasrec", {"dropout": 1.0}, "dropout = 1.0"),
        ("gru4rec", {"max_length": 0}, "max_length = 0"),
        ("cl4srec", {"contrast": -0.1}, "contrast = -0.1"),
        ("cl4srec", {"temperature": 0.0}, "temperature = 0.0"),
        ("cl4srec", {"temperature": float("nan")}, "temperature = nan"),
    ],
)
def test_what_cannot_be_made_is_refused(name, settings, message, data: Interactions) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, data, settings.pop("dim", DIM), 0, Options(**settings))
