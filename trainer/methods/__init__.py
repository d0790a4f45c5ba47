"""What the loop trains an encoder with, one small class a method."""

from core.samplers import (
    ADAR,
    DMNS,
    GDNSM,
    Catalogue,
    CNSDiff,
    CNSDiffConfig,
    DiffusionSampler,
    DMNSConfig,
)
from trainer.config import NO_METHOD, TrainConfig
from trainer.data import Interactions
from trainer.methods.adar import ADARMethod
from trainer.methods.base import Method, MethodOf, Ranked, Rows
from trainer.methods.catalogue import CatalogueMethod
from trainer.methods.cnsdiff import CNSDiffMethod
from trainer.methods.dmns import DMNSMethod
from trainer.methods.gdnsm import GDNSMMethod, new_gdnsm
from trainer.methods.plain import Plain
from trainer.run import Diffusion

__all__ = ["Method", "MethodOf", "Ranked", "Rows", "make_method", "make_sampler"]


def make_sampler(
    config: TrainConfig, interactions: Interactions | None = None
) -> DiffusionSampler | None:
    """The untrained sampler of the configured method; None where it has nothing to train.

    Args:
        config: of the run.
        interactions: whose item features a multi-modal sampler is conditioned on.
    """
    if config.method in (NO_METHOD, Catalogue.method):
        return None
    if config.method == DMNS.method:
        sizes = (config.dim, config.num_steps, config.schedule)
        return DMNS(DMNSConfig(*sizes, standardize=config.standardize))
    if config.method == GDNSM.method:
        return new_gdnsm(config, interactions)
    if config.method == CNSDiff.method:
        variant, strata = config.cnsdiff_variant, config.cnsdiff_strata
        return CNSDiff(CNSDiffConfig(config.dim, config.num_steps, variant, strata))
    return ADAR(config.sampler())


def make_method(
    diffusion: Diffusion | None, interactions: Interactions, config: TrainConfig
) -> Method:
    """The configured method, with the run's sampler where it has one."""
    if config.method == Catalogue.method:
        return CatalogueMethod(config, interactions)
    if diffusion is None:
        return Plain()
    match diffusion.sampler:
        case ADAR() as sampler:
            return ADARMethod(sampler, diffusion, config)
        case CNSDiff() as sampler:
            return CNSDiffMethod(sampler, diffusion, config, interactions)
        case DMNS() as sampler:
            return DMNSMethod(sampler, diffusion, config)
        case GDNSM() as sampler:
            return GDNSMMethod(sampler, diffusion, config, interactions)
