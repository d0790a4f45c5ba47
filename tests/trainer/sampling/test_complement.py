import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from core.errors import ConfigError
from trainer.sampling import UniformNegatives
from trainer.sampling.base import Source

NUM_ITEMS = 7


@st.composite
def histories(draw: st.DrawFn) -> list[set[int]]:
    """What each user has taken: nothing, all but one item, or anything between."""
    taken = st.sets(st.integers(0, NUM_ITEMS - 1), max_size=NUM_ITEMS - 1)
    return draw(st.lists(taken, min_size=1, max_size=6))


def picker(history: list[set[int]]) -> UniformNegatives:
    pairs = [(user, item) for user, items in enumerate(history) for item in items]
    return UniformNegatives(
        np.array(pairs, dtype=np.int64).reshape(-1, 2), num_users=len(history), num_items=NUM_ITEMS
    )


@given(histories(), st.integers(0, 9))
def test_what_is_drawn_is_everything_that_was_not_taken(history: list[set[int]], seed: int) -> None:
    users = torch.arange(len(history)).repeat_interleave(150)
    drawn = picker(history).sample(users, torch.Generator().manual_seed(seed)).view(-1, 150)
    for items, row in zip(history, drawn, strict=True):
        # An item of 7 is missed by 150 draws with probability below 1e-10.
        assert set(row.tolist()) == set(range(NUM_ITEMS)) - items


def test_draws_are_uniform_over_what_was_not_taken() -> None:
    negatives = picker([{0, 3}, {6}, set()])
    users = torch.tensor([0, 1, 2]).repeat(20_000)
    drawn = negatives.sample(users, torch.Generator().manual_seed(0))
    for user, free in enumerate(([1, 2, 4, 5, 6], [0, 1, 2, 3, 4, 5], list(range(NUM_ITEMS)))):
        counts = torch.bincount(drawn[users == user], minlength=NUM_ITEMS)[free].numpy()
        assert chisquare(counts).pvalue > 0.001
        # The control, and the test's power: one item 10 % too frequent is seen (chi2 about 30).
        skewed = counts.astype(float)
        skewed[0] *= 1.1
        assert chisquare(skewed, np.full(len(free), skewed.mean())).pvalue < 0.001


def test_a_seed_fixes_the_draws() -> None:
    negatives, users = picker([{0}, {1, 2}]), torch.tensor([0, 1]).repeat(50)
    one, same, other = (
        negatives.sample(users, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_rows_draw_for_themselves() -> None:
    # A row's draw is the user's r-th free item, whoever else is in the batch.
    negatives = picker([{0}, {1, 2}, {5}])
    first = negatives.sample(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(4))
    second = negatives.sample(torch.tensor([2, 1, 1]), torch.Generator().manual_seed(4))
    assert first[1] == second[1]


def test_an_empty_batch_is_none() -> None:
    drawn = picker([{0}]).sample(torch.empty(0, dtype=torch.int64), torch.Generator())
    assert drawn.shape == (0,)


def test_it_is_a_source() -> None:
    assert isinstance(picker([set()]), Source)


def test_a_user_who_took_everything_is_refused() -> None:
    with pytest.raises(ConfigError, match="user 1 has taken all 7 items"):
        picker([{1}, set(range(NUM_ITEMS))])
