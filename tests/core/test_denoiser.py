import math

import pytest
import torch

from core import chain
from core.denoiser import FiLMDenoiser, MomentHead, Prepared, optimal_coefficients, time_embedding
from core.errors import ConfigError
from core.losses import diffusion_loss
from core.schedule import make_schedule
from tests.core.conftest import make_denoiser

KINDS = ["film", "moment"]


def test_time_embedding_pairs_sine_and_cosine():
    table = time_embedding(50, 8)
    assert table.shape == (51, 8)
    for j in range(4):
        angle = 3 * 10_000 ** (-2 * j / 8)
        assert table[3, 2 * j] == pytest.approx(math.sin(angle), abs=1e-6)
        assert table[3, 2 * j + 1] == pytest.approx(math.cos(angle), abs=1e-6)


@pytest.mark.parametrize("time_dim", [0, 1, 7])
def test_time_embedding_refuses_odd_widths(time_dim):
    with pytest.raises(ConfigError, match=f"time_dim = {time_dim}"):
        time_embedding(50, time_dim)


def test_split_first_layer_is_the_layer_on_the_concatenation(generator):
    schedule = make_schedule("linear", 20)
    film = make_denoiser("film", schedule, dim=6)
    users = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    t = torch.tensor([1, 5, 9, 20, 20])
    joined = torch.cat([film.time_codes[t], users], dim=-1)
    weight = torch.cat([film.time.weight, film.user.weight], dim=-1)
    hidden = torch.nn.functional.silu(joined @ weight.T + film.time.bias)
    gamma, eta = film.out(hidden).chunk(2, dim=-1)
    got_gamma, got_eta = film.coefficients(t, film.prepare(users))
    assert torch.allclose(got_gamma, gamma + film.noise[t].unsqueeze(-1), rtol=1e-12)
    assert torch.allclose(got_eta, eta)


@pytest.mark.parametrize("kind", KINDS)
def test_transfer_is_the_reverse_step_in_gamma_and_eta(kind, generator):
    schedule = make_schedule("cosine", 20)
    denoiser = make_denoiser(kind, schedule, dim=6)
    prepared = denoiser.prepare(torch.randn(5, 6, generator=generator, dtype=torch.float64))
    for t in (1, 7, 20):
        gamma, eta = denoiser.coefficients(torch.full((5,), t), prepared)
        m, n = denoiser.transfer(t, prepared)
        alpha, alpha_bar = schedule.alpha[t], schedule.alpha_bar[t]
        k = (1 - alpha) / (alpha.sqrt() * (1 - alpha_bar).sqrt())
        assert torch.allclose(m, 1 / alpha.sqrt() - k * gamma, rtol=1e-10)
        assert torch.allclose(n, -k * eta, rtol=1e-10)


@pytest.mark.parametrize("kind", [FiLMDenoiser, MomentHead])
def test_untrained_means_unit_gaussian_data(kind):
    """Both start at the optimum for x_0 ~ N(0, 1): gamma = sqrt(1 - abar), eta = 0."""
    denoiser = kind(make_schedule("linear", 50), 4)
    gamma, eta = denoiser.coefficients(torch.full((3,), 30), denoiser.prepare(torch.randn(3, 4)))
    assert torch.allclose(gamma, denoiser.noise[30].float().expand(3, 4))
    assert not eta.any()


def test_optimum_is_the_regression_of_noise_on_the_sample(generator):
    """gamma*, eta* against least squares on draws; a 10 % wrong variance must not pass."""
    mean, std, abar = 0.7, 0.5, 0.4
    size = 400_000
    x_0 = mean + std * torch.randn(size, generator=generator, dtype=torch.float64)
    eps = torch.randn(size, generator=generator, dtype=torch.float64)
    x_t = abar**0.5 * x_0 + (1 - abar) ** 0.5 * eps
    slope = ((x_t - x_t.mean()) * eps).mean() / x_t.var()
    intercept = eps.mean() - slope * x_t.mean()

    def optimum(variance: float):
        as_rows = [torch.tensor([[v]], dtype=torch.float64) for v in (mean, variance)]
        levels = (torch.tensor(v, dtype=torch.float64).sqrt() for v in (abar, 1 - abar))
        gamma, eta = optimal_coefficients(*levels, *as_rows)
        return gamma.item(), eta.item()

    # The standard error of the slope is about 0.001 at this size: 5 of them are allowed.
    assert optimum(std**2) == pytest.approx((slope.item(), intercept.item()), abs=0.005)
    assert optimum(1.1 * std**2) != pytest.approx((slope.item(), intercept.item()), abs=0.005)


