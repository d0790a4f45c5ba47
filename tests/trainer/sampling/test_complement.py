import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from core.errors import ConfigError
from trainer.sampling import PopularNegatives, UniformNegatives
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


POPULARITY = {0: 1, 1: 8, 2: 40, 3: 2, 4: 20}  # users who took each item; nobody took 5 and 6


def test_popular_draws_follow_the_power_law_over_what_was_not_taken() -> None:
    # Item 0 went to user 40, the others to users 0, 1, ...: nobody took everything.
    pairs = [
        (user or 40 * (item == 0), item) for item, n in POPULARITY.items() for user in range(n)
    ]
    negatives = PopularNegatives(np.array(pairs), 41, NUM_ITEMS)
    user = 10  # took 2 and 4
    users = torch.full((40_000,), user)
    drawn = negatives.sample(users, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn, minlength=NUM_ITEMS).numpy()
    free = [0, 1, 3]
    assert counts[free].sum() == 40_000
    weights = np.array([POPULARITY[item] ** 0.75 for item in free])
    assert chisquare(counts[free], 40_000 * weights / weights.sum()).pvalue > 0.001
    # The control, and the power: the counts themselves, or a power of 0.7, are seen.
    for power in (1.0, 0.7):
        others = np.array([float(POPULARITY[item]) ** power for item in free])
        assert chisquare(counts[free], 40_000 * others / others.sum()).pvalue < 0.001


@given(histories(), st.integers(0, 9))
def test_popular_draws_are_never_what_was_taken(history: list[set[int]], seed: int) -> None:
    # One more user who took all but one item, and one who took that, so that all items are drawn.
    history = [*history, {0}, set(range(1, NUM_ITEMS))]
    pairs = [(user, item) for user, items in enumerate(history) for item in items]
    negatives = PopularNegatives(np.array(pairs), len(history), NUM_ITEMS)
    users = torch.arange(len(history))[:, None].expand(-1, 60)
    drawn = negatives.sample(users, torch.Generator().manual_seed(seed))
    assert drawn.shape == users.shape
    for items, row in zip(history, drawn, strict=True):
        assert not items & set(row.tolist())


def test_who_took_everything_that_anybody_took_is_refused() -> None:
    with pytest.raises(ConfigError, match="user 0 has taken all 5 items that could be drawn"):
        PopularNegatives(np.array([[0, i] for i in range(5)] + [[1, 0]]), 2, NUM_ITEMS)
