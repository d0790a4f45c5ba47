"""The pickers that choose among candidates, against what their papers print."""

import numpy as np
import pytest
import torch
from torch import Tensor

from core.errors import ConfigError
from trainer.batches import Batch
from trainer.data import Interactions
from trainer.encoders.base import Encoded
from trainer.encoders.lookup import rows_of
from trainer.sampling import PICKERS, Negatives, make_picker
from trainer.sampling.base import NegativePicker

U, M, D = 4, 30, 3
ROWS = 400


@pytest.fixture(scope="module")
def data() -> Interactions:
    train = [[user, item] for user in range(U) for item in range(5 * user + 2)]
    train = np.array([[0, 25], *train])  # nobody else took 25
    empty = np.empty((0, 2), dtype=np.int64)
    labels = [np.arange(size).astype(str) for size in (U, M)]
    return Interactions("four", U, M, train, empty, empty, *labels)


@pytest.fixture(scope="module")
def table() -> Tensor:
    return torch.randn(M, D, generator=torch.Generator().manual_seed(5)).requires_grad_()


@pytest.fixture(scope="module")
def batch() -> Batch:
    users = torch.arange(U).repeat(ROWS // U)
    return Batch(users, users, torch.zeros(ROWS, dtype=torch.int64))


def encoded_by(table: Tensor) -> Encoded:
    users = torch.randn(U, D, generator=torch.Generator().manual_seed(6))
    return Encoded(users.repeat(ROWS // U, 1).requires_grad_(), rows_of(table))


class Fixed:
    """A source whose draws are known."""

    def __init__(self, items: Tensor) -> None:
        self.items = items

    def sample(self, users: Tensor, generator: torch.Generator) -> Tensor:
        return self.items


def pick(picker: NegativePicker, batch: Batch, encoded: Encoded, seed: int = 0) -> Negatives:
    return picker.pick(batch, encoded, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PICKERS)
def test_what_was_taken_is_never_picked_and_a_seed_fixes_the_rest(name, data, table, batch) -> None:
    picker = make_picker(name, data, candidates=8)
    assert isinstance(picker, NegativePicker)
    encoded = encoded_by(table)
    one, same, other = (pick(picker, batch, encoded, seed) for seed in (1, 1, 2))
    assert one.embeddings.shape == (ROWS, D)
    taken = {tuple(pair) for pair in data.train.tolist()}
    assert not taken & set(zip(batch.users.tolist(), one.items.tolist(), strict=True))
    assert torch.equal(one.items, same.items)
    assert torch.equal(one.embeddings, same.embeddings)
    assert not torch.equal(one.items, other.items)


@pytest.mark.parametrize("name", [name for name in PICKERS if name != "mixgcf"])
def test_gradient_reaches_the_picked_items_alone(name, data, table, batch) -> None:
    encoded = encoded_by(table)
    negatives = pick(make_picker(name, data, candidates=4), batch, encoded)
    torch.testing.assert_close(negatives.embeddings, table[negatives.items])
    (grad,) = torch.autograd.grad(negatives.embeddings.sum(), table)
    assert set(grad.any(1).nonzero().squeeze(1).tolist()) == set(negatives.items.tolist())


def test_dns_takes_the_hardest_of_its_candidates(data, table, batch) -> None:
    candidates = torch.randint(M, (ROWS, 6), generator=torch.Generator().manual_seed(1))
    encoded = encoded_by(table)
    picker = make_picker("dns", data, candidates=6)
    picker.source = Fixed(candidates)
    scores = (encoded.users[:, None] * table[candidates]).sum(-1)
    picked = pick(picker, batch, encoded).items
    assert torch.equal(picked, candidates.gather(1, scores.argmax(1, keepdim=True)).squeeze(1))
    # The control: taking any other candidate would be seen.
    assert not torch.equal(picked, candidates[:, 0])


def test_more_candidates_are_harder_and_one_is_uniform(data, table, batch) -> None:
    encoded = encoded_by(table)
    means = [
        (encoded.users * pick(make_picker("dns", data, candidates=m), batch, encoded).embeddings)
        .sum(-1)
        .mean()
        .item()
        for m in (1, 2, 4, 16)
    ]
    assert means == sorted(means)
    one = pick(make_picker("dns", data, candidates=1), batch, encoded)
    assert torch.equal(one.items, pick(make_picker("uniform", data), batch, encoded).items)


@pytest.mark.parametrize(
    ("alpha", "beta", "power"), [(1.0, 0.1, -2), (0.5, 2.0, -3), (0.0, 0.7, -1)]
)
def test_ahns_takes_the_candidate_nearest_its_target(
    data, table, batch, alpha, beta, power
) -> None:
    encoded = encoded_by(table)
    picker = make_picker("ahns", data, candidates=9, alpha=alpha, beta=beta, power=power)
    picked = pick(picker, batch, encoded).items
    candidates = picker.source.sample(
        batch.users[:, None].expand(-1, 9), torch.Generator().manual_seed(0)
    )
    users, items = encoded.users.detach().double(), table.detach().double()
    for row in range(ROWS):
        target = beta * (float(users[row] @ items[0]) + alpha) ** (power + 1)
        distances = [abs(float(users[row] @ items[item]) - target) for item in candidates[row]]
        assert picked[row] == candidates[row][int(np.argmin(distances))]


def test_ahns_gives_better_positives_easier_negatives(data, batch) -> None:
    """Its first criterion; with p > 0 (refused) it would be the other way round."""
    table = torch.linspace(-0.2, 0.2, M)[:, None].clone()
    users = torch.ones(ROWS, 1)
    picker = make_picker("ahns", data, candidates=29)
    means = []
    for positive in (0.0, 1.0, 4.0):
        table[0] = positive
        means.append(pick(picker, batch, Encoded(users, rows_of(table))).embeddings.mean().item())
    assert means == sorted(means, reverse=True)


def test_mixgcf_without_layers_mixes_the_hardest_with_the_positive(data, table, batch) -> None:
    """e = a e_i + (1 - a) e_c: a follows from each coordinate, is the same in all, and uniform."""
    encoded = encoded_by(table)
    negatives = pick(make_picker("mixgcf", data, candidates=5), batch, encoded)
    hardest = pick(make_picker("dns", data, candidates=5), batch, encoded)
    assert torch.equal(negatives.items, hardest.items)
    gap = table[batch.items] - hardest.embeddings
    share = ((negatives.embeddings - hardest.embeddings) * gap).sum(-1) / gap.square().sum(-1)
    torch.testing.assert_close(negatives.embeddings, hardest.embeddings + share[:, None] * gap)
    assert ((share >= 0) & (share <= 1)).all()
    # 400 uniform values: the deviation of the mean is 0.0144; 4 deviations.
    assert share.mean().item() == pytest.approx(0.5, abs=0.058)
    assert share.std().item() == pytest.approx(12**-0.5, rel=0.1)


def test_mixgcf_chooses_layer_by_layer(data, batch) -> None:
    generator = torch.Generator().manual_seed(3)
    tables = [torch.randn(M, D, generator=generator).requires_grad_() for _ in range(3)]
    encoded = encoded_by(torch.stack(tables).sum(0))
    encoded = Encoded(encoded.users, encoded.items, lambda: tuple(map(rows_of, tables)))
    candidates = torch.randint(1, M, (ROWS, 7), generator=generator)
    picker = make_picker("mixgcf", data, candidates=7)
    picker.source = Fixed(candidates)
    negatives = pick(picker, batch, encoded)
    draws = torch.Generator().manual_seed(0)
    expected = torch.zeros(ROWS, D)
    for number, layer in enumerate(tables):
        scores = (encoded.users[:, None] * layer[candidates]).sum(-1)
        hardest = candidates.gather(1, scores.argmax(1, keepdim=True)).squeeze(1)
        if number == 0:
            assert torch.equal(negatives.items, hardest)
        share = torch.rand(ROWS, 1, generator=draws)
        expected = expected + share * layer[batch.items] + (1 - share) * layer[hardest]
    torch.testing.assert_close(negatives.embeddings, expected)
    grads = torch.autograd.grad(negatives.embeddings.sum(), tables)
    assert all(grad[0].any() for grad in grads)  # the positive learns as well


@pytest.mark.parametrize("settings", [{"candidates": 0}, {"power": 0}])
def test_settings_out_of_range_are_refused(data, settings) -> None:
    with pytest.raises(ConfigError, match="at least 1, and below 0"):
        make_picker("ahns", data, **settings)
