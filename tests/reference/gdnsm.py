"""GDNSM by the loop: each prediction from one concatenated input, guided by the paper's formula."""

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu

from core.samplers import GDNSM


def predicted(sampler: GDNSM, x: Tensor, t: int, user: Tensor, features: list[Tensor | None]):
    """eps_theta for rows (B, d) from [x ; time ; user ; modalities]; None is a null."""
    net = sampler.denoiser
    parts = [x, net.time(net.time_codes[t].to(x.dtype)).expand_as(x), user]
    weights = [net.x.weight, net.of_time.weight, net.of_user.weight]
    for place, table in enumerate(features):
        own = net.nulls[place].expand_as(x) if table is None else net.modalities[place](table)
        parts.append(own)
        weights.append(net.of_modality[place].weight)
    hidden = torch.cat(parts, 1) @ torch.cat(weights, 1).T + net.x.bias
    correction = hidden if net.out is None else net.out(gelu(hidden))
    return math.sqrt(1 - float(sampler.schedule.alpha_bar[t])) * x + correction


def guided(sampler: GDNSM, x: Tensor, t: int, user: Tensor, text, image, s: float) -> Tensor:
    """eps(u,0,0) + s (eps(u,0,v) - eps(u,0,0)) + s (eps(u,t,v) - eps(u,0,v)); None leaves one out.

    A level that has one modality alone ends after its first difference.
    """
    nothing = predicted(sampler, x, t, user, [None, None])
    if text is None or image is None:
        one = predicted(sampler, x, t, user, [text, image])
        return nothing + s * (one - nothing)
    first = predicted(sampler, x, t, user, [None, image])
    both = predicted(sampler, x, t, user, [text, image])
    return nothing + s * (first - nothing) + s * (both - first)


def ddpm(sampler: GDNSM, z: Tensor, noise: dict[int, Tensor], eps_of) -> Tensor:
    """x_0 by Ho et al. (2020), Algorithm 2; `noise[t]` is added on the way from t."""
    x = z
    for t in range(sampler.num_steps, 0, -1):
        alpha, now = float(sampler.schedule.alpha[t]), float(sampler.schedule.alpha_bar[t])
        before = float(sampler.schedule.alpha_bar[t - 1])
        x = (x - (1 - alpha) / math.sqrt(1 - now) * eps_of(x, t)) / math.sqrt(alpha)
        if t > 1:
            x = x + math.sqrt((1 - before) / (1 - now) * (1 - alpha)) * noise[t]
    return x


def ddim(sampler: GDNSM, z: Tensor, eps_of) -> Tensor:
    """x_0 by Song et al. (2021), Eq. 12 with sigma = 0, every step."""
    x = z
    for t in range(sampler.num_steps, 0, -1):
        now, before = (float(sampler.schedule.alpha_bar[s]) for s in (t, t - 1))
        eps = eps_of(x, t)
        clean = (x - math.sqrt(1 - now) * eps) / math.sqrt(now)
        x = math.sqrt(before) * clean + math.sqrt(1 - before) * eps
    return x
