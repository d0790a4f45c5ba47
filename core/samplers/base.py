"""What every method's sampler is to the trainer and to the service."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.chain import Law
from core.losses import DiffusionLoss
from core.transition import Transition


@dataclass(frozen=True)
class Query:
    """For whom negatives are wanted, and by which rule.

    Attributes:
        users: (B, d) e_u.
        positives: (B, d) e_i.
        transition: the rule for t*.
        threshold: (B,) mu-, or None for the sampler's own.
    """

    users: Float[Tensor, "B d"]
    positives: Float[Tensor, "B d"]
    transition: Transition
    threshold: Float[Tensor, " B"] | None = None


@runtime_checkable
class NegativeSampler(Protocol):
    """A generative sampler with a law in closed form; an `nn.Module` whose state is its checkpoint.

    Attributes:
        method: the name under which it is trained, published and asked for.
        inputs: the names of the inputs that a query may carry.
        transition: the rule used when a caller names none.
    """

    method: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    transition: Transition

    @property
    def dim(self) -> int:
        """d."""
        ...

    @property
    def num_steps(self) -> int:
        """T."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its weights are, and where queries and generators must be."""
        ...

    def summary(self) -> dict[str, Any]:
        """What the manifest says beside dim and num_steps: schedule, denoiser, scales, config."""
        ...

    def observe(
        self,
        users: Float[Tensor, "B d"],
        positives: Float[Tensor, "B d"],
        negatives: Float[Tensor, "B d"],
    ) -> None:
        """Update the running scales from one training batch."""
        ...

    def loss(
        self,
        users: Float[Tensor, "B d"],
        positives: Float[Tensor, "B d"],
        generator: torch.Generator,
    ) -> DiffusionLoss:
        """The sampler's own training objective, on detached embeddings."""
        ...

    def law(self, query: Query, generator: torch.Generator) -> Law:
        """The law of one negative per row; `generator` serves rules that draw t*."""
        ...

    def transition_point(
        self, query: Query, generator: torch.Generator
    ) -> Int[Tensor, " B"] | None:
        """The first half of `law`: t*, or None where the rule must look at the chain for it."""
        ...

    def law_at(self, query: Query, t_star: Int[Tensor, " B"] | None) -> Law:
        """The second half. A row depends on its user and t*; on user, threshold, rule without t*.

        That is what a cache of laws may rely on.
        """
        ...
