"""DMNS by the loop: one block after the other applied to x, ancestral sampling step by step."""

import math

import torch
from torch import Tensor

from core.samplers.dmns import StackedFiLM
from core.schedule import Schedule


def blocks(denoiser: StackedFiLM, x: Tensor, t: int, condition: Tensor) -> Tensor:
    """eps_theta as the paper writes it: h <- (gamma + 1) h + delta, twice."""
    code = denoiser.time(denoiser.time_codes[t].to(x.dtype)) + condition
    gamma_1, delta_1, gamma_2, delta_2 = denoiser.film(code).chunk(4, dim=-1)
    h = x
    for gamma, delta in ((gamma_1, delta_1), (gamma_2, delta_2)):
        h = (gamma + 1) * h + delta
    return h


def sampled(
    denoiser: StackedFiLM, schedule: Schedule, condition: Tensor, z: Tensor, noise: list[Tensor]
) -> dict[int, Tensor]:
    """Every x_t from x_T = z, adding sigma_t noise[t] on the way from t to t - 1."""
    x, states = z, {schedule.num_steps: z}
    for t in range(schedule.num_steps, 0, -1):
        alpha, alpha_bar = float(schedule.alpha[t]), float(schedule.alpha_bar[t])
        before = float(schedule.alpha_bar[t - 1])
        eps = blocks(denoiser, x, t, condition)
        x = (x - (1 - alpha) / math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha)
        x = x + math.sqrt((1 - before) / (1 - alpha_bar) * (1 - alpha)) * noise[t]
        states[t - 1] = x
    return states


def exact_law(
    denoiser: StackedFiLM, schedule: Schedule, condition: Tensor
) -> dict[int, tuple[Tensor, Tensor]]:
    """(mean, variance) of every x_t, from one run of the loop for each source of noise.

    The loop is affine in (z, noise): its value at 0 is the mean, and the squares of what a unit of
    each source adds sum up to the variance.
    """
    zero = torch.zeros_like(condition)
    silent = [zero] * (schedule.num_steps + 1)
    mean = sampled(denoiser, schedule, condition, zero, silent)
    variance = dict.fromkeys(mean, zero)
    for source in range(schedule.num_steps + 1):  # z is source 0
        noise = [zero + (t == source) for t in range(schedule.num_steps + 1)]
        z = zero + 1 if source == 0 else zero
        states = sampled(denoiser, schedule, condition, z, silent if source == 0 else noise)
        variance = {t: variance[t] + (states[t] - mean[t]).square() for t in mean}
    return {t: (mean[t], variance[t]) for t in mean}
