import numpy as np
import pytest
import torch

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.encoders import ENCODERS, Encoder, make

U, M, DIM = 6, 5, 4
TRAIN = np.array([[0, 0], [0, 1], [1, 1], [2, 0], [2, 3], [4, 2]])


@pytest.fixture
def data() -> Interactions:
    empty = np.empty((0, 2), dtype=np.int64)
    users, items = np.arange(U).astype(str), np.arange(M).astype(str)
    return Interactions("six", U, M, TRAIN, empty, empty, users, items)


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_encoded_is_what_the_tables_hold(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, seed=0)
    assert isinstance(encoder, Encoder)
    assert encoder.dim == DIM
    users, items = torch.tensor([5, 0, 0]), torch.tensor([4, 1])
    users_e, items_e = encoder.encode(users, items)
    users_table, items_table = encoder.tables()
    assert users_table.shape == (U, DIM)
    assert items_table.shape == (M, DIM)
    assert not users_table.requires_grad
    assert not items_table.requires_grad
    torch.testing.assert_close(users_e, users_table[users])
    torch.testing.assert_close(items_e, items_table[items])


@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_reaches_the_parameters(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, seed=0)
    users_e, items_e = encoder.encode(torch.tensor([0]), torch.tensor([0]))
    (users_e * items_e).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parameters())


@pytest.mark.parametrize("name", ENCODERS)
def test_penalty_is_half_the_squared_norm_of_the_raw_rows(name: str, data: Interactions) -> None:
    encoder = make(name, data, DIM, seed=0)
    raw = torch.cat([p.detach() for p in encoder.parameters()])  # users above items
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


def test_first_values_are_of_xaviers_variance(data: Interactions) -> None:
    users, _ = make("mf", data, 20_000, seed=0).tables()
    variance = 2 / (U + 20_000)
    # 120000 uniform values: the relative deviation of the variance is 0.26 %; 5 deviations.
    assert users.var().item() == pytest.approx(variance, rel=0.013)


def test_an_unknown_name_is_answered_with_the_known_ones(data: Interactions) -> None:
    with pytest.raises(ConfigError, match=r"'word2vec'.*mf, lightgcn"):
        make("word2vec", data, DIM, seed=0)


def test_a_dimension_below_one_is_refused(data: Interactions) -> None:
    with pytest.raises(ConfigError, match="not 0"):
        make("mf", data, 0, seed=0)
