"""The variates of the draw are N(0, 1): by computation from the table, and by sampling."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from core.chain import Law
from core.noise import FEW_VARIATES, STRATA, Noise, _quantiles, bits_of, standard_normal_


def drawn(shape, seed=1, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return standard_normal_(torch.empty(shape, dtype=dtype), bits_of(generator))


def test_the_table_has_the_moments_of_a_normal():
    q = _quantiles()
    assert len(q) == STRATA
    assert q.mean().abs() < 1e-12
    assert q.square().mean() == pytest.approx(1, abs=1e-12)
    assert (q + q.flip(0)).abs().max() < 1e-9
    # Cumulants of independent summands add: the excess kurtosis of z_1 is 0.6^4 + 0.8^4 of q's.
    assert (q.pow(4).mean() - 3).abs() * (0.6**4 + 0.8**4) < 2e-4
    assert (q.pow(6).mean() - 15).abs() < 0.05


def test_the_rotated_pair_has_the_distribution_function_of_a_normal():
    """P(z_1 <= x) = E[F_q((5 x - 4 q_j) / 3)], exactly, over all 2^32 pairs; q alone is worse."""
    q = _quantiles().numpy()
    for x in (-4.5, -3.0, -1.234, 0.0, 0.001, 0.7, 2.5, 4.0):
        below = np.searchsorted(q, (5 * x - 4 * q) / 3, side="right") / STRATA
        assert abs(below.mean() - stats.norm.cdf(x)) < 5e-7
    alone = np.abs((np.arange(STRATA) + 1) / STRATA - stats.norm.cdf(q)).max()
    assert alone > 5e-6


def test_four_million_variates_pass_and_a_deviation_of_half_a_percent_does_not():
    z = drawn((2**22,))
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(1.005 * z.numpy(), "norm").pvalue < 1e-6
    assert z.abs().max() > 4.8  # the table alone ends at 4.39


def test_neither_values_nor_squares_are_correlated_where_pairs_were_rotated():
    """What is not normal does not survive it: for uniforms a rotation couples the squares."""
    z = drawn((2**21,)).double().view(2, -1)
    bound = 5 / math.sqrt(z.shape[1])
    for power in (1, 2, 3):
        assert abs(float(torch.corrcoef(z**power)[0, 1])) < bound
    uniform = torch.rand(2, 2**20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, second = uniform - 0.5
    turned = torch.stack([3 * first + 4 * second, 3 * second - 4 * first])
    assert abs(float(torch.corrcoef(turned**2)[0, 1])) > 10 * bound


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (5, 1, 7), (1, 1, 1), (33, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_variates_is_filled(shape, dtype):
    out = standard_normal_(
        torch.full(shape, math.nan, dtype=dtype), bits_of(torch.Generator().manual_seed(0))
    )
    assert out.isfinite().all()


def test_a_generator_determines_its_bits_and_moves_on():
    generator = torch.Generator().manual_seed(3)
    first, second = bits_of(generator).random_raw(4), bits_of(generator).random_raw(4)
    again = bits_of(torch.Generator().manual_seed(3)).random_raw(4)
    assert (first == again).all()
    assert (first != second).all()


@pytest.mark.parametrize("rows", [3, 1000])
def test_both_ways_of_drawing_have_the_law(rows):
    """Below and above `FEW_VARIATES`; the mean squared score is chi-square over its count."""
    n, dim = 32, 16
    assert (rows * n * dim < FEW_VARIATES) == (rows == 3)
    mean, std = torch.randn(2, rows, dim, generator=torch.Generator().manual_seed(5))
    std = std.abs() + 0.1
    law = Law(torch.zeros(rows, dtype=torch.int64), mean, std)
    x = law.draw(n, torch.Generator().manual_seed(6))
    z = ((x - mean.unsqueeze(1)) / std.unsqueeze(1)).flatten()
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    assert float(z.square().sum()) == pytest.approx(len(z), abs=5 * math.sqrt(2 * len(z)))


@pytest.mark.parametrize("dim", [4, FEW_VARIATES // 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_requests_noise_is_its_own_whatever_else_is_in_the_batch(dim, dtype):
    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]

    together = Noise(generators(), [2, 1, 5])
    alone = [Noise([one], [rows]) for one, rows in zip(generators(), (2, 1, 5), strict=True)]
    for shape in [(dim,), (3, dim), (dim,)]:
        parts = torch.cat([one.normal(*shape, dtype=dtype) for one in alone])
        got = together.normal(*shape, dtype=dtype)
        assert got.shape == (8, *shape)
        assert got.dtype == dtype
        assert torch.equal(got, parts)
    assert not torch.equal(together.normal(dim), together.normal(dim))
