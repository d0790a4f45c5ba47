"""The methods that generate negatives, one file each."""

from typing import Any

from core.errors import ConfigError
from core.samplers.adar import ADAR, ADARConfig
from core.samplers.base import (
    Generated,
    Generates,
    HasLaw,
    NegativeSampler,
    Query,
    TakesFeatures,
    TakesPopularity,
    draw,
)

METHODS = ("adar",)
Sampler = ADAR  # any of the methods

__all__ = [
    "ADAR",
    "METHODS",
    "ADARConfig",
    "Generated",
    "Generates",
    "HasLaw",
    "NegativeSampler",
    "Query",
    "Sampler",
    "TakesFeatures",
    "TakesPopularity",
    "draw",
    "rebuild",
]


def rebuild(method: str, config: dict[str, Any]) -> ADAR:
    """An untrained sampler of the given method, from the config that its manifest holds.

    Raises:
        ConfigError: unknown method, or a config that does not fit it.
    """
    if method != ADAR.method:
        raise ConfigError(f"method = {method!r}; known: {', '.join(METHODS)}")
    try:
        return ADAR(ADARConfig.from_dict(config))
    except (TypeError, KeyError) as error:
        raise ConfigError(f"config does not fit method {method!r}: {error}") from error
