import math

import pytest
import torch

from core import losses
from core.errors import ConfigError
from core.schedule import make_schedule
from tests.core.conftest import make_denoiser
from tests.reference.looped import looped_chain


def pairs(generator, rows=64, dim=6):
    return torch.randn(2, rows, dim, generator=generator, dtype=torch.float64)


def test_bpr_by_hand():
    positive, negative = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])
    expected = sum(-math.log(1 / (1 + math.exp(-m))) for m in (1.0, -2.0)) / 2
    assert losses.bpr(positive, negative).item() == pytest.approx(expected)


def test_bpr_neither_overflows_nor_loses_its_gradient():
    margin = torch.tensor([-1e4, -40.0, 0.0, 40.0, 1e4], requires_grad=True)
    loss = losses.bpr(margin, torch.zeros(5))
    loss.backward()
    assert loss.isfinite()
    assert margin.grad is not None
    assert torch.allclose(margin.grad * 5, -torch.sigmoid(-margin.detach()), atol=1e-12)


def test_augmented_bpr_by_hand_and_at_weight_zero():
    positive, negative, generated = torch.randn(3, 5)
    margin = positive - (negative + 0.3 * generated)
    expected = -torch.nn.functional.logsigmoid(margin).mean()
    assert torch.allclose(losses.augmented_bpr(positive, negative, generated, 0.3), expected)
    plain = losses.augmented_bpr(positive, negative, generated, 0.0)
    assert torch.equal(plain, losses.bpr(positive, negative))


@pytest.mark.parametrize("kind", ["film", "moment"])
@pytest.mark.parametrize("num_steps", [1, 2, 50])
def test_one_step_reading_is_the_estimate_of_x_0(kind, num_steps, generator):
    """With no cap, the second term is ||x_0 - x0_hat||^2 computed literally from x_t."""
    schedule = make_schedule("linear", num_steps)
    denoiser = make_denoiser(kind, schedule, 6)
    users, x_0 = pairs(generator)
    state = generator.get_state()
    got = losses.diffusion_loss(denoiser, schedule, x_0, users, generator, weight_cap=math.inf)
    generator.set_state(state)
    t = torch.randint(1, num_steps + 1, (64,), generator=generator)
    eps = torch.randn(64, 6, generator=generator, dtype=torch.float64)
    abar = schedule.alpha_bar[t].unsqueeze(-1)
    x_t = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
    gamma, eta = denoiser.coefficients(t, denoiser.prepare(users))
    predicted = gamma * x_t + eta
    x0_hat = (x_t - (1 - abar).sqrt() * predicted) / abar.sqrt()
    expected = [(eps - predicted).square().mean().item(), (x_0 - x0_hat).square().mean().item()]
    assert [term.item() for term in got] == pytest.approx(expected, rel=1e-9)
    assert got.total == got.noise + got.reconstruction


def test_the_cap_bounds_the_weight(generator):
    schedule = make_schedule("linear", 50)
    denoiser = make_denoiser("film", schedule, 6)
    users, x_0 = pairs(generator)
    capped = losses.diffusion_loss(denoiser, schedule, x_0, users, generator, weight_cap=5.0)
    assert capped.reconstruction <= 5 * capped.noise


def test_chain_reading_is_the_mean_over_noise_of_the_looped_chains_end(generator):
    """(x_0 - B_0)^2 + A_0^2 against the loop over 4,000 draws of z per row, within 3 %."""
    schedule = make_schedule("linear", 20)
    denoiser = make_denoiser("film", schedule, 6)
    users, x_0 = pairs(generator, rows=3)
    got = losses.diffusion_loss(
        denoiser, schedule, x_0, users, generator, reconstruction="chain"
    ).reconstruction
    many = users.repeat_interleave(4000, 0)
    z = torch.randn(many.shape, generator=generator, dtype=torch.float64)
    end = looped_chain(denoiser, schedule, many, z)[0]
    sampled = (x_0.repeat_interleave(4000, 0) - end).square().mean()
    assert got.item() == pytest.approx(sampled.item(), rel=0.03)


@pytest.mark.parametrize("kind", ["film", "moment"])
@pytest.mark.parametrize("reconstruction", losses.RECONSTRUCTIONS)
def test_every_parameter_learns(kind, reconstruction, generator):
    schedule = make_schedule("linear", 20)
    denoiser = make_denoiser(kind, schedule, 6).requires_grad_(True)
    users, x_0 = pairs(generator)
    losses.diffusion_loss(
        denoiser, schedule, x_0, users, generator, reconstruction=reconstruction
    ).total.backward()
    for name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_refuses_an_unknown_reading(generator):
    schedule = make_schedule("linear", 20)
    users, x_0 = pairs(generator)
    with pytest.raises(ConfigError, match="reconstruction = 'both'; known: one_step, chain"):
        losses.diffusion_loss(
            make_denoiser("film", schedule, 6),
            schedule,
            x_0,
            users,
            generator,
            reconstruction="both",
        )
