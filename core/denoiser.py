"""Noise predictors that are affine in x_t, element by element (ADAR Eq. 5-7).

    eps_theta(x_t, t, u) = gamma(t, u) * x_t + eta(t, u)

Both denoisers here answer with (gamma, eta) alone; that is what lets `core.chain` collapse the
whole reverse chain. `prepare` does the work that depends on the user only or on the step only,
once; `coefficients` the rest, for a t per row (training); `transfer` puts it into the terms of the
reverse step, for one t:

    x_{t-1} = m_t x_t + n_t,    m_t = 1/sqrt(alpha_t) - k_t gamma,    n_t = -k_t eta
    k_t = (1 - alpha_t) / (sqrt(alpha_t) sqrt(1 - abar_t))                              (Eq. 10)

Written so, m_t is the small difference of two large numbers wherever alpha_t is small (T = 1: 157 -
157). Each denoiser gives it in a form without that cancellation; since k_t sqrt(1 - abar_t) =
1/sqrt(alpha_t) - sqrt(alpha_t), both start from m_t = sqrt(alpha_t) at gamma = sqrt(1 - abar_t).
"""

import math
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.errors import ConfigError
from core.schedule import Schedule

Coefficients = tuple[Float[Tensor, "B d"], Float[Tensor, "B d"]]


class Prepared(NamedTuple):
    """What is computed once a call.

    Attributes:
        users: what depends on the user alone, each (B, ...).
        steps: what depends on the step alone, each (T + 1, ...).
    """

    users: tuple[Tensor, ...]
    steps: tuple[Tensor, ...] = ()

    def rows(self, which: slice) -> "Prepared":
        """The same for some of the users."""
        return Prepared(tuple(part[which] for part in self.users), self.steps)


