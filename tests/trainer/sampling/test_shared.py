from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from core.candidates import GROUPS, grouped, in_order
from tests.trainer.sampling.test_complement import NUM_ITEMS, histories
from trainer.sampling import shared
from trainer.sampling.shared import SharedCandidates


def source(history: list[set[int]]) -> SharedCandidates:
    pairs = [(user, item) for user, items in enumerate(history) for item in items]
    train = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return SharedCandidates(np.random.default_rng(0).permutation(train), len(history), NUM_ITEMS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    histories(),
    st.integers(1, 2 * GROUPS + 1),
    st.integers(1, 12),
    st.integers(0, 9),
    st.sampled_from([1, 4, shared.MARKS]),  # with 1 everything has to be searched for
)
def test_what_is_taken_is_what_the_row_s_user_took(
    history: list[set[int]], rows: int, number: int, seed: int, marks: int
) -> None:
    users = torch.randint(len(history), (rows,), generator=generator(seed))
    with patch.object(shared, "MARKS", marks):
        items, taken = source(history).draw(users, number, generator(seed))
    assert items.shape == (min(rows, GROUPS), number)
    assert taken.shape == (len(items), -(-rows // len(items)), number)
    for place, of_row in enumerate(in_order(taken, taken.numel())):
        owned = history[users[place]] if place < rows else set()
        assert of_row.tolist() == [item in owned for item in items[place % len(items)].tolist()]


def test_candidates_are_uniform_and_each_group_has_its_own() -> None:
    users = torch.zeros(3 * GROUPS, dtype=torch.int64)
    items, _ = source([{1}]).draw(users, 400, generator())
    counts = items.flatten().bincount(minlength=NUM_ITEMS).numpy()
    assert chisquare(counts).pvalue > 0.001
    skewed = counts.astype(float)
    skewed[0] *= 1.1  # the control: one item a tenth too frequent is seen
    assert chisquare(skewed, np.full(NUM_ITEMS, skewed.mean())).pvalue < 0.001
    assert len(items.unique(dim=0)) == GROUPS


@pytest.mark.parametrize("count", [1, GROUPS - 1, GROUPS, GROUPS + 1, 5 * GROUPS])
def test_a_batch_is_dealt_and_put_in_order_again(count: int) -> None:
    rows = torch.randn(count, 3, generator=generator())
    groups = grouped(rows)
    many = min(count, GROUPS)
    assert groups.shape == (many, -(-count // many), 3)
    assert torch.equal(in_order(groups, count), rows)
    assert not in_order(groups, groups.numel())[count:].any()


def test_neighbours_in_a_batch_do_not_share() -> None:
    """Positions of one user's sequence stand side by side."""
    owners = grouped((torch.arange(8 * GROUPS) // 50)[:, None].float()).squeeze(2)
    assert all(len(of_group.unique()) == 8 for of_group in owners)
