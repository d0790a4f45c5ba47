"""Baseline samplers that pick negatives among the catalogue's items."""

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.sampling.base import NegativePicker
from trainer.sampling.uniform import UniformNegatives

__all__ = ["PICKERS", "NegativePicker", "UniformNegatives", "make_picker"]

PICKERS = ("uniform",)


def make_picker(name: str, interactions: Interactions, device: str = "cpu") -> NegativePicker:
    """The baseline sampler of that name.

    Raises:
        ConfigError: no sampler has that name, or a user has taken every item.
    """
    if name not in PICKERS:
        raise ConfigError(f"negatives = {name!r}; known: {', '.join(PICKERS)}")
    return UniformNegatives(
        interactions.train, interactions.num_users, interactions.num_items, device
    )
