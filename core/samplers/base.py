"""What every method's sampler is to the trainer and to the service.

Two kinds, told apart by their types and never by their names:

    HasLaw      one negative's law is known in closed form and can be cached, returned, drawn from
    Generates   negatives come out of a chain that draws noise on its way, or at several levels

A sampler is one or the other; `draw` asks either kind. What else a query may carry is named by
`inputs`; a sampler that takes item features or a popularity stratum says their sizes as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.chain import Law
from core.noise import Noise
from core.transition import Transition

FEATURES = "item_features."  # before the name of a modality, in `inputs` and on the wire


@dataclass(frozen=True)
class Query:
    """For whom negatives are wanted, and under which conditions.

    Attributes:
        users: (B, d) e_u.
        positives: (B, d) e_i.
        transition: the rule for t*, of a sampler that `HasLaw`.
        threshold: (B,) mu-, or None for the sampler's own.
        item_features: by modality, (B, f) of each positive; one that is missing is unknown.
        progress: how far training is, in [0, 1], for a sampler that schedules its difficulty; None
            is its end.
        popularity: (B,) int64, the stratum that negatives are to be conditioned on, in
            [0, `TakesPopularity.strata`), 0 the least popular; None averages over the strata.
    """

    users: Float[Tensor, "B d"]
    positives: Float[Tensor, "B d"]
    transition: Transition = field(default_factory=Transition)
    threshold: Float[Tensor, " B"] | None = None
    item_features: Mapping[str, Float[Tensor, "B _"]] = field(default_factory=dict)
    progress: float | None = None
    popularity: Int[Tensor, " B"] | None = None

    def rows(self, which: slice) -> "Query":
        """The same for some of the rows."""
        return replace(
            self,
            users=self.users[which],
            positives=self.positives[which],
            threshold=None if self.threshold is None else self.threshold[which],
            item_features={name: table[which] for name, table in self.item_features.items()},
            popularity=None if self.popularity is None else self.popularity[which],
        )


@dataclass(frozen=True)
class Generated:
    """n negatives of each row.

    Attributes:
        negatives: (B, n, d), in the encoder's own units; where they differ in hardness, the hardest
            first.
        transition: (B,) int64, the step that a row's negatives were taken at; their mean, rounded,
            where they differ.
        weights: (B, n) in [0, 1], what each counts in the loss; None is 1 everywhere.
        items: (B, n) int64, which items of its catalogue a sampler that `HasItems` chose.
    """

    negatives: Float[Tensor, "B n d"]
    transition: Int[Tensor, " B"]
    weights: Float[Tensor, "B n"] | None = None
    items: Int[Tensor, "B n"] | None = None


@runtime_checkable
class NegativeSampler(Protocol):
    """A generative sampler; an `nn.Module` whose state is its checkpoint.

    Attributes:
        method: the name under which it is trained, published and asked for.
    """

    method: ClassVar[str]

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a query may carry: `users` and `positives`, which it must, and what it may add.

        Those are `threshold`, `progress`, `popularity` and `item_features.NAME`.
        """
        ...

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
        """What the manifest says beside dim and num_steps.

        `schedule`, `denoiser`, `scales`, `transition` (empty without such a rule), and `sampler`,
        its config.
        """
        ...


@runtime_checkable
class HasLaw(NegativeSampler, Protocol):
    """A sampler whose negatives of a row are independent draws of one law in closed form.

    Attributes:
        transition: the rule used when a caller names none.
    """

    transition: Transition

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


@runtime_checkable
class Generates(NegativeSampler, Protocol):
    """A sampler whose negatives differ from each other, or come out of an iterated chain."""

    def generate(self, query: Query, n: int, noise: Noise) -> Generated:
        """n >= 1 negatives per row, without gradient.

        A row depends on its own row of the query and on its request's noise alone.
        """
        ...


@runtime_checkable
class TakesFeatures(Protocol):
    """A sampler that is conditioned on the positive's features."""

    @property
    def features(self) -> Mapping[str, int]:
        """Name -> width f of every modality that it knows."""
        ...


@runtime_checkable
class TakesPopularity(Protocol):
    """A sampler that is conditioned on a stratum of popularity."""

    @property
    def strata(self) -> int:
        """How many there are."""
        ...


@runtime_checkable
class HasItems(Protocol):
    """A sampler that holds a catalogue of items and says which its negatives come of."""

    @property
    def num_items(self) -> int:
        """I; its items are 0 to I - 1."""
        ...


def draw(sampler: NegativeSampler, query: Query, n: int, generator: torch.Generator) -> Generated:
    """n negatives per row from a sampler of either kind, all from one generator.

    Raises:
        TypeError: it is of neither kind.
    """
    if isinstance(sampler, HasLaw):
        law = sampler.law(query, generator)
        return Generated(law.draw(n, generator), law.transition)
    if isinstance(sampler, Generates):
        return sampler.generate(query, n, Noise([generator], [len(query.users)]))
    raise TypeError(f"{sampler.method} neither has a law nor generates")
