"""Noise schedules: how much of the clean sample is left after t steps (ADAR Eq. 1-2).

Eq. 9 starts the reverse chain at N(0, I), which is right only where almost nothing of the signal is
left at t = T. So every schedule here, whatever its shape and its number of steps, ends at the same
`FINAL_ALPHA_BAR`, that of DDPM's 1000-step linear schedule.

Differs from the papers: they give betas for one number of steps; we respace a continuous curve to
any T, and raise the end of the cosine and sigmoid curves to `FINAL_ALPHA_BAR`, since their own ends
(about 1e-9) make the last step divide by sqrt(alpha_T) ~ 1e-3 and blow samples up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from core.errors import ConfigError

FINE_STEPS = 1000
_LINEAR_LOG = torch.log1p(-torch.linspace(1e-4, 0.02, FINE_STEPS, dtype=torch.float64)).cumsum(0)
FINAL_ALPHA_BAR = math.exp(float(_LINEAR_LOG[-1]))  # 4.04e-5


@dataclass(frozen=True)
class Schedule:
    """Tables over t = 0..T, float64 on the CPU.

    Attributes:
        name: the curve's name in `SCHEDULES`.
        alpha_bar: (T+1,) share of the signal's variance left at t; `alpha_bar[0] = 1`.
        alpha: (T+1,) `alpha_bar[t] / alpha_bar[t-1]`; `alpha[0] = 1` by convention.
    """

    name: str
    alpha_bar: Float64[Tensor, "T1"]
    alpha: Float64[Tensor, "T1"]

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.alpha_bar) - 1

    @property
    def snr(self) -> Float64[Tensor, "T1"]:
        """(T+1,) abar_t / (1 - abar_t); infinite at t = 0."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @property
    def posterior_mean(self) -> tuple[Float64[Tensor, "T1"], Float64[Tensor, "T1"]]:
        """(a, b), (T+1,) each, of E[x_{t-1} | x_t, x_0] = a_t x_0 + b_t x_t; (1, 0) at t = 0, 1."""
        of_clean, of_state = torch.ones_like(self.alpha), torch.zeros_like(self.alpha)
        left, before = 1 - self.alpha_bar[1:], self.alpha_bar[:-1]
        of_clean[1:] = before.sqrt() * (1 - self.alpha[1:]) / left
        of_state[1:] = self.alpha[1:].sqrt() * (1 - before) / left
        return of_clean, of_state

    @property
    def ancestral_variance(self) -> Float64[Tensor, "T1"]:
        """(T+1,) sigma_t^2 = (1 - abar_{t-1})/(1 - abar_t) beta_t of ancestral sampling."""
        variance = torch.zeros_like(self.alpha_bar)
        left = 1 - self.alpha_bar
        variance[1:] = left[:-1] / left[1:] * (1 - self.alpha[1:])
        return variance


def linear_variance(
    num_steps: int, first: float = 1e-5, last: float = 2e-3, name: str = "linear_variance"
) -> Schedule:
    """1 - abar_t rises linearly from `first` at t = 1 to `last` at t = T (DiffRec, 2023).

    Next to the schedules below it adds hardly any noise: what comes back is near what went in.

    Raises:
        ConfigError: `num_steps` outside [1, 1000].
    """
    _check_steps(num_steps)
    left = torch.linspace(first, last, num_steps, dtype=torch.float64)
    return _from_alpha_bar(name, torch.cat([torch.ones(1, dtype=torch.float64), 1 - left]))


def make_schedule(name: str, num_steps: int) -> Schedule:
    """The named schedule, respaced to `num_steps` steps.

    Args:
        name: one of `SCHEDULES`: linear, cosine, sigmoid.
        num_steps: T, from 1 to 1000.

    Raises:
        ConfigError: unknown name, or `num_steps` outside [1, 1000].
    """
    if name not in SCHEDULES:
        raise ConfigError(f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}")
    _check_steps(num_steps)
    progress = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
    return _from_alpha_bar(name, SCHEDULES[name](progress))


def _check_steps(num_steps: int) -> None:
    if not 1 <= num_steps <= FINE_STEPS:
        raise ConfigError(f"num_steps = {num_steps}; it must lie in [1, {FINE_STEPS}]")


def _from_alpha_bar(name: str, alpha_bar: Float64[Tensor, "T1"]) -> Schedule:
    alpha = torch.ones_like(alpha_bar)
    alpha[1:] = alpha_bar[1:] / alpha_bar[:-1]
    return Schedule(name, alpha_bar, alpha)


def _linear(progress: Float64[Tensor, "T1"]) -> Float64[Tensor, "T1"]:
    """DDPM's 1000 betas 1e-4..0.02 (Ho et al. 2020), read at the nearest of its steps."""
    fine = torch.cat([torch.zeros(1, dtype=torch.float64), _LINEAR_LOG]).exp()
    return fine[(progress * FINE_STEPS).round().long()]


def _cosine(progress: Float64[Tensor, "T1"]) -> Float64[Tensor, "T1"]:
    """cos^2 with offset 0.008 (Nichol and Dhariwal 2021, Eq. 17)."""
    curve = torch.cos((progress + 0.008) / 1.008 * math.pi / 2).square()
    return _rescale(curve)


def _sigmoid(progress: Float64[Tensor, "T1"]) -> Float64[Tensor, "T1"]:
    """A logistic from -3 to 3 (Jabri et al. 2022)."""
    return _rescale(torch.sigmoid(3 - 6 * progress))


def _rescale(curve: Float64[Tensor, "T1"]) -> Float64[Tensor, "T1"]:
    """Map a falling curve affinely onto [1, FINAL_ALPHA_BAR]."""
    unit = (curve - curve[-1]) / (curve[0] - curve[-1])
    return FINAL_ALPHA_BAR + (1 - FINAL_ALPHA_BAR) * unit


SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": _linear,
    "cosine": _cosine,
    "sigmoid": _sigmoid,
}
