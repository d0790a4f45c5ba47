import numpy as np
import pytest
from scipy.stats import norm, permutation_test

from bench.quality.statistics import PerUser, compare, holm, interval, paired_t, sign_flip

USERS = np.arange(2000)


def run(values) -> PerUser:
    return PerUser(np.arange(len(values)), np.asarray(values, dtype=float))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    assert holm([0.02]) == [0.02]


def test_holm_keeps_the_family_at_its_level():
    """True nulls only: a family of 10 has a rejection in 5 % of cases, uncorrected in 40 %."""
    families = np.random.default_rng(0).random((2000, 10))
    corrected = np.array([holm(list(family)) for family in families])
    assert 0.03 < (corrected < 0.05).any(1).mean() < 0.07
    assert (families < 0.05).any(1).mean() > 0.3  # the negative control


def test_sign_flip_by_hand():
    # Of the 8 signs of 1, 2, 3 one gives a mean as high: 1/8 on either side. 4 sigma of 9,999
    # flips are .017.
    assert sign_flip(np.array([1.0, 2.0, 3.0])) == pytest.approx(2 / 8, abs=0.02)
    assert sign_flip(np.array([0.0, 1.0, 0.0, 2.0, 3.0])) == pytest.approx(2 / 8, abs=0.02)
    assert sign_flip(np.array([-1.0, 2.0, 3.0])) == pytest.approx(2 * 2 / 8, abs=0.02)
    assert sign_flip(np.full(6, 1 / 3)) == pytest.approx(2 / 64, abs=0.01)
    assert sign_flip(np.zeros(5)) == 1.0


def test_sign_flip_agrees_with_scipys():
    values = np.random.default_rng(0).choice([-1.0, -0.5, 0.0, 0.5, 1.0], 400) - 0.03
    found = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=9_999, batch=100,
        vectorized=True, rng=np.random.default_rng(1)
    )  # fmt: skip
    assert sign_flip(values) == pytest.approx(found.pvalue, abs=0.02)
    assert 0.1 < found.pvalue < 0.6


def test_sign_flip_rejects_what_is_there_and_seldom_what_is_not():
    rng = np.random.default_rng(0)
    nothing = [sign_flip(rng.standard_normal(60)) for _ in range(60)]
    assert np.mean(np.array(nothing) < 0.05) < 0.15
    something = [sign_flip(rng.standard_normal(60) + 0.5) for _ in range(20)]
    assert np.mean(np.array(something) < 0.05) > 0.8  # z is 3.9 on average


def test_interval_by_hand_and_against_a_bootstrap():
    values = np.random.default_rng(0).exponential(size=2000) - 0.9
    low, high = interval(values)
    half = norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(2000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))
    drawn = np.random.default_rng(1).integers(2000, size=(2000, 2000))
    by_bootstrap = np.quantile(values[drawn].mean(1), [0.025, 0.975])
    assert (low, high) == pytest.approx(by_bootstrap, abs=0.15 * half)
    assert interval(np.zeros(3)) == (0.0, 0.0)


def test_paired_t_by_hand():
    # Differences 1, 2, 3: t = 2 / (1 / sqrt(3)), 2 degrees of freedom.
    assert paired_t(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(
        0.074180, abs=1e-6
    )
    assert paired_t(np.array([2.0, 4.0]), np.array([1.0, 2.0])) is None
    assert paired_t(np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0])) is None


def test_compares_seeds_that_both_have():
    ours = {0: run([0.5, 1.0, 0.0]), 1: run([0.5, 0.5, 0.5]), 2: run([1.0, 1.0, 1.0])}
    other = {0: run([0.0, 1.0, 0.5]), 1: run([0.0, 0.5, 0.5]), 3: run([0.0, 0.0, 0.0])}
    found = compare(ours, other)
    assert found.seeds == 2
    assert found.difference == pytest.approx((0.5 + 0.0 - 0.25) / 3)
    assert found.relative == pytest.approx(found.difference / (2.5 / 6))
    assert found.p_seeds is None
    assert compare({0: ours[0]}, {1: other[1]}) is None


def test_other_users_are_no_pairs():
    with pytest.raises(ValueError, match="different users"):
        compare({0: run([1.0, 0.0])}, {0: PerUser(np.array([0, 2]), np.zeros(2))})


def test_pairing_is_what_sees_a_small_difference():
    """Users differ among each other far more than models do on one user."""
    rng = np.random.default_rng(0)
    base = rng.random(2000)
    better = base + 0.01 + 0.05 * rng.standard_normal(2000)
    assert compare({0: run(better)}, {0: run(base)}).p_users < 0.001
    shuffled = rng.permutation(base)  # the negative control: the same values, unpaired
    assert compare({0: run(better)}, {0: run(shuffled)}).p_users > 0.05
