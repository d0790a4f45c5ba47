"""What the co-training loop asks of a method: its own step, and the encoder's loss.

A method is one small class. The loop does the rest: batches, the encoder's embeddings, a sampled
negative e_j, the encoder's penalty and step, validation. To add one, write `objective` and `loss`,
and name the class in `trainer.methods.make_method`; one of your own goes to `cotrain` as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from trainer.batches import Batch
from trainer.config import TrainConfig
from trainer.data import Interactions
from trainer.distributed import average_gradients
from trainer.encoders import Encoded
from trainer.run import Diffusion


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch as the encoder sees it; everything with gradient.

    Attributes:
        batch: users, items and contexts.
        encoded: what looks further items up.
        e_u: (B, d) users.
        e_i: (B, d) positives.
        e_j: (B, d) sampled negatives.
        s_ui: (B,) the positives' scores.
        s_uj: (B,) the sampled negatives'.
    """

    batch: Batch
    encoded: Encoded
    e_u: Float[Tensor, "B d"]
    e_i: Float[Tensor, "B d"]
    e_j: Float[Tensor, "B d"]
    s_ui: Float[Tensor, " B"]
    s_uj: Float[Tensor, " B"]

    @cached_property
    def detached(self) -> "Rows":
        """The same without gradient, as a diffusion model sees them."""
        parts = (self.e_u, self.e_i, self.e_j, self.s_ui, self.s_uj)
        return Rows(self.batch, self.encoded, *(part.detach() for part in parts))


@dataclass(frozen=True)
class Ranked:
    """What a method makes of a batch.

    Attributes:
        loss: of the encoder, with gradient, without its penalty.
        transition: (B,) t*, where negatives were generated at one.
        generated: (B,) scores of the generated negatives, or of one of them, where there are any.
        told: scalars about the generated negatives, see `likeness`; averaged over the epoch they
            stand in the report beside its validation.
    """

    loss: Float[Tensor, ""]
    transition: Int[Tensor, " B"] | None = None
    generated: Float[Tensor, " B"] | None = None
    told: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)


@runtime_checkable
class Method(Protocol):
    """What generates negatives, as the loop sees it."""

    def begin(self, epoch: int) -> None:
        """An epoch, from 0, is about to begin: schedules move on."""
        ...

    def learn(self, rows: Rows) -> Mapping[str, Float[Tensor, ""]]:
        """The method's own step on embeddings without gradient; its losses by part."""
        ...

    def loss(self, rows: Rows) -> Ranked:
        """The encoder's loss on a batch, with what the method generates for it."""
        ...


MethodOf = Callable[[Diffusion | None, Interactions, TrainConfig], Method]
"""Makes a method for a run: of its sampler, if it has one, the data and the configuration."""


class Diffusing(ABC):
    """A method with a diffusion model, which takes `diffusion_steps` steps for each of the encoder.

    Args:
        diffusion: the model, its optimiser and the generator of its noise.
        config: of the run.
    """

    def __init__(self, diffusion: Diffusion, config: TrainConfig) -> None:
        self.diffusion = diffusion
        self.config = config

    @property
    def generator(self) -> torch.Generator:
        """Of everything random in the method; batches and e_j have another."""
        return self.diffusion.generator

    def begin(self, epoch: int) -> None:  # noqa: B027
        """See `Method.begin`; most methods have no schedule."""

    def learn(self, rows: Rows) -> Mapping[str, Float[Tensor, ""]]:
        """See `Method.learn`."""
        self.observe(rows.detached)
        for _ in range(self.config.diffusion_steps):
            loss = self.objective(rows.detached)
            self.diffusion.optimizer.zero_grad()
            (loss * rows.batch.weight).backward()
            average_gradients(self.diffusion.sampler.parameters())
            self.diffusion.optimizer.step()
        return {"diffusion": loss.detach()}

    @abstractmethod
    def observe(self, rows: Rows) -> None:
        """Let the sampler's running scales see a batch, without gradient."""

    @abstractmethod
    def objective(self, rows: Rows) -> Float[Tensor, ""]:
        """The diffusion model's loss on a batch without gradient."""

    @abstractmethod
    def loss(self, rows: Rows) -> Ranked:
        """See `Method.loss`."""


@torch.no_grad()
def likeness(rows: Rows, generated: Float[Tensor, "B d"], name: str = "") -> dict[str, Tensor]:
    """How near generated negatives are to their positives; each a mean over the batch.

    `cosine` is cos(e_d, e_i): at 1 the model copies the positive. `margin` is s_ui - s_ud, in units
    of score. `hardness` is the share of rows whose e_d scores above the sampled negative e_j.
    """
    s_ud = (rows.e_u * generated).sum(-1)
    told = {
        "cosine": cosine_similarity(generated, rows.e_i).mean(),
        "margin": (rows.s_ui - s_ud).mean(),
        "hardness": (s_ud > rows.s_uj).float().mean(),
    }
    return {f"{key}{name}": value for key, value in told.items()}
