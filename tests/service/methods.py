"""A small published checkpoint of each method, and all that it takes beside users and positives."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.checkpoint import pack
from core.registry import Registry
from core.samplers import Catalogue, Sampler, TakesFeatures, TakesPopularity, rebuild
from core.samplers.base import FEATURES
from core.transition import Transition
from tests.service.live import DIM, make_sampler

CONFIGS: dict[str, dict[str, Any]] = {
    "dmns": {
        "dim": DIM,
        "num_steps": 20,
        "divisors": (5, 2),
        "weights": (1.0, 0.7),
    },
    "cnsdiff": {"dim": DIM, "num_steps": 10, "variant": "causal", "strata": 3},
    "gdnsm": {"dim": DIM, "num_steps": 6, "features": (("image", 5), ("audio", 3)), "per_level": 1},
    "catalogue": {"candidates": 4, "num_steps": 10, "transition": Transition("random")},
}
ITEMS = 50


def sampler_of(method: str) -> Sampler:
    """An untrained sampler whose weights are random throughout, so that every input matters."""
    if method == "adar":
        return make_sampler(0)
    torch.manual_seed(0)
    if method == "catalogue":
        return Catalogue.of(torch.randn(ITEMS, DIM), **CONFIGS[method])
    sampler = rebuild(method, CONFIGS[method])
    for parameter in sampler.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    users, positives = 0.7 * torch.randn(2, 256, DIM)
    sampler.observe(users, positives)
    return sampler


def publish_each(address: Path) -> dict[str, Sampler]:
    """Publish one model per method, called as the method is."""
    samplers = {method: sampler_of(method) for method in ("adar", *CONFIGS)}
    for method, sampler in samplers.items():
        Registry(address).publish(method, pack(sampler))
    return samplers


def conditions(sampler: Sampler, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """An array for everything that the sampler takes per row beside the pair, by name."""
    rng = torch.Generator().manual_seed(seed)
    found = {}
    if "threshold" in sampler.inputs:
        found["threshold"] = torch.randn(rows, generator=rng)
    if isinstance(sampler, TakesFeatures):
        for name, width in sampler.features.items():
            found[FEATURES + name] = torch.randn(rows, width, generator=rng)
    if isinstance(sampler, TakesPopularity):
        found["popularity"] = torch.randint(sampler.strata, (rows,), generator=rng)
    return found
