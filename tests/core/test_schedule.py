import pytest
import torch

from core.errors import ConfigError
from core.schedule import FINAL_ALPHA_BAR, SCHEDULES, make_schedule

STEPS = [1, 2, 20, 50, 1000]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", STEPS)
def test_falls_from_one_to_the_common_end(name, num_steps):
    schedule = make_schedule(name, num_steps)
    assert schedule.num_steps == num_steps
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha_bar[0] == 1
    assert schedule.alpha_bar[-1] == pytest.approx(FINAL_ALPHA_BAR, rel=1e-9)
    assert (schedule.alpha_bar.diff() < 0).all()
    assert torch.allclose(schedule.alpha.cumprod(0), schedule.alpha_bar, rtol=1e-12)


def test_linear_at_1000_steps_is_ddpm():
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    expected = (1 - beta).cumprod(0)
    assert torch.allclose(make_schedule("linear", 1000).alpha_bar[1:], expected, rtol=1e-12)


def test_fifty_betas_of_that_range_would_not_reach_noise():
    """Why the schedule is respaced: 50 betas of DDPM's range leave 60 % of the signal."""
    beta = torch.linspace(1e-4, 0.02, 50, dtype=torch.float64)
    assert (1 - beta).prod() > 0.59
    assert make_schedule("linear", 50).alpha_bar[-1] < 1e-4


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", STEPS)
def test_ancestral_variance_is_the_posteriors(name, num_steps):
    """1/sigma^2 = alpha/beta + 1/(1 - abar_{t-1}), the product of two Gaussians (t > 1)."""
    schedule = make_schedule(name, num_steps)
    sigma2 = schedule.ancestral_variance
    assert sigma2[0] == 0
    assert sigma2[1] == 0
    alpha, before = schedule.alpha[2:], schedule.alpha_bar[1:-1]
    precision = alpha / (1 - alpha) + 1 / (1 - before)
    assert torch.allclose(sigma2[2:], 1 / precision, rtol=1e-9)


@pytest.mark.parametrize("num_steps", [0, -1, 1001])
def test_refuses_impossible_lengths(num_steps):
    with pytest.raises(ConfigError, match=f"num_steps = {num_steps}"):
        make_schedule("linear", num_steps)


def test_refuses_an_unknown_name():
    with pytest.raises(ConfigError, match="'lineal'; known: linear, cosine, sigmoid"):
        make_schedule("lineal", 50)
