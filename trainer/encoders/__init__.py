"""Encoders by name."""

from collections.abc import Callable

import torch

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.encoders.base import Encoder
from trainer.encoders.lightgcn import LightGCN
from trainer.encoders.mf import MF

__all__ = ["ENCODERS", "MF", "Encoder", "LightGCN", "make"]

Maker = Callable[[Interactions, int, torch.Generator], Encoder]

ENCODERS: dict[str, Maker] = {
    "mf": lambda data, dim, rng: MF(data.num_users, data.num_items, dim, generator=rng),
    "lightgcn": lambda data, dim, rng: LightGCN(
        data.train, data.num_users, data.num_items, dim, generator=rng
    ),
}


def make(name: str, interactions: Interactions, dim: int, seed: int) -> Encoder:
    """The encoder of that name, its first values drawn from `seed`.

    Args:
        name: a key of `ENCODERS`.
        interactions: gives the sizes, and a graph its edges (those of train only).
        dim: d >= 1.
        seed: seeds the first values.

    Returns:
        the encoder, float32, on the CPU.

    Raises:
        ConfigError: no encoder has that name, or dim < 1.
    """
    if name not in ENCODERS:
        raise ConfigError(f"no encoder is called {name!r}; choose one of {', '.join(ENCODERS)}")
    if dim < 1:
        raise ConfigError(f"an encoder needs a dimension of at least 1, not {dim}")
    return ENCODERS[name](interactions, dim, torch.Generator().manual_seed(seed))
