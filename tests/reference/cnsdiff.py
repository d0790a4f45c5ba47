"""CNSDiff by the loop: one candidate, one step and one stratum at a time."""

import math

import torch
from torch import Tensor

from core.samplers import CNSDiff


def predicted(sampler: CNSDiff, x: Tensor, t: int, stratum: int) -> Tensor:
    """f(x_t, t, E) for one row, with the input [x/|x| ; PE(t)] in one piece."""
    net = sampler.denoiser
    weight = torch.cat([net.x.weight, net.time.weight], dim=1)
    code = net.code(net.time_codes[t].to(x.dtype))
    hidden = weight @ torch.cat([x / x.norm(), code]) + net.time.bias + net.strata[stratum]
    return net.out(torch.tanh(hidden))


def adjusted(sampler: CNSDiff, x: Tensor, t: int) -> Tensor:
    """sum_E P(E) f(x_t, t, E)."""
    shares = sampler.exposure.tolist()
    return sum(share * predicted(sampler, x, t, e) for e, share in enumerate(shares))


def back(sampler: CNSDiff, x: Tensor, t: int, clean: Tensor) -> Tensor:
    """DDPM's posterior mean (Ho et al. 2020, Eq. 7), from abar alone."""
    now, before = (float(sampler.schedule.alpha_bar[s]) for s in (t, t - 1))
    beta = 1 - now / before
    return (
        math.sqrt(before) * beta / (1 - now) * clean
        + math.sqrt(now / before) * (1 - before) / (1 - now) * x
    )


def noised(sampler: CNSDiff, x_0: Tensor, t: int, z: Tensor) -> Tensor:
    """x_t."""
    alpha_bar = float(sampler.schedule.alpha_bar[t])
    return math.sqrt(alpha_bar) * x_0 + math.sqrt(1 - alpha_bar) * z


def released(sampler: CNSDiff, x_0: Tensor, z: Tensor) -> Tensor:
    """(k, d) candidates, each with its own noise and all T steps."""
    candidates = []
    for level, own in zip(sampler.config.levels, z, strict=True):
        x = noised(sampler, x_0, level, own)
        for t in range(sampler.num_steps, 0, -1):
            x = back(sampler, x, t, adjusted(sampler, x, t))
        candidates.append(x)
    return torch.stack(candidates)


def described(sampler: CNSDiff, x_0: Tensor, z: Tensor) -> Tensor:
    """(k, d) states at the levels of one chain from x_T."""
    x = noised(sampler, x_0, sampler.num_steps, z)
    states = {sampler.num_steps: x}
    for t in range(sampler.num_steps, 0, -1):
        x = back(sampler, x, t, adjusted(sampler, x, t))
        states[t - 1] = x
    return torch.stack([states[level] for level in sampler.config.levels])
