"""Whether one cell is better than another: paired over users, and over seeds.

Two tests, of two questions. Over users: would these trained models differ on other users of the
same kind? Thousands of pairs, so small differences show, but nothing of how training varies. Over
seeds: would models trained anew differ? Three pairs see only what is large and steady.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray
from scipy import stats

FLIPS = 9_999  # so no p is below 1 / 10,000
ROUNDED = 12  # decimals within which differences are equal
CONFIDENCE = 0.95


@dataclass(frozen=True)
class PerUser:
    """One final run's recall@20: of whom, and how much; [V] each."""

    users: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """A cell less another, in recall@20 on test, over the seeds that both have.

    Attributes:
        seeds: how many those are.
        difference: of the means.
        relative: that, over the other's mean; nan where that is 0.
        interval: of the difference, 95 %, over users.
        p_users: of the sign-flip test over users.
        p_seeds: of the paired t-test over seeds; None below 3.
    """

    seeds: int
    difference: float
    relative: float
    interval: tuple[float, float]
    p_users: float
    p_seeds: float | None


def compare(ours: Mapping[int, PerUser], other: Mapping[int, PerUser]) -> Comparison | None:
    """By seed; None where no seed is in both.

    Raises:
        ValueError: they were judged on different users.
    """
    seeds = sorted(ours.keys() & other.keys())
    if not seeds:
        return None
    for seed in seeds:
        if not np.array_equal(ours[seed].users, other[seed].users):
            raise ValueError("the two were judged on different users: on different data, or splits")
    mine, theirs = (np.stack([of[seed].values for seed in seeds]) for of in (ours, other))
    by_user = (mine - theirs).mean(0)
    mean = float(theirs.mean())
    return Comparison(
        seeds=len(seeds),
        difference=float(by_user.mean()),
        relative=float(by_user.mean()) / mean if mean else np.nan,
        interval=interval(by_user),
        p_users=sign_flip(by_user),
        p_seeds=paired_t(mine.mean(1), theirs.mean(1)),
    )


def interval(differences: Float64[np.ndarray, "V"]) -> tuple[float, float]:
    """Of the mean, by the normal law: with thousands of users a bootstrap gives the same."""
    if not differences.any():
        return 0.0, 0.0
    low, high = stats.norm.interval(CONFIDENCE, differences.mean(), stats.sem(differences))
    return float(low), float(high)


def sign_flip(differences: Float64[np.ndarray, "V"]) -> float:
    """p, two-sided, that a mean is so far from 0 where each user's sign is a coin's.

    Recall takes few values: of n equal ones so many keep their sign as a binomial draw says, which
    makes the flips of all users as cheap as those of their distinct values.
    """
    sizes, counts = np.unique(np.abs(differences).round(ROUNDED), return_counts=True)
    kept = np.random.default_rng(0).binomial(counts, 0.5, size=(FLIPS, len(counts)))
    sums = np.abs((2 * kept - counts) @ sizes)
    as_far = sums >= np.abs(differences.sum()) - len(differences) * 10.0**-ROUNDED
    return float((1 + as_far.sum()) / (1 + FLIPS))


def paired_t(mine: Float64[np.ndarray, "S"], theirs: Float64[np.ndarray, "S"]) -> float | None:
    """p, two-sided, of the paired t-test; None below 3 seeds, or where all differ by the same."""
    differences = mine - theirs
    if len(differences) < 3 or np.ptp(differences) == 0:
        return None
    return float(stats.ttest_rel(mine, theirs).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """The p of a family of tests, each so corrected that any below a is one with chance at most a.

    Holm, 1979: the i-th smallest of m (from 0) is multiplied by m - i, and none is below a smaller
    one's.
    """
    order = np.argsort(values, kind="stable")
    ascending = np.asarray(values)[order] * (len(values) - np.arange(len(values)))
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(ascending))
    return [float(value) for value in corrected]
