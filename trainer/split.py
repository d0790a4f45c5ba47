"""Splits per user, at random or in time: what is judged on, and what is chosen by."""

import numpy as np
from jaxtyping import Int64

SPLITS = ("random", "leave-one-out")


def split_off_test(
    pairs: Int64[np.ndarray, "N 2"], fraction: float, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "rest 2"], Int64[np.ndarray, "test 2"]]:
    """Holds out a random part of every user's pairs.

    Of n pairs, `fraction` * n are held out, rounded to the nearest whole number (halves up), but at
    most n - 1: at 0.2 a user of 1 or 2 pairs has no test pair, one of 3 to 7 has one.

    Args:
        pairs: int64 [N, 2], by user.
        fraction: in [0, 1).
        rng: chooses the pairs.

    Returns:
        int64, what stays and what is held out, both in the order of `pairs`.
    """
    counts = np.bincount(pairs[:, 0])
    quota = np.minimum(
        np.floor(fraction * counts + 0.5).astype(np.int64), np.maximum(counts - 1, 0)
    )
    return _hold_out(pairs, quota, rng)


def split_off_valid(
    pairs: Int64[np.ndarray, "N 2"], fraction: float, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, "rest 2"], Int64[np.ndarray, "valid 2"]]:
    """Holds out one random pair of some users, to choose by at little cost in training data.

    Args:
        pairs: int64 [N, 2], by user.
        fraction: of N, in [0, 1): so many users, chosen at random among those of at least 3 pairs,
            or all of those where they are fewer.
        rng: chooses the users and the pairs.

    Returns:
        int64, what stays and what is held out, both in the order of `pairs`.
    """
    counts = np.bincount(pairs[:, 0])
    eligible = np.flatnonzero(counts >= 3)
    wanted = min(int(np.floor(fraction * len(pairs) + 0.5)), len(eligible))
    quota = np.zeros_like(counts)
    quota[rng.choice(eligible, size=wanted, replace=False)] = 1
    return _hold_out(pairs, quota, rng)


def split_off_last(
    pairs: Int64[np.ndarray, "N 2"], at_least: int
) -> tuple[Int64[np.ndarray, "rest 2"], Int64[np.ndarray, "last 2"]]:
    """Holds out the last pair of every user of `at_least` pairs or more: one half of leave-one-out.

    Args:
        pairs: int64 [N, 2], by user and in time order within a user.
        at_least: n >= 1.

    Returns:
        int64, what stays and what is held out, both in the order of `pairs`.
    """
    counts = np.bincount(pairs[:, 0])
    ends = np.cumsum(counts)[counts >= at_least] - 1
    held = np.zeros(len(pairs), dtype=bool)
    held[ends] = True
    return pairs[~held], pairs[held]


def _hold_out(
    pairs: np.ndarray, quota: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Holds out `quota[u]` pairs of each user u: those that come first in a random order."""
    users = pairs[:, 0]
    order = np.lexsort((rng.random(len(pairs)), users))
    counts = np.bincount(users)
    place = np.arange(len(pairs)) - (np.cumsum(counts) - counts)[users[order]]
    held = np.empty(len(pairs), dtype=bool)
    held[order] = place < quota[users[order]]
    return pairs[~held], pairs[held]
