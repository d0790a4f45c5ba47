"""The methods that generate negatives, one file each."""

from collections.abc import Callable
from typing import Any

from core.errors import ConfigError
from core.samplers.adar import ADAR, ADARConfig
from core.samplers.base import (
    Generated,
    Generates,
    HasItems,
    HasLaw,
    NegativeSampler,
    Query,
    TakesFeatures,
    TakesPopularity,
    draw,
)
from core.samplers.catalogue import Catalogue, CatalogueConfig
from core.samplers.cnsdiff import CNSDiff, CNSDiffConfig
from core.samplers.dmns import DMNS, DMNSConfig
from core.samplers.gdnsm import GDNSM, GDNSMConfig

__all__ = [
    "ADAR",
    "DMNS",
    "GDNSM",
    "METHODS",
    "ADARConfig",
    "CNSDiff",
    "CNSDiffConfig",
    "Catalogue",
    "CatalogueConfig",
    "DMNSConfig",
    "DiffusionSampler",
    "GDNSMConfig",
    "Generated",
    "Generates",
    "HasItems",
    "HasLaw",
    "NegativeSampler",
    "Query",
    "Sampler",
    "TakesFeatures",
    "TakesPopularity",
    "draw",
    "rebuild",
]

DiffusionSampler = ADAR | CNSDiff | DMNS | GDNSM  # those that are trained
Sampler = DiffusionSampler | Catalogue
_REBUILD: dict[str, Callable[[dict[str, Any]], Sampler]] = {
    "adar": lambda config: ADAR(ADARConfig.from_dict(config)),
    "cnsdiff": lambda config: CNSDiff(CNSDiffConfig(**config)),
    "dmns": lambda config: DMNS(DMNSConfig.from_dict(config)),
    "gdnsm": lambda config: GDNSM(GDNSMConfig.from_dict(config)),
    "catalogue": lambda config: Catalogue(CatalogueConfig.from_dict(config)),
}
METHODS = tuple(_REBUILD)


def rebuild(method: str, config: dict[str, Any]) -> Sampler:
    """An untrained sampler of the given method, from the config that its manifest holds.

    Raises:
        ConfigError: unknown method, or a config that does not fit it.
    """
    if method not in _REBUILD:
        raise ConfigError(f"method = {method!r}; known: {', '.join(METHODS)}")
    try:
        return _REBUILD[method](config)
    except (TypeError, KeyError) as error:
        raise ConfigError(f"config does not fit method {method!r}: {error}") from error
