"""Noise predictors that are affine in x_t, element by element (ADAR Eq. 5-7).

    eps_theta(x_t, t, u) = gamma(t, u) * x_t + eta(t, u)

Both denoisers here answer with (gamma, eta) alone; that is what lets `core.chain` collapse the
whole reverse chain. `prepare` does the work that depends on the user only, once; `coefficients` the
rest, for one t or for a t per row. `signal` = sqrt(abar_t) and `noise` = sqrt(1 - abar_t) are made
in float64 and cast once.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.errors import ConfigError
from core.schedule import Schedule

Coefficients = tuple[Float[Tensor, "B d"], Float[Tensor, "B d"]]
Prepared = tuple[Tensor, ...]


@runtime_checkable
class Denoiser(Protocol):
    """What the chain and the loss need of a noise predictor."""

    signal: Float[Tensor, "T1"]
    noise: Float[Tensor, "T1"]

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """The part that depends on the user alone."""
        ...

    def coefficients(self, t: int | Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(gamma, eta) of Eq. 7 at step t, in [1, T], for the prepared users."""
        ...


class FiLMDenoiser(nn.Module):
    """gamma and eta by one MLP over time and user embedding (Eq. 5-7).

    The first layer is linear in [e_t ; e_u], so it is kept as W_t e_t + W_u e_u: the time part is a
    table over t and the user part is computed once per user.

    Differs from the paper: the MLP gives the *correction* to gamma = sqrt(1 - abar_t), the optimum
    for unit Gaussian data (method 3.3), and its last layer starts at zero. So an untrained chain
    already maps N(0, I) to N(0, I) where the plain MLP would blow it up by 1/sqrt(abar_T) = 157.

    Args:
        schedule: gives T and abar.
        dim: d, of users and items alike.
        hidden: width of the hidden layer.
        time_dim: width of the time embedding, even.
    """

    signal: Tensor
    noise: Tensor
    time_codes: Tensor

    def __init__(self, schedule: Schedule, dim: int, hidden: int = 128, time_dim: int = 64) -> None:
        super().__init__()
        self.time = nn.Linear(time_dim, hidden)
        self.user = nn.Linear(dim, hidden, bias=False)
        self.out = nn.Linear(hidden, 2 * dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        codes = time_embedding(schedule.num_steps, time_dim)
        self.register_buffer("time_codes", codes.float(), persistent=False)
        _register_levels(self, schedule)

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """W_u e_u, (B, hidden)."""
        return (self.user(condition),)

    def coefficients(self, t: int | Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(gamma, eta), each (B, d)."""
        (user,) = prepared
        hidden = nn.functional.silu(self.time(self.time_codes[t]) + user)
        gamma, eta = self.out(hidden).chunk(2, dim=-1)
        return gamma + self.noise[t].unsqueeze(-1), eta


class MomentHead(nn.Module):
    """One MLP e_u -> (m, log s); gamma and eta follow in closed form (method 3.3).

    For x_0 | u ~ N(m, s^2), element by element, the best affine predictor of eps is

        gamma* = sqrt(1 - abar_t) / (abar_t s^2 + 1 - abar_t);  eta* = -gamma* sqrt(abar_t) m

    so one network evaluation per user serves every t.

    Differs from the paper: the paper has no such head; it is the linear MMSE estimator.

    Args:
        schedule: gives T and abar.
        dim: d.
        hidden: width of the hidden layer.
    """

    signal: Tensor
    noise: Tensor

    def __init__(self, schedule: Schedule, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, hidden)
        self.out = nn.Linear(hidden, 2 * dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        _register_levels(self, schedule)

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """(m, s^2), each (B, d), of the standardised x_0 given the user."""
        hidden = nn.functional.silu(self.hidden(condition))
        mean, log_std = self.out(hidden).chunk(2, dim=-1)
        return mean, (2 * log_std).exp()

    def coefficients(self, t: int | Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(gamma*, eta*), each (B, d)."""
        mean, variance = prepared
        signal, noise = self.signal[t].unsqueeze(-1), self.noise[t].unsqueeze(-1)
        return optimal_coefficients(signal, noise, mean, variance)


def optimal_coefficients(
    signal: Float[Tensor, "..."],
    noise: Float[Tensor, "..."],
    mean: Float[Tensor, "B d"],
    variance: Float[Tensor, "B d"],
) -> Coefficients:
    """(gamma*, eta*): the linear MMSE estimator of eps from x_t for x_0 ~ N(mean, variance).

    Args:
        signal: sqrt(abar_t), broadcast against (B, d).
        noise: sqrt(1 - abar_t) > 0, likewise.
        mean: m, (B, d).
        variance: s^2 >= 0, (B, d).
    """
    gamma = noise / (signal.square() * variance + noise.square())
    return gamma, -gamma * signal * mean


def _register_levels(denoiser: nn.Module, schedule: Schedule) -> None:
    levels = {"signal": schedule.alpha_bar.sqrt(), "noise": (1 - schedule.alpha_bar).sqrt()}
    for name, table in levels.items():
        denoiser.register_buffer(name, table.float(), persistent=False)


def time_embedding(num_steps: int, time_dim: int) -> Float[Tensor, "T1 time_dim"]:
    """PE(t) for t = 0..T (Eq. 6): sin at even, cos at odd indices.

    Differs from the paper: Eq. 6 as printed lets the exponent run to -2; we pair sin and cos on one
    frequency, 10000^(-2j/time_dim), as Ho et al. (2020), whom the paper follows, do.

    Raises:
        ConfigError: `time_dim` is odd or below 2.
    """
    if time_dim < 2 or time_dim % 2:
        raise ConfigError(f"time_dim = {time_dim}; it must be even and at least 2")
    frequency = torch.exp(-math.log(10_000) * torch.arange(0, time_dim, 2) / time_dim)
    angle = torch.arange(num_steps + 1).double().unsqueeze(1) * frequency.double()
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)
