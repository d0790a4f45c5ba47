"""One diffusion model that learns from an encoder's pairs as they come.

Rows pass through two rings: the newest are held out, to judge on, and are learnt from once they
fall out of there, again and again while they are in the second. So no row is lost to judging, and
what is judged on was never learnt from.

Under torchrun every worker takes the same rows and draws the same batches, and learns from its part
of each: all stay one model.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Adam

from core.samplers import ADAR
from trainer.distributed import average_gradients, begin_alike, rank, weight, world
from trainer.following.config import FollowConfig
from trainer.following.drift import Cloud
from trainer.following.expectation import Expectation
from trainer.following.recent import Recent

RMS_FACTOR = 2.0  # positives this much larger or smaller than the running RMS are another space's
SCALE_BATCHES = 20  # that the running scales remember: they must keep up with an encoder
SETTLED_BATCHES = 10  # of the running scales, before anything is a surprise


class Taken(NamedTuple):
    """What became of some fresh rows.

    Attributes:
        loss_before: of the model before it learnt from them.
        jump: why everything before them was forgotten, or None.
        losses: of the steps that followed, scalars on the device.
    """

    loss_before: float
    jump: str | None
    losses: list[Tensor]


@dataclass
class Counts:
    """What was done since the model began here.

    Attributes:
        steps: of the optimiser.
        rows: fresh ones taken.
        owed: rows to be learnt for those that came; a batch's worth makes a step.
        jumps: of the embedding space.
    """

    steps: int = 0
    rows: int = 0
    owed: float = 0.0
    jumps: int = 0


class Learner:
    """A sampler, its optimiser, and the rows that it learns from.

    Args:
        sampler: new, or one that was live; it is advanced in place.
        config: of the run.
    """

    def __init__(self, sampler: ADAR, config: FollowConfig) -> None:
        self.config = config
        self.sampler = sampler.to(config.device).train().requires_grad_()
        self.optimizer = Adam(sampler.parameters(), lr=config.learning_rate, fused=True)
        begin_alike(self.sampler)
        self.held_out = Recent(config.held_out_rows, sampler.dim, config.device)
        self.replay = Recent(config.buffer_rows, sampler.dim, config.device)
        self.expectation = Expectation()
        self.counts = Counts()

    def take(self, users: Float[Tensor, "B d"], positives: Float[Tensor, "B d"]) -> Taken:
        """Judge fresh rows, keep them, and make the steps that they call for."""
        users, positives = users.to(self.config.device), positives.to(self.config.device)
        before = self._loss_before(users, positives)
        jump = None
        if self.sampler.batches >= SETTLED_BATCHES:  # else the loss tells of the scales alone
            jump = self._rescaled(positives) or self.expectation.surprise(before, len(users))
        if jump is not None:
            self._forget()
        self.counts.rows += len(users)
        released, _ = rows = self.held_out.add(users, positives)
        self.replay.add(*rows)
        self.counts.owed += len(released) * self.config.replays
        losses = []
        while self.counts.owed >= self.config.batch_size:
            self.counts.owed -= self.config.batch_size
            losses.append(self._step())
        return Taken(before, jump, losses)

    def cloud(self) -> Cloud | None:
        """The moments of the newest rows, as many as are held out; None before there are enough."""
        if len(self.held_out) < self.held_out.capacity:
            return None
        return Cloud.of(*self.held_out.all())

    def finite(self) -> bool:
        """Whether every weight and scale is."""
        return all(bool(one.isfinite().all()) for one in self.sampler.state_dict().values())

    def revert(self, to: ADAR) -> None:
        """Take another sampler's weights and scales, with a new optimiser; the rows stay."""
        self.sampler.load_state_dict(to.state_dict())
        self.optimizer = Adam(self.sampler.parameters(), lr=self.config.learning_rate, fused=True)

    def record(self) -> dict[str, Any]:
        """Plain values for the state."""
        return {"counts": asdict(self.counts), "expectation": asdict(self.expectation)}

    def restore(self, record: dict[str, Any]) -> None:
        """The inverse of `record`."""
        self.counts = Counts(**record["counts"])
        self.expectation = Expectation(**record["expectation"])

    def _step(self) -> Tensor:
        config, step = self.config, self.counts.steps
        users, positives = self.replay.draw(
            config.batch_size, config.half_life_rows, self._generator(step)
        )
        # No e_j is sent: another row's positive stands in, a negative drawn by popularity.
        self.sampler.observe(users, positives, positives.roll(1, 0))
        self.sampler.batches.clamp_(max=SCALE_BATCHES)
        part = slice(rank(), None, world())
        noise = self._generator(step, 1 + rank())
        loss: Tensor = self.sampler.loss(users[part], positives[part], noise).total
        self.optimizer.zero_grad()
        (loss * weight(len(users[part]))).backward()
        average_gradients(self.sampler.parameters())
        self.optimizer.step()
        self.counts.steps += 1
        return loss.detach()

    def _generator(self, *what: int) -> torch.Generator:
        """Randomness that follows from the seed and from what it is for: none of it is state."""
        seed = np.random.SeedSequence([self.config.seed, *what]).generate_state(1, np.uint64)
        return torch.Generator(self.config.device).manual_seed(int(seed[0]))

    @torch.no_grad()
    def _loss_before(self, users: Tensor, positives: Tensor) -> float:
        """Eq. 8 with the same noise every time, so that two of them differ by their rows alone."""
        return float(self.sampler.loss(users, positives, self._generator()).total)

    def _rescaled(self, positives: Tensor) -> str | None:
        """Whether the rows are of another size than those before; the loss need not show it."""
        if not self.sampler.config.standardize:
            return None
        now, then = float(positives.square().mean().sqrt()), float(self.sampler.item_rms)
        if abs(math.log(max(now, 1e-30) / then)) < math.log(RMS_FACTOR):
            return None
        return f"positives have an RMS of {now:.3g}, it was {then:.3g}"

    def _forget(self) -> None:
        """What came before is of another space: drop the rows, and let the scales start anew."""
        self.held_out.clear()
        self.replay.clear()
        self.expectation = Expectation()
        self.sampler.batches.zero_()
        self.counts.owed = 0.0
        self.counts.jumps += 1
