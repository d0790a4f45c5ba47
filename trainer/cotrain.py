"""ADAR's Algorithm 1: one loop that trains the encoder and its diffusion model side by side.

For every mini-batch: a step of the diffusion model on detached embeddings (lines 6-10), negatives
generated (11-16), one step of the encoder on a loss with them (17-19). What stands in these places
is the method's, see `trainer.methods`; without one it is plain BPR training.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor
from torch.optim import Adam

from trainer.batches import Batch, make_batches
from trainer.config import TrainConfig
from trainer.data import Interactions
from trainer.distributed import average_gradients, from_main, total
from trainer.encoders import Encoded, Encoder, HasAuxiliary
from trainer.evaluate import evaluate
from trainer.methods import MethodOf, Rows, make_method, make_sampler
from trainer.run import Diffusion, Run
from trainer.sampling import NegativePicker
from trainer.shards import divided


@dataclass
class Tick:
    """What a watcher sees after a step; tensors, so that looking is what waits for the device.

    Attributes:
        epoch: from 0.
        step: in the epoch, from 0.
        steps: of the epoch.
        pairs: in this step, B.
        losses: by part, scalars.
        transition: (B,) t*, where negatives were generated.
        learnt: what the step learnt from.
    """

    epoch: int
    step: int
    steps: int
    pairs: int
    losses: dict[str, Tensor]
    transition: Tensor | None = None
    learnt: "Learnt | None" = None


@dataclass(frozen=True, eq=False)
class Learnt:
    """A step's rows, before the encoder moved.

    Attributes:
        batch: users and positives.
        encoded: their embeddings.
        negatives: int64 (B,), the sampled items, see `trainer.sampling.Negatives`.
        scores: float (B,) without gradient, of the `positive` and the `negative`, and of the
            `generated` negative where there is one.
    """

    batch: Batch
    encoded: Encoded
    negatives: Tensor
    scores: dict[str, Tensor]


@dataclass
class Watcher:
    """Called as training goes on; every call is optional.

    Attributes:
        on_step: after each mini-batch.
        on_epoch: after each epoch: the run, the epoch's training seconds, and its validation
            metrics where there was one.
        on_publish: after each publication: an outcome of `trainer.publish`, and the version or why.
    """

    on_step: Callable[[Tick], None] = field(default=lambda _: None)
    on_epoch: Callable[[Run, float, dict[str, float] | None], None] = field(default=lambda *_: None)
    on_publish: Callable[[str, str], None] = field(default=lambda *_: None)


def together(*watchers: Watcher) -> Watcher:
    """One watcher that passes every call on to all of them, in order."""

    def all_of(name: str) -> Callable[..., None]:
        def call(*told: object) -> None:
            for watcher in watchers:
                getattr(watcher, name)(*told)

        return call

    return Watcher(**{one.name: all_of(one.name) for one in fields(Watcher)})


def cotrain(
    run: Run,
    interactions: Interactions,
    picker: NegativePicker,
    config: TrainConfig,
    watcher: Watcher | None = None,
    method_of: MethodOf = make_method,
) -> Run:
    """Train until the epochs are used up or validation stops improving; the best state is kept.

    Args:
        run: a fresh run or one read back by `Run.load`; it is advanced in place.
        interactions: what is learnt from and chosen by.
        picker: the baseline's negatives e_j.
        config: the resolved configuration.
        watcher: told of every step and epoch.
        method_of: makes the method; for one that the configuration does not know.

    Returns:
        `run`; `run.restore_best()` puts the best epoch's weights in place.
    """
    watcher = watcher or Watcher()
    encoder = run.encoder
    method = method_of(run.diffusion, interactions, config)
    batches = make_batches(encoder, interactions, config.batch_size, config.device)
    batches = divided(batches, run)
    while run.epoch < config.epochs and run.evaluations_since_best < config.patience:
        # ---- one epoch of Algorithm 1 -------------------------------------------------------
        begin = time.perf_counter()
        encoder.train()
        method.begin(run.epoch)
        told: dict[str, Tensor] = {}
        histogram = torch.zeros(config.num_steps + 1, dtype=torch.int64, device=config.device)
        for step, batch in enumerate(batches.epoch(run.generator)):
            encoded = encoder.encode(batch.contexts)
            e_u, e_i = encoded.users, encoded.items(batch.items)
            e_j, negatives = picker.pick(batch, encoded, run.generator)
            s_ui, s_uj = (e_u * e_i).sum(-1), (e_u * e_j).sum(-1)
            rows = Rows(batch, encoded, e_u, e_i, e_j, s_ui, s_uj)
            scores = {"positive": s_ui.detach(), "negative": s_uj.detach()}

            # ---- the method's own step, then the loss with what it generates ------------------
            losses = dict(method.learn(rows))
            ranked = method.loss(rows)
            loss, t_star = ranked.loss, ranked.transition
            if t_star is not None:
                histogram += t_star.bincount(minlength=len(histogram))
            if ranked.generated is not None:
                scores["generated"] = ranked.generated.detach()
            for name, value in ranked.told.items():
                told[name] = told.get(name, 0) + value / len(batches)

            # ---- the encoder's step -----------------------------------------------------------
            losses["encoder"] = loss.detach()
            if isinstance(encoder, HasAuxiliary):
                auxiliary = encoder.auxiliary(batch.contexts, run.generator)
                losses["auxiliary"] = auxiliary.detach()
                loss = loss + auxiliary
            if config.l2:
                penalty = encoder.penalty(batch.users, torch.cat([batch.items, negatives]))
                loss = loss + config.l2 * penalty
            run.optimizer.zero_grad()
            (loss * batch.weight).backward()
            average_gradients(encoder.parameters())
            run.optimizer.step()
            learnt = Learnt(batch, encoded, negatives, scores)
            watcher.on_step(
                Tick(run.epoch, step, len(batches), len(batch.items), losses, t_star, learnt)
            )
        seconds = time.perf_counter() - begin

        # ---- choose by validation -------------------------------------------------------------
        run.epoch += 1
        run.seconds.append(seconds)
        metrics = None
        if run.epoch % config.eval_every == 0 or run.epoch == config.epochs:
            encoder.eval()
            metrics = from_main(lambda: evaluate(*encoder.tables("valid"), interactions, "valid"))
            about = {name: float(value) for name, value in told.items()}
            run.note({**metrics, **about}, metrics[config.metric], total(histogram).tolist())
        watcher.on_epoch(run, seconds, metrics)
    return run


def new_run(encoder: Encoder, config: TrainConfig, interactions: Interactions | None = None) -> Run:
    """A run at epoch 0: models, optimisers, and the generators of its randomness.

    `interactions` are needed by a method that is conditioned on their item features.
    """
    torch.manual_seed(config.seed)  # the sampler's first weights
    diffusion, sampler = None, make_sampler(config, interactions)
    if sampler is not None:
        sampler = sampler.to(config.device)
        optimizer = Adam(sampler.parameters(), lr=config.diffusion_learning_rate, fused=True)
        noise = torch.Generator(config.device).manual_seed(config.seed)
        diffusion = Diffusion(sampler, optimizer, noise)
    torch.manual_seed(config.seed)  # dropout: the same with and without a method
    encoder = encoder.to(config.device)
    return Run(
        encoder=encoder,
        optimizer=Adam(encoder.parameters(), lr=config.learning_rate, fused=True),
        diffusion=diffusion,
        generator=torch.Generator(config.device).manual_seed(config.seed),
    )
