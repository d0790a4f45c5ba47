"""What comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from ._arrays import A, library_of
from .errors import InvalidInputError


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer(Generic[A]):
    """What every answer to a batch says.

    Attributes:
        model: the model that answered.
        version: the one version that computed the whole answer.
        seed: the seed it was drawn with; the request repeated with it gives the same answer.
        request_id: what the service's log calls the request.
        timings: milliseconds by stage (decode, queue, sample, encode), from `Server-Timing`.
    """

    model: str
    version: str
    seed: int
    request_id: str | None = None
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class Negatives(Answer[A]):
    """Negatives for a batch; what was not asked for is None.

    Attributes:
        negatives: [B, n, d].
        weights: [B, n] in [0, 1], what each negative counts in the loss; None: all alike.
        transition: [B] int64, the step t* in [0, T] at which each row stopped.
        mean: [B, d], centre of each row's law at t*.
        std: [B, d], its deviations.
        scores: [B, n], score of each negative against its user.
        items: [B, n] int64, which items of the model's catalogue they are, for a model with one:
            rows of the item table that was published.
    """

    negatives: A = field(repr=False)
    weights: A | None = field(default=None, repr=False)
    transition: A | None = field(default=None, repr=False)
    mean: A | None = field(default=None, repr=False)
    std: A | None = field(default=None, repr=False)
    scores: A | None = field(default=None, repr=False)
    items: A | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Items(Answer[A]):
    """Which items the negatives of a batch are.

    Attributes:
        items: [B, n] int64, rows of the item table that `version` was published with.
    """

    items: A = field(repr=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class Distribution(Answer[A]):
    """The law of each row's negatives, N(mean, diag(std^2)), to draw from as often as wanted.

    Attributes:
        mean: [B, d].
        std: [B, d].
        transition: [B] int64, the step t* at which the law holds.
    """

    mean: A = field(repr=False)
    std: A = field(repr=False)
    transition: A = field(repr=False)

    def draw(self, n: int = 1, generator: Any = None) -> A:
        """Draws negatives here: mean + std z, z ~ N(0, I).

        Args:
            n: negatives per row.
            generator: a seed, or a `numpy.random.Generator` or `torch.Generator` as the arrays are;
                by default fresh entropy for numpy and the global generator for torch.

        Returns:
            [B, n, d], of the mean's kind, dtype and device.

        Raises:
            InvalidInputError: n < 1, or a generator of the other library.
        """
        if n < 1:
            raise InvalidInputError(f"n is {n}; pass at least 1")
        mean: Any = self.mean
        std: Any = self.std
        noise = library_of(mean, std).normal(n, mean, generator)
        drawn: A = mean[:, None, :] + std[:, None, :] * noise
        return drawn


@dataclass(frozen=True)
class ModelVersion:
    """One published version of a model."""

    version: str
    created_at: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Model:
    """One model the service knows.

    Attributes:
        name: its name.
        live: the version that answers when none is named.
        method: adar, dmns, cnsdiff, gdnsm or catalogue.
        dim: d, the width it was trained for.
        num_steps: T, its diffusion steps.
        denoiser: film or moment.
        transition: its own rule for t*.
        inputs: what a request may carry.
        features: width f of each modality in `item_features`.
        strata: how many strata of `popularity` there are; 0 without that input.
        items: how many items its catalogue has; 0 without one.
        returns: what it can answer with.
        age_seconds: since the live version was published.
        metrics: recommendation quality, as published.
        versions: what can be asked for by `version`.
    """

    name: str
    live: str | None = None
    method: str | None = None
    dim: int | None = None
    num_steps: int | None = None
    denoiser: str | None = None
    transition: Any = None
    inputs: Any = None
    features: Mapping[str, int] = field(default_factory=dict)
    strata: int = 0
    items: int = 0
    returns: Any = None
    age_seconds: float | None = None
    metrics: Mapping[str, Any] | None = None
    versions: tuple[ModelVersion, ...] = ()
