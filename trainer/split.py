"""Splits per user, at random or in time: what is judged on, and what is chosen by."""

import numpy as np
from jaxtyping import Int64

SPLITS = ("random", "leave-one-out")


def split_up(
    parts: dict[str, Int64[np.ndarray, "_ 2"]],
    num_items: int,
    fractions: tuple[float, float] | None,
    rng: np.random.Generator,
) -> dict[str, Int64[np.ndarray, "_ 2"]]:
    """Drops what is doubled and splits what is not yet split.

    Args:
        parts: pairs (user, item) in time order within a user: `all`, or `train`, test sets and
            perhaps validation sets, of which the first counts, by names that begin so.
        num_items: I.
        fractions: of a random split into test and valid, see below; None leaves the last out.
        rng: chooses the pairs.

    Returns:
        int64 [_, 2] each, by user: `train` and `valid` first, then the other parts by name.
    """
    nothing = np.empty((0, 2), dtype=np.int64)
    if "all" in parts:
        pairs = _fresh(parts["all"], nothing, num_items)
        train, test = (
            split_off_test(pairs, fractions[0], rng) if fractions else split_off_last(pairs, 3)
        )
        parts = {"train": train, "test": test}
    train = _fresh(parts["train"], nothing, num_items)
    held_out = {part: pairs for part, pairs in parts.items() if part != "train"}
    given = next((part for part in held_out if part.startswith("valid")), None)
    if given is None:
        train, valid = (
            split_off_valid(train, fractions[1], rng) if fractions else split_off_last(train, 2)
        )
    else:
        valid = _fresh(held_out.pop(given), train, num_items)
    seen = np.concatenate([train, valid])
    held_out = {part: _fresh(pairs, seen, num_items) for part, pairs in held_out.items()}
    return {"train": train, "valid": valid, **held_out}


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


def _fresh(pairs: np.ndarray, seen: np.ndarray, num_items: int) -> np.ndarray:
    """The pairs that are not in `seen`, each once, by user, in the given order within a user."""
    keys = pairs[:, 0] * num_items + pairs[:, 1]
    first = np.sort(np.unique(keys, return_index=True)[1])
    first = first[~np.isin(keys[first], seen[:, 0] * num_items + seen[:, 1])]
    return pairs[first[np.argsort(pairs[first, 0], kind="stable")]]
