"""When a version is offered, what the gate makes of it, and which versions stay."""

import logging
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from core.checkpoint import pack, unpack
from core.errors import CheckpointError
from core.registry import Registry
from core.samplers import ADAR
from trainer.following.config import FollowConfig
from trainer.following.drift import Cloud, drift
from trainer.following.gate import judge
from trainer.following.learner import Learner
from trainer.publish import FAILED, HELD, PUBLISHED, REFUSED

BETTER = 0.95  # times the loss of the last publication: worth another one
log = logging.getLogger("turnpoint.follow")


@dataclass
class Publications:
    """What is remembered of them.

    Attributes:
        version: the last one from here; empty before the first.
        step: at which that was.
        attempt: step of the last attempt.
        loss: of the last one on held-out pairs then; 0 before the first.
        cloud: the embeddings at the last publication.
    """

    version: str = ""
    step: int = 0
    attempt: int = 0
    loss: float = 0.0
    cloud: Cloud | None = None


class Offer(NamedTuple):
    """What became of an attempt.

    Attributes:
        result: one of `trainer.publish.OUTCOMES`.
        told: the version, or why there is none.
        losses: on held-out pairs; see `gate.Verdict`.
        removed: versions that were pruned.
    """

    result: str
    told: str
    losses: dict[str, float]
    removed: list[str]


class Publisher:
    """Offers a learner's model to the registry.

    Args:
        registry: where to.
        model: its name there.
        config: of the run.
        memory: from a saved state.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        config: FollowConfig,
        memory: Publications | None = None,
    ) -> None:
        self.registry, self.model, self.config = registry, model, config
        self.memory = memory or Publications()
        self.drift: dict[str, float] = {}
        self._live: tuple[str, ADAR | None] = ("", None)

    def due(self, learner: Learner) -> bool:
        """Whether it is time: enough steps, embeddings that moved, or a model that is much better.

        Never before there are enough rows to judge on.
        """
        memory, steps = self.memory, learner.counts.steps
        if steps - memory.attempt < self.config.retry_every:
            return False
        cloud = learner.cloud()
        if cloud is None:
            return False
        if memory.cloud is None:
            return True
        self.drift = drift(cloud, memory.cloud)
        moved = max(self.drift.values()) > self.config.publish_drift
        fresh = learner.expectation
        better = fresh.windows > 0 and fresh.mean < BETTER * memory.loss
        return moved or better or steps - memory.step >= self.config.publish_every

    def postpone(self, learner: Learner) -> None:
        """No attempt for a while: the model has to learn another space first."""
        self.memory.attempt = learner.counts.steps

    def introduce(self, learner: Learner) -> str:
        """Publish a model that has learnt nothing yet, where a service has nothing to answer with.

        Its chain maps unit Gaussians to themselves, so it is sane, and useless. The next attempt
        comes early, as after one that failed.
        """
        packed = pack(learner.sampler, self._about(learner))
        self.memory.version = self.registry.publish(self.model, packed)
        return self.memory.version

    def offer(self, learner: Learner) -> Offer:
        """Through the gate, into the registry, and prune; nothing is changed where it is not good.

        A registry that cannot be reached is an outcome, no error: the next attempt may succeed.
        """
        self.memory.attempt = learner.counts.steps
        try:
            return self._offer(learner)
        except CheckpointError as error:
            return Offer(REFUSED, str(error), {}, [])
        except OSError as error:
            return Offer(FAILED, f"the registry: {error}", {}, [])

    def _offer(self, learner: Learner) -> Offer:
        memory, version = self.memory, self.registry.live(self.model)
        if version and memory.version and version < memory.version:
            told = (
                f"{version} was made live in place of {memory.version}, which is newer; make that "
                "one live again to go on"
            )
            return Offer(HELD, told, {}, [])
        users, positives = learner.held_out.all()
        verdict = judge(learner.sampler, self.live(version), users, positives, memory.attempt)
        if not verdict.passed:
            return Offer(HELD if verdict.sound else REFUSED, verdict.why, verdict.losses, [])
        metrics = {f"loss_{name}": value for name, value in verdict.losses.items()}
        packed = pack(learner.sampler, self._about(learner), metrics)
        memory.version = self.registry.publish(self.model, packed)
        memory.step, memory.cloud = memory.attempt, learner.cloud()
        memory.loss = verdict.losses["candidate"]
        return Offer(PUBLISHED, f"{memory.version} ({verdict.why})", verdict.losses, self._prune())

    def live(self, version: str | None) -> ADAR | None:
        """The sampler of a version, kept while that is live; None where none can be had."""
        if version is None:
            return None
        if version != self._live[0]:
            sampler = None
            try:
                found, _ = unpack(self.registry.read(self.model, version), self.config.device)
                sampler = found if isinstance(found, ADAR) else None
                fault = f"its method is {found.method}; adar alone can be followed"
            except CheckpointError as error:
                fault = str(error)
            if sampler is None:
                log.warning("%s: the live version %s is not fit: %s", self.model, version, fault)
            self._live = (version, sampler)
        return self._live[1]

    def _about(self, learner: Learner) -> dict[str, Any]:
        """What the manifest says of where a version comes from."""
        return {"follow": self.config.as_dict(), "counts": asdict(learner.counts)}

    def _prune(self) -> list[str]:
        try:
            return self.registry.prune(self.model, self.config.keep)
        except OSError as error:
            log.warning("%s: old versions cannot be removed: %s", self.model, error)
            return []
