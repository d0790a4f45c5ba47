"""A training run from data to report: train and choose, publish, judge once.

`fit` never looks at the test split: given data whose test is empty, it does the same.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from core.errors import CheckpointError, ConfigError
from core.registry import Registry
from core.samplers import Catalogue, Sampler
from core.stores import LocalStore
from trainer.config import NO_METHOD, TrainConfig
from trainer.cotrain import Watcher, cotrain, new_run
from trainer.data import Interactions
from trainer.distributed import is_main
from trainer.encoders import Encoder, Options, make
from trainer.evaluate import evaluate
from trainer.publish import FAILED, PUBLISHED, REFUSED, publish
from trainer.report import make_report
from trainer.run import Run
from trainer.sampling import NegativePicker, make_picker

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Outputs:
    """Where a run's results go; None is nowhere.

    Attributes:
        registry: the registry's address; a generative method's sampler is published there.
        model: the name it is published under.
        publish_every: epochs between publications during training; 0 publishes at the end only.
            One that fails is told to the watcher and training goes on; the last one must succeed.
        state: the folder that keeps the training state, from which a killed run goes on.
        state_every: epochs between its savings; what came after the last is learnt again.
        embeddings: a safetensors file of the final `users` [U, d] (as for test) and `items` [I, d],
            float32, and the pairs (user, item) of `train`, `valid`, `test` and further test sets,
            int64 [N, 2].
    """

    registry: str | None = None
    model: str = "default"
    publish_every: int = 0
    state: Path | None = None
    state_every: int = 1
    embeddings: Path | None = None


@dataclass(frozen=True)
class Result:
    """What a run leaves: its report, and the run with the best epoch's weights in place."""

    report: dict[str, Any]
    run: Run = field(repr=False)


@dataclass(frozen=True)
class Fitted:
    """A trained run that nothing has judged yet.

    Attributes:
        run: with the best epoch's weights in place.
        valid: that epoch's validation metrics.
        published: versions, in order.
    """

    run: Run = field(repr=False)
    valid: dict[str, float]
    published: list[str]


def train(
    interactions: Interactions,
    config: TrainConfig,
    outputs: Outputs,
    watcher: Watcher | None = None,
) -> Result:
    """Co-train on the data, judge the result on its test split, and leave what `outputs` names.

    Of several workers (`trainer.distributed`) all take the training state up, and the main one
    alone leaves anything.

    Raises:
        ConfigError: something in the configuration cannot work, e.g. `registry` without a method.
        CheckpointError: the trained sampler would be refused by a service.
        OSError: the registry cannot be written at the end.
    """
    fitted = fit(interactions, config, outputs, watcher)
    run = fitted.run
    users, items = run.encoder.tables("test")
    test = evaluate(users, items, interactions, "test")
    extra_tests = {
        name: evaluate(users, items, interactions, name) for name in interactions.extra_tests
    }
    if outputs.embeddings is not None and is_main():
        path = outputs.embeddings.expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        tables = {"users": users, "items": items}
        tables |= {name: torch.from_numpy(getattr(interactions, name)) for name in SPLITS}
        tables |= {k: torch.from_numpy(pairs) for k, pairs in interactions.extra_tests.items()}
        whole = {name: tensor.cpu().contiguous() for name, tensor in tables.items()}
        LocalStore(path.parent).replace(path.name, safetensors.torch.save(whole))
    data = interactions.describe()
    report = make_report(run, config, data, fitted.valid, test, extra_tests, fitted.published)
    return Result(report, run)


def fit(
    interactions: Interactions,
    config: TrainConfig,
    outputs: Outputs,
    watcher: Watcher | None = None,
) -> Fitted:
    """Co-train, choose the epoch by validation and publish; of `outputs` all but `embeddings`.

    The watcher is told of an epoch before the state is saved: what it keeps of an epoch is there
    whenever the state has the epoch.

    Raises:
        as `train`.
    """
    if outputs.registry is not None and config.method == NO_METHOD:
        raise ConfigError(
            "--registry has nothing to publish with --method none; choose a method that generates "
            "negatives"
        )
    watcher = watcher or Watcher()
    run = new_run(encoder_of(config, interactions), config, interactions)
    if outputs.state is not None:
        run.load(outputs.state, config.as_dict())
    if not is_main():
        outputs = Outputs()
    published: list[str] = []

    def offer(metrics: dict[str, float]) -> Exception | None:
        if outputs.registry is None:
            return None
        registry, sampler = Registry(outputs.registry), sampler_of(run, config)
        try:
            published.append(publish(registry, outputs.model, sampler, config, metrics))
        except (CheckpointError, OSError) as error:
            refused = isinstance(error, CheckpointError)
            watcher.on_publish(REFUSED if refused else FAILED, str(error))
            return error
        watcher.on_publish(PUBLISHED, published[-1])
        return None

    def on_epoch(run: Run, seconds: float, metrics: dict[str, float] | None) -> None:
        watcher.on_epoch(run, seconds, metrics)
        if outputs.state is not None and run.epoch % outputs.state_every == 0:
            run.save(outputs.state, config.as_dict())
        if outputs.publish_every and run.epoch % outputs.publish_every == 0:
            offer(metrics or {})

    picker = picker_of(config, interactions)
    cotrain(run, interactions, picker, config, Watcher(watcher.on_step, on_epoch))

    run.restore_best()
    run.encoder.eval()
    valid = evaluate(*run.encoder.tables("valid"), interactions, "valid")
    if (failure := offer(valid)) is not None:
        raise failure
    return Fitted(run, valid, published)


def sampler_of(run: Run, config: TrainConfig) -> Sampler:
    """What a run with a method publishes: its diffusion model, or the encoder's items."""
    if run.diffusion is not None:
        return run.diffusion.sampler
    run.encoder.eval()
    _, items = run.encoder.tables("valid")
    return Catalogue.of(
        items,
        num_steps=config.num_steps,
        schedule=config.schedule,
        candidates=config.candidates,
        transition=config.transition,
    )


def encoder_of(config: TrainConfig, interactions: Interactions) -> Encoder:
    """The configured encoder, untrained."""
    options = Options(
        config.dropout, config.max_length, config.cl4srec_contrast, config.cl4srec_temperature
    )
    return make(config.encoder, interactions, config.dim, config.seed, options)


def picker_of(config: TrainConfig, interactions: Interactions) -> NegativePicker:
    """The configured sampler of e_j."""
    return make_picker(
        config.negatives,
        interactions,
        config.device,
        candidates=config.candidates,
        alpha=config.ahns_alpha,
        beta=config.ahns_beta,
        power=config.ahns_power,
    )
