"""What the worker that leads does with each entry: learn, look, publish, remember.

Under torchrun all workers learn, and the main one looks, publishes and remembers for all.
"""

import copy
import logging
import time
from pathlib import Path

import torch

from core.errors import CheckpointRefusedError
from core.registry import Registry
from core.samplers import ADAR
from trainer.distributed import from_main, is_main
from trainer.following.config import FollowConfig
from trainer.following.learner import Learner
from trainer.following.metrics import FollowMetrics
from trainer.following.publisher import Offer, Publisher
from trainer.following.source import Entry, Source
from trainer.following.state import State
from trainer.publish import HELD, PUBLISHED, REFUSED

log = logging.getLogger("turnpoint.follow")
REMIND_SECONDS = 60.0  # between two lines about the same kind of bad entry


class Worker:
    """One model, followed.

    It goes on from the saved state; else from the version that is live; else it begins a model of
    the dimension of the first pairs.

    Args:
        registry: where versions are read and published.
        model: its name there.
        config: of the run.
        folder: of the state.
        metrics: told of everything.

    Raises:
        CheckpointError: the state, or the live version where there is no state, cannot be used.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        config: FollowConfig,
        folder: Path,
        metrics: FollowMetrics,
    ) -> None:
        self.model, self.config, self.metrics = model, config, metrics
        self.state = State(folder)
        self.settled: list[str] = []
        self.last = ""
        self.learner: Learner | None = None
        memory = None
        if (saved := self.state.load(config)) is not None:
            self.learner, memory, self.settled, self.last = saved
            log.info("%s: goes on from the state in %s", model, folder)
        self.publisher = Publisher(registry, model, config, memory)
        if self.learner is None and (version := registry.live(model)) is not None:
            live = self.publisher.live(version)
            if live is None:
                raise CheckpointRefusedError(
                    f"{model}: the live version {version} cannot be used; make another one live"
                )
            self.learner = Learner(copy.deepcopy(live), config)
            log.info("%s: goes on from version %s", model, version)
        self._handled: list[str] = []
        self._saved_at = time.monotonic()
        self._reminded: dict[str, float] = {}

    def take(self, entry: Entry) -> None:
        """One entry: learn from it and publish where that is due, or say why it cannot be."""
        self._handled.append(entry.id)
        self.last = entry.id
        pairs, fault = entry.pairs, entry.fault or self._misfit(entry)
        if pairs is None or fault:
            self.metrics.note_refused(entry)
            self._remind(fault)
            return
        learner = self.learner or self.begin(pairs.users.shape[1])
        taken = learner.take(pairs.users, pairs.positives)
        self.metrics.note_taken(entry, pairs, taken, self.config.batch_size)
        if taken.jump is not None:
            self.publisher.postpone(learner)
            log.warning(
                "%s: the embedding space has changed at step %d: %s; older pairs are forgotten",
                self.model,
                learner.counts.steps,
                taken.jump,
            )
        due = from_main(lambda: self.publisher.due(learner))
        self.metrics.note_drift(self.publisher.drift)
        if due:
            self.offer(learner)

    def begin(self, dim: int) -> Learner:
        """A new model: a chain that maps unit Gaussians to themselves, whoever the user is."""
        torch.manual_seed(self.config.seed)
        self.learner = Learner(ADAR(self.config.sampler(dim)), self.config)
        log.info("%s: begins a new model of dimension %d", self.model, dim)
        return self.learner

    def introduce(self, dim: int) -> None:
        """Where nothing is live and nothing was learnt, begin and publish at once."""
        if self.learner is None:
            learner = self.begin(dim)
            version = from_main(lambda: self.publisher.introduce(learner))
            self.metrics.note_offer(Offer(PUBLISHED, version, {}, []))
            log.info("%s: %s is live; it has learnt nothing yet", self.model, version)

    def offer_last(self) -> None:
        """Try to publish what was learnt since the last attempt, due or not."""
        learner = self.learner
        if learner is None:
            return
        if from_main(lambda: learner.counts.steps > self.publisher.memory.attempt):
            self.offer(learner)

    def offer(self, learner: Learner) -> None:
        """Try to publish."""
        offer = Offer(*from_main(lambda: self.publisher.offer(learner)))
        self.metrics.note_offer(offer)
        level = logging.INFO if offer.result in (PUBLISHED, HELD) else logging.WARNING
        log.log(
            level, "%s: step %d: %s: %s", self.model, learner.counts.steps, offer.result, offer.told
        )
        if offer.removed:
            log.info("%s: removed %s", self.model, ", ".join(offer.removed))
        if offer.result == REFUSED and not learner.finite():
            self._revert(learner)

    def save(self, source: Source) -> None:
        """Write the state, and settle with the source what is in it."""
        self._saved_at = time.monotonic()
        if not self._handled:
            return
        if self.learner is not None and is_main():
            settled = [*source.waiting, *self._handled]
            self.state.save(self.learner, self.publisher.memory, settled, self.last)
        source.settle(self._handled)
        self._handled = []

    @property
    def due_to_save(self) -> bool:
        """Whether it is time."""
        return time.monotonic() - self._saved_at >= self.config.save_seconds

    def _misfit(self, entry: Entry) -> str:
        """What keeps sound pairs from being learnt here; empty if nothing does."""
        if entry.pairs is None or self.learner is None:
            return ""
        found, ours = entry.pairs.users.shape[1], self.learner.sampler.dim
        if found == ours:
            return ""
        return (
            f"pairs of dimension {found}, this model has {ours} and stays as it is. Follow the new "
            "encoder under a new name (--model), and let its trainer ask the service for that"
        )

    def _remind(self, fault: str) -> None:
        now = time.monotonic()
        if now - self._reminded.get(fault, float("-inf")) >= REMIND_SECONDS:
            self._reminded = {fault: now}
            log.warning("%s: entries are refused: %s", self.model, fault)

    def _revert(self, learner: Learner) -> None:
        """A model that is not finite will not come back by itself; the live one is."""
        version = from_main(lambda: self.publisher.registry.live(self.model))
        live = self.publisher.live(version)
        if live is not None and live.dim == learner.sampler.dim:
            learner.revert(live)
            log.warning("%s: diverged; goes on from the live version's weights", self.model)
