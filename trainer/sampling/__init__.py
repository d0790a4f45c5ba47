"""The baselines' own negatives, picked among the catalogue's items."""

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.sampling.ahns import AHNS
from trainer.sampling.base import Drawn, NegativePicker, Negatives, Source
from trainer.sampling.complement import PopularNegatives, UniformNegatives
from trainer.sampling.dns import DNS
from trainer.sampling.mixgcf import MixGCF

__all__ = [
    "AHNS",
    "DNS",
    "PICKERS",
    "Drawn",
    "MixGCF",
    "NegativePicker",
    "Negatives",
    "PopularNegatives",
    "Source",
    "UniformNegatives",
    "make_picker",
]

PICKERS = ("uniform", "popularity", "dns", "mixgcf", "ahns")


def make_picker(
    name: str,
    interactions: Interactions,
    device: str = "cpu",
    *,
    candidates: int = 16,
    alpha: float = 1.0,
    beta: float = 0.1,
    power: int = -2,
) -> NegativePicker:
    """The baseline sampler of that name.

    Args:
        name: one of `PICKERS`.
        interactions: whose train pairs are no negatives.
        device: where batches are.
        candidates: M >= 1, of dns, mixgcf and ahns.
        alpha: of ahns.
        beta: of ahns.
        power: p of ahns, below 0.

    Raises:
        ConfigError: no sampler has that name, a setting is out of range, or a user has taken every
            item.
    """
    if name not in PICKERS:
        raise ConfigError(f"negatives = {name!r}; known: {', '.join(PICKERS)}")
    if candidates < 1 or power >= 0:
        raise ConfigError(
            f"candidates = {candidates}, ahns_power = {power}; at least 1, and below 0"
        )
    kind = PopularNegatives if name == "popularity" else UniformNegatives
    source = kind(interactions.train, interactions.num_users, interactions.num_items, device)
    match name:
        case "dns":
            return DNS(source, candidates)
        case "mixgcf":
            return MixGCF(source, candidates)
        case "ahns":
            return AHNS(source, candidates, alpha, beta, power)
        case _:
            return Drawn(source)
