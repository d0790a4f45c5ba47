"""What a model takes and can answer with; every request is held against it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from core.errors import OutOfRangeError
from core.samplers import HasItems, HasLaw, NegativeSampler, TakesFeatures, TakesPopularity
from core.transition import Transition
from service.params import RETURNS, RULE, Params


@dataclass(frozen=True)
class Offer:
    """What one version of a model takes and gives: found out once, when it is loaded.

    Attributes:
        method: adar, ...
        dim: d.
        inputs: the names of what it takes.
        law: of a sampler whose negatives have a law in closed form, the sampler itself.
        features: name -> width f of each modality that it knows.
        strata: how many strata of popularity there are; 0 without that input.
        items: how many items its catalogue has; 0 without one.
    """

    method: str
    dim: int
    inputs: tuple[str, ...]
    law: HasLaw | None = None
    features: Mapping[str, int] = field(default_factory=dict)
    strata: int = 0
    items: int = 0

    @classmethod
    def of(cls, sampler: NegativeSampler) -> Self:
        """That of a sampler."""
        return cls(
            method=sampler.method,
            dim=sampler.dim,
            inputs=sampler.inputs,
            law=sampler if isinstance(sampler, HasLaw) else None,
            features=sampler.features if isinstance(sampler, TakesFeatures) else {},
            strata=sampler.strata if isinstance(sampler, TakesPopularity) else 0,
            items=sampler.num_items if isinstance(sampler, HasItems) else 0,
        )

    @property
    def returns(self) -> tuple[str, ...]:
        """What it can answer with: of `params.RETURNS` all but what `_why_not` explains."""
        return tuple(name for name in RETURNS if name not in self._why_not)

    @property
    def _why_not(self) -> dict[str, str]:
        """What it cannot answer with, and why."""
        law = {"distribution": "its negatives have no law in closed form"}
        items = {"items": "it holds no catalogue of items"}
        return (law if self.law is None else {}) | ({} if self.items else items)

    def rule(self, asked: Params, *, has_threshold: bool) -> Transition:
        """The rule for t* of a request, once its scalars are known to fit.

        Raises:
            OutOfRangeError: it asks for, or gives, what this model does not have; or see
                `Params.rule`.
        """
        for name in asked.returns or ():
            if (why := self._why_not.get(name)) is not None:
                raise OutOfRangeError(
                    f"method {self.method!r} has no {name}: {why}; "
                    f"returns can be {', '.join(self.returns)}"
                )
        given = [] if asked.progress is None else ["progress"]
        if self.law is None:
            given += [name for name in RULE if getattr(asked, name) is not None]
        unknown = [name for name in given if name not in self.inputs]
        if unknown:
            raise OutOfRangeError(
                f"method {self.method!r} takes no {unknown[0]}; "
                f"this model's inputs: {', '.join(self.inputs)}"
            )
        if self.law is None:
            return Transition()
        return asked.rule(self.law.transition, has_threshold=has_threshold)
