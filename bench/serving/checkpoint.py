"""The checkpoints and the pairs that everybody gets."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from core.checkpoint import pack
from core.registry import Registry
from core.samplers import ADAR, ADARConfig

# Entries of freshly initialised embeddings. Scores are then near 0 and Eq. 11 puts t* near 0.73 T,
# as in the first epochs of training. With entries of N(0, 1) half the rows would have t* = T, for
# which there is nothing to compute.
SCALE = 0.1


def publish(registry: Path, denoiser: str, dim: int = 64, num_steps: int = 50) -> str:
    """Publish such a sampler; the model's name."""
    model = f"{denoiser}-d{dim}-t{num_steps}"
    Registry(registry).publish(model, pack(made(denoiser, dim, num_steps)))
    return model


def made(denoiser: str, dim: int, num_steps: int, seed: int = 0) -> ADAR:
    """A sampler whose denoiser is random, since an untrained one is trivial."""
    torch.manual_seed(seed)
    sampler = ADAR(ADARConfig(dim=dim, num_steps=num_steps, denoiser=denoiser)).eval()
    with torch.no_grad():
        for parameter in sampler.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        sampler.user_rms.fill_(SCALE)
        sampler.item_rms.fill_(SCALE)
    return sampler


def pairs(rows: int, dim: int) -> NDArray[np.float32]:
    """users and positives, (2, B, d)."""
    return SCALE * np.random.default_rng(0).standard_normal((2, rows, dim), np.float32)