@runtime_checkable
class Denoiser(Protocol):
    """What the chain and the loss need of a noise predictor.

    Attributes:
        signal: (T+1,) sqrt(abar_t), float64: cast where it meets data.
        noise: (T+1,) sqrt(1 - abar_t), likewise.
    """

    signal: Float[Tensor, "T1"]
    noise: Float[Tensor, "T1"]

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """The parts that depend on the user alone, and on the step alone."""
        ...

    def coefficients(self, t: Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(gamma, eta) of Eq. 7 at a step t in [1, T] per row, for the prepared users."""
        ...

    def transfer(self, t: int, prepared: Prepared) -> Coefficients:
        """(m_t, n_t) of the reverse step from t to t - 1, one t in [1, T] for all rows."""
        ...


@runtime_checkable
class ClosedChain(Protocol):
    """A denoiser whose chain needs no steps: x_t = A_t z + B_t by formula, for any t."""

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """The part that depends on the user alone."""
        ...

    def state(self, t: Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(A_t, B_t) at a step t in [0, T] per row."""
        ...


class Levelled(nn.Module):
    """The tables over t that every denoiser here needs; none of them is part of its checkpoint.

    Attributes:
        root_alpha: (T+1,) sqrt(alpha_t).
        k: (T+1,) k_t above; 0 at t = 0.
    """

    signal: Tensor
    noise: Tensor
    root_alpha: list[float]
    k: list[float]

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        signal, noise = schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt()
        self.register_buffer("signal", signal, persistent=False)
        self.register_buffer("noise", noise, persistent=False)
        root = schedule.alpha.sqrt()
        self.root_alpha = root.tolist()
        self.k = [0.0, *((1 - schedule.alpha) / (root * noise))[1:].tolist()]


class FiLMDenoiser(Levelled):
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

    time_codes: Tensor
    levels: Tensor

    def __init__(self, schedule: Schedule, dim: int, hidden: int = 128, time_dim: int = 64) -> None:
        super().__init__(schedule)
        self.time = nn.Linear(time_dim, hidden)
        self.user = nn.Linear(dim, hidden, bias=False)
        self.out = nn.Linear(hidden, 2 * dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        codes = time_embedding(schedule.num_steps, time_dim)
        self.register_buffer("time_codes", codes.float(), persistent=False)
        levels = torch.tensor([self.root_alpha, self.k], dtype=torch.float64)
        self.register_buffer("levels", levels.unsqueeze(-1), persistent=False)

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """W_u e_u, (B, hidden); W_t e_t + b, (T+1, hidden), and (m, n) at hidden = 0, (T+1, 2d)."""
        gamma, eta = self.out.bias.chunk(2)
        root_alpha, k = self.levels.to(gamma.dtype)
        neutral = torch.cat([root_alpha - k * gamma, -k * eta], dim=-1)
        return Prepared((self.user(condition),), (self.time(self.time_codes), neutral))

    def coefficients(self, t: Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(gamma, eta), each (B, d)."""
        (user,), (time, _) = prepared
        hidden = nn.functional.silu(nn.functional.embedding(t, time) + user)
        gamma, eta = self.out(hidden).chunk(2, dim=-1)
        return gamma + self.noise.to(user.dtype)[t].unsqueeze(-1), eta

    def transfer(self, t: int, prepared: Prepared) -> Coefficients:
        """(m_t, n_t), each (B, d): sqrt(alpha_t) - k_t (gamma - noise_t) and -k_t eta."""
        (user,), (time, neutral) = prepared
        hidden = nn.functional.silu(user + time[t])
        transfer = torch.addmm(neutral[t], hidden, self.out.weight.T, alpha=-self.k[t])
        m, n = transfer.chunk(2, dim=-1)
        return m, n


class MomentHead(Levelled):
    """One MLP e_u -> (m, log s); gamma and eta follow in closed form (method 3.3).

    For x_0 | u ~ N(m, s^2), element by element, the best affine predictor of eps is

        gamma* = sqrt(1 - abar_t) / (abar_t s^2 + 1 - abar_t);  eta* = -gamma* sqrt(abar_t) m

    so one network evaluation per user serves every t. And the chain closes. With v_t = abar_t s^2 +
    1 - abar_t, the variance of x_t, Eq. 10 becomes m_t = sqrt(alpha_t) v_{t-1}/v_t, whose product
    telescopes; and B_t = sqrt(abar_t) m solves the recursion but for its start B_T = 0, whose error
    shrinks with A_t. So, exactly,

        A_t = sqrt(abar_T / abar_t) v_t / v_T;    B_t = (sqrt(abar_t) - A_t sqrt(abar_T)) m

    Differs from the paper: the paper has no such head; it is the linear MMSE estimator.

    Args:
        schedule: gives T and abar.
        dim: d.
        hidden: width of the hidden layer.
    """

    def __init__(self, schedule: Schedule, dim: int, hidden: int = 128) -> None:
        super().__init__(schedule)
        self.hidden = nn.Linear(dim, hidden)
        self.out = nn.Linear(hidden, 2 * dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """(m, s^2), each (B, d), of the standardised x_0 given the user."""
        hidden = nn.functional.silu(self.hidden(condition))
        mean, log_std = self.out(hidden).chunk(2, dim=-1)
        return Prepared((mean, (2 * log_std).exp()))

    def coefficients(self, t: Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(gamma*, eta*), each (B, d)."""
        mean, variance = prepared.users
        return optimal_coefficients(*self._levels(t, mean.dtype), mean, variance)

    def transfer(self, t: int, prepared: Prepared) -> Coefficients:
        """(m_t, n_t), each (B, d): sqrt(alpha_t) v_{t-1}/v_t and k_t noise_t signal_t m / v_t."""
        mean, variance = prepared.users
        v = self._variance(self.signal[t], self.noise[t], variance)
        before = self._variance(self.signal[t - 1], self.noise[t - 1], variance)
        pull = self.k[t] * self.noise[t] * self.signal[t]
        return self.root_alpha[t] * before / v, pull * mean / v

    def state(self, t: Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(A_t, B_t), each (B, d), by the formulas above."""
        mean, variance = prepared.users
        signal, noise = self._levels(t, mean.dtype)
        last, noise_last = float(self.signal[-1]), float(self.noise[-1])
        v_last = variance.mul(last**2).add_(noise_last**2)
        rescaled = torch.addcmul(noise.square() * (last / signal), signal * last, variance)
        gain = rescaled.div_(v_last)  # sqrt(abar_T / abar_t) v_t / v_T
        return gain, torch.add(signal, gain, alpha=-last).mul_(mean)

    def _levels(self, t: Int[Tensor, " B"], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(signal, noise) at each row's t, (B, 1)."""
        signal, noise = (level.to(dtype)[t].unsqueeze(-1) for level in (self.signal, self.noise))
        return signal, noise

    @staticmethod
    def _variance(signal: Tensor, noise: Tensor, variance: Tensor) -> Tensor:
        """v_t = abar_t s^2 + 1 - abar_t."""
        return signal.square() * variance + noise.square()


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
