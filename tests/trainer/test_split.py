from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.split import split_off_last, split_off_test, split_off_valid

items_per_user = st.lists(st.integers(0, 12), min_size=1, max_size=20).filter(any)


def interactions(counts: list[int], seed: int) -> np.ndarray:
    """Pairs by user, none twice, some users without any."""
    users = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(seed)
    items = np.concatenate([rng.permutation(12)[:count] for count in counts])
    return np.stack([users, items], axis=1).astype(np.int64)


def keys(pairs: np.ndarray) -> np.ndarray:
    return pairs[:, 0] * 12 + pairs[:, 1]


def assert_a_partition_in_order(pairs: np.ndarray, *parts: np.ndarray) -> None:
    assert sum(len(part) for part in parts) == len(pairs)
    for part in parts:
        places = [int(np.flatnonzero(keys(pairs) == key)[0]) for key in keys(part)]
        assert places == sorted(places)
    assert set(np.concatenate([keys(part) for part in parts])) == set(keys(pairs))


@given(items_per_user, st.floats(0, 0.99), st.integers(0, 9))
def test_test_split_is_a_partition_that_leaves_everybody_something(
    counts: list[int], fraction: float, seed: int
) -> None:
    pairs = interactions(counts, seed)
    train, test = split_off_test(pairs, fraction, np.random.default_rng(seed))
    assert_a_partition_in_order(pairs, train, test)
    assert set(train[:, 0]) == set(pairs[:, 0])


@pytest.mark.parametrize(("n", "held"), [(1, 0), (2, 0), (3, 1), (7, 1), (8, 2), (10, 2), (13, 3)])
def test_how_many_pairs_a_user_gives_to_test(n: int, held: int) -> None:
    pairs = np.stack([np.zeros(n, dtype=np.int64), np.arange(n)], axis=1)
    assert len(split_off_test(pairs, 0.2, np.random.default_rng(0))[1]) == held


@given(items_per_user, st.floats(0, 0.99), st.integers(0, 9))
def test_valid_split_takes_one_pair_of_users_who_can_spare_it(
    counts: list[int], fraction: float, seed: int
) -> None:
    pairs = interactions(counts, seed)
    train, valid = split_off_valid(pairs, fraction, np.random.default_rng(seed))
    assert_a_partition_in_order(pairs, train, valid)
    assert len(set(valid[:, 0])) == len(valid)
    taken = np.bincount(pairs[:, 0])
    assert (taken[valid[:, 0]] >= 3).all()
    assert len(valid) == min(int(fraction * len(pairs) + 0.5), (taken >= 3).sum())


def test_every_pair_is_as_likely_to_be_held_out() -> None:
    # 20000 draws of 2 of 10: each count is Binomial(20000, 0.2), deviation 57; 5 deviations.
    pairs = np.stack([np.repeat(np.arange(20_000), 10), np.tile(np.arange(10), 20_000)], axis=1)
    _, test = split_off_test(pairs, 0.2, np.random.default_rng(0))
    assert np.abs(np.bincount(test[:, 1]) - 4000).max() < 285
    first = np.arange(len(pairs)) % 10 < 2  # the control: the first two of each
    assert np.abs(np.bincount(pairs[first, 1], minlength=10) - 4000).max() > 285


def test_a_seed_fixes_the_split() -> None:
    pairs = np.stack([np.repeat(np.arange(50), 8), np.tile(np.arange(8), 50)], axis=1)
    one, same, other = (
        split_off_test(pairs, 0.2, np.random.default_rng(seed))[1] for seed in (1, 1, 2)
    )
    assert (one == same).all()
    assert (one != other).any()


@given(items_per_user, st.integers(0, 9))
def test_leaving_one_out_takes_the_last_and_the_one_before(counts: list[int], seed: int) -> None:
    pairs = interactions(counts, seed)
    rest, test = split_off_last(pairs, 3)
    train, valid = split_off_last(rest, 2)
    assert_a_partition_in_order(pairs, train, valid, test)
    for user, count in enumerate(counts):
        items = pairs[pairs[:, 0] == user, 1].tolist()
        parts = [part[part[:, 0] == user, 1].tolist() for part in (train, valid, test)]
        held = (count >= 2) + (count >= 3)
        assert [
            *chain.from_iterable(parts)
        ] == items  # nothing of train is later than anything held out
        assert [len(part) for part in parts] == [count - held, int(count >= 2), int(count >= 3)]