class GaussianWorld:
    """Users with a known law: x_0 | u ~ N(m(u), s(u)^2), m and s smooth in u."""

    def __init__(self, dim: int = 3, seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)
        self.dim, self.generator = dim, g
        self.mean_map = torch.randn(dim, dim, generator=g) / dim**0.5
        self.std_map = torch.randn(dim, dim, generator=g) / dim**0.5

    def users(self, rows: int) -> torch.Tensor:
        return torch.randn(rows, self.dim, generator=self.generator)

    def moments(self, users: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tanh(users @ self.mean_map), 0.5 + 0.3 * torch.tanh(users @ self.std_map)

    def draw(self, users: torch.Tensor) -> torch.Tensor:
        mean, std = self.moments(users)
        return mean + std * torch.randn(mean.shape, generator=self.generator)


def train(denoiser, schedule, world: GaussianWorld, steps: int, *, shuffled: bool = False) -> None:
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    anneal = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        users = world.users(1024)
        x_0 = world.draw(users)
        condition = users.roll(1, 0) if shuffled else users
        optimizer.zero_grad()
        diffusion_loss(denoiser, schedule, x_0, condition, world.generator).total.backward()
        optimizer.step()
        anneal.step()


def distance_to_optimum(denoiser, schedule, world: GaussianWorld) -> tuple[float, float]:
    """Relative RMS error of (gamma, eta) against (gamma*, eta*) over fresh users and all t."""
    users = world.users(512)
    mean, std = world.moments(users)
    prepared = denoiser.prepare(users)
    wrong, right = torch.zeros(2), torch.zeros(2)
    for t in range(1, schedule.num_steps + 1):
        with torch.no_grad():
            got = denoiser.coefficients(torch.full((512,), t), prepared)
        best = optimal_coefficients(denoiser.signal[t], denoiser.noise[t], mean, std.square())
        wrong += torch.stack([(a - b).square().mean() for a, b in zip(got, best, strict=True)])
        right += torch.stack([b.square().mean() for b in best])
    gamma, eta = (wrong / right).sqrt().tolist()
    return gamma, eta


class Optimal:
    """The denoiser of the closed form, for users whose moments are known."""

    def __init__(self, schedule, moments):
        self.signal, self.noise = schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt()
        self.alpha, self.moments = schedule.alpha, moments

    def prepare(self, condition):
        return Prepared(self.moments(condition))

    def coefficients(self, t, prepared):
        mean, std = prepared.users
        signal, noise = self.signal[t].unsqueeze(-1), self.noise[t].unsqueeze(-1)
        return optimal_coefficients(signal, noise, mean, std.square())

    def transfer(self, t, prepared):
        rows = torch.full(prepared.users[0].shape[:1], t)
        gamma, eta = self.coefficients(rows, prepared)
        root = self.alpha[t].sqrt()
        k = (1 - self.alpha[t]) / (root * self.noise[t])
        return 1 / root - k * gamma, -k * eta


def law_error(denoiser, schedule, world, users, t: int) -> tuple[float, float]:
    """Relative RMS error of the law's mean and deviation at t against the optimal chain's."""
    stop = torch.full((len(users),), t)
    optimal = Optimal(schedule, world.moments)
    with torch.no_grad():
        got, best = (chain.at_step(d, schedule, users, stop) for d in (denoiser, optimal))
    pairs = ((got.mean, best.mean), (got.std, best.std))
    mean, std = (float((a - b).norm() / b.norm()) for a, b in pairs)
    return mean, std


@pytest.mark.parametrize("kind", [FiLMDenoiser, MomentHead])
def test_training_approaches_the_closed_form(kind):
    """Method 3.3: a trained denoiser is a conditional Gaussian in disguise.

    Negative control: trained on another user's samples, it misses by far more than the bound.
    """
    schedule = make_schedule("linear", 20)
    world = GaussianWorld()
    torch.manual_seed(0)
    trained, control = (kind(schedule, world.dim, hidden=64) for _ in range(2))
    untrained = distance_to_optimum(trained, schedule, world)
    train(trained, schedule, world, 3000)
    train(control, schedule, world, 300, shuffled=True)
    gamma_error, eta_error = distance_to_optimum(trained, schedule, world)
    assert gamma_error < 0.06
    assert eta_error < 0.15
    assert untrained[0] > 3 * gamma_error
    assert distance_to_optimum(control, schedule, world)[1] > 0.5

    users = world.users(512)
    for t in (8, 4, 1):
        mean_error, std_error = law_error(trained, schedule, world, users, t)
        assert mean_error < 0.1
        assert std_error < 0.12
        assert law_error(control, schedule, world, users, t)[0] > 0.5
