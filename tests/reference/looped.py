"""The slow twins: Eq. 10 as a plain loop, and the transition rules by brute force."""

import math

import torch
from torch import Tensor

from core.denoiser import Denoiser
from core.schedule import Schedule


def looped_chain(
    denoiser: Denoiser, schedule: Schedule, condition: Tensor, z: Tensor
) -> dict[int, Tensor]:
    """Every x_{d,t} of Algorithm 1, line 11, from x_{d,T} = z: one network call per step."""
    states = {schedule.num_steps: z}
    x = z
    for t in range(schedule.num_steps, 0, -1):
        rows = torch.full((len(condition),), t)
        gamma, eta = denoiser.coefficients(rows, denoiser.prepare(condition))
        eps = gamma * x + eta
        alpha, alpha_bar = float(schedule.alpha[t]), float(schedule.alpha_bar[t])
        x = (x - (1 - alpha) / math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha)
        states[t - 1] = x
    return states


def ancestral_chain(
    denoiser: Denoiser,
    schedule: Schedule,
    condition: Tensor,
    z: Tensor,
    generator: torch.Generator,
) -> dict[int, Tensor]:
    """The same with the posterior's noise added at every step but the last (Ho et al., Alg. 2)."""
    states = {schedule.num_steps: z}
    x = z
    for t in range(schedule.num_steps, 0, -1):
        rows = torch.full((len(condition),), t)
        gamma, eta = denoiser.coefficients(rows, denoiser.prepare(condition))
        alpha, alpha_bar = float(schedule.alpha[t]), float(schedule.alpha_bar[t])
        before = float(schedule.alpha_bar[t - 1])
        x = (x - (1 - alpha) / math.sqrt(1 - alpha_bar) * (gamma * x + eta)) / math.sqrt(alpha)
        if t > 1:
            sigma = math.sqrt((1 - before) / (1 - alpha_bar) * (1 - alpha))
            x = x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        states[t - 1] = x
    return states


def eq11(score: float, num_steps: int, omega: float = 1.0, k: float = 1.0) -> float:
    """Eq. 11 for one pair, not rounded."""
    return num_steps / (1 + math.exp(-omega * math.exp(k * score)))
