"""Publishing: a sampler, with its run's configuration and metrics, becomes the live version."""

from core.checkpoint import pack
from core.registry import Registry
from core.samplers import NegativeSampler
from trainer.config import TrainConfig

# `held`: sound, but not better than what is live, which `follow` asks before it publishes.
PUBLISHED, HELD, REFUSED, FAILED = OUTCOMES = ("ok", "held", "refused", "failed")


def publish(
    registry: Registry,
    model: str,
    sampler: NegativeSampler,
    config: TrainConfig,
    metrics: dict[str, float],
) -> str:
    """Verify, warm up, store and make live; the new version's name.

    Args:
        registry: where to.
        model: the model's name.
        sampler: trained; it is not changed.
        config: of the run, saved in the manifest.
        metrics: of this version on validation, fractions in [0, 1].

    Raises:
        CheckpointError: a service would refuse it; nothing was written.
    """
    return registry.publish(model, pack(sampler, {"training": config.as_dict()}, metrics))
