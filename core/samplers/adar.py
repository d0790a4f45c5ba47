"""ADAR: Adaptive Diffusion-based Augmentation for Recommendation (2026), Algorithm 1."""

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core import chain, transition
from core.chain import Law
from core.denoiser import Denoiser, FiLMDenoiser, MomentHead
from core.errors import ConfigError
from core.losses import DiffusionLoss, diffusion_loss
from core.samplers.base import Query
from core.samplers.scaled import EMA_BATCHES, move
from core.schedule import make_schedule
from core.transition import Transition

DENOISERS = ("film", "moment")


@dataclass(frozen=True)
class ADARConfig:
    """Everything that shapes an ADAR sampler; saved in the manifest.

    Attributes:
        dim: d, of user and item embeddings.
        num_steps: T; the paper takes 50 for collaborative filtering, 20 for sequences.
        schedule: linear, cosine or sigmoid.
        denoiser: `film` (Eq. 7) or `moment` (its closed form, method 3.3).
        hidden: width of the denoiser's hidden layer.
        reconstruction: reading of Eq. 8's second term, `one_step` or `chain`.
        standardize: divide x_0 and condition by running RMS values; False is the literal paper.
        ancestral: add the posterior's noise in the reverse chain; Eq. 10 adds none.
        transition: the default rule for t*.
    """

    dim: int
    num_steps: int = 50
    schedule: str = "linear"
    denoiser: str = "film"
    hidden: int = 128
    reconstruction: str = "one_step"
    standardize: bool = True
    ancestral: bool = False
    transition: Transition = field(default_factory=Transition)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ADARConfig":
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "transition": Transition(**values["transition"])})


class ADAR(nn.Module):
    """Generates, for each (user, positive), the sample at the transition point.

    Running scales (moments over recent training batches) are part of the checkpoint:
    `user_rms`, `item_rms` standardise the embeddings, `score_mean`, `score_std` serve the rule
    `calibrated`, and `negative_score`, the mean score of sampled negatives, is mu- where the caller
    gives none.

    Raises:
        ConfigError: unknown denoiser or schedule, or a size out of range.
    """

    method: ClassVar[str] = "adar"
    inputs: ClassVar[tuple[str, ...]] = ("users", "positives", "threshold")

    denoiser: Denoiser
    user_rms: Tensor
    item_rms: Tensor
    score_mean: Tensor
    score_std: Tensor
    negative_score: Tensor
    batches: Tensor

    def __init__(self, config: ADARConfig) -> None:
        super().__init__()
        if config.dim < 1 or config.hidden < 1:
            raise ConfigError(f"dim = {config.dim}, hidden = {config.hidden}; both must be >= 1")
        if config.denoiser not in DENOISERS:
            known = ", ".join(DENOISERS)
            raise ConfigError(f"denoiser = {config.denoiser!r}; known: {known}")
        self.config = config
        self.transition = config.transition
        self.schedule = make_schedule(config.schedule, config.num_steps)
        kind = FiLMDenoiser if config.denoiser == "film" else MomentHead
        self.denoiser = kind(self.schedule, config.dim, config.hidden)
        for name, value in _UNIT_SCALES.items():
            self.register_buffer(name, torch.tensor(value))
        self.register_buffer("batches", torch.tensor(0))

    @property
    def dim(self) -> int:
        """d."""
        return self.config.dim

    @property
    def num_steps(self) -> int:
        """T."""
        return self.config.num_steps

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.user_rms.device

    def summary(self) -> dict[str, Any]:
        """The manifest's account of this sampler."""
        return {
            "schedule": self.config.schedule,
            "denoiser": self.config.denoiser,
            "scales": {name: float(getattr(self, name)) for name in _UNIT_SCALES},
            "transition": asdict(self.config.transition),
            "sampler": asdict(self.config),
        }

    @torch.no_grad()
    def observe(
        self,
        users: Float[Tensor, "B d"],
        positives: Float[Tensor, "B d"],
        negatives: Float[Tensor, "B d"],
    ) -> None:
        """Move the running scales towards this batch; a plain mean until `EMA_BATCHES` are seen."""
        self.batches += 1
        rate = 1 / self.batches.clamp(max=EMA_BATCHES)
        score = (users * positives).sum(-1)
        deviation = score - self.score_mean.lerp(score.mean(), rate)
        if self.config.standardize:
            move(self.user_rms, users.square().mean(), rate)
            move(self.item_rms, positives.square().mean(), rate)
        move(self.score_std, deviation.square().mean(), rate)
        self.score_mean.lerp_(score.mean(), rate)
        self.negative_score.lerp_((users * negatives).sum(-1).mean(), rate)

    def loss(
        self,
        users: Float[Tensor, "B d"],
        positives: Float[Tensor, "B d"],
        generator: torch.Generator,
    ) -> DiffusionLoss:
        """Eq. 8 on standardised, detached embeddings."""
        return diffusion_loss(
            self.denoiser,
            self.schedule,
            positives.detach() / self.item_rms,
            users.detach() / self.user_rms,
            generator,
            reconstruction=self.config.reconstruction,
        )

    def law(self, query: Query, generator: torch.Generator) -> Law:
        """The law of x_{d,t*} (Algorithm 1, lines 11-16) in the encoder's own units.

        Args:
            query: users and positives (B, d), float32, and the rule.
            generator: draws t* for the rule `random`; untouched by the others.
        """
        return self.law_at(query, self.transition_point(query, generator))

    @torch.no_grad()
    def transition_point(
        self, query: Query, generator: torch.Generator
    ) -> Int[Tensor, " B"] | None:
        """t* by a rule that needs no look at the chain (Algorithm 1, line 14); None by another."""
        rule, steps = query.transition, self.num_steps
        score = (query.users * query.positives).sum(-1)
        match rule.rule:
            case "exact" | "mixed":
                return None
            case "score_aware":
                return transition.score_aware(score, steps, rule.omega, rule.k)
            case "calibrated":
                mean, std = self.score_mean, self.score_std
                return transition.calibrated(score, mean, std, steps, rule.omega, rule.k)
            case "theorem":
                return transition.theorem(score, self._threshold(query), self.schedule.alpha_bar)
            case "random":
                return transition.random(len(score), steps, generator, score.device)
            case _:  # fixed
                return torch.full_like(score, transition.fixed(steps, rule.hardness)).long()

    @torch.no_grad()
    def law_at(self, query: Query, t_star: Int[Tensor, " B"] | None) -> Law:
        """The law at a t* known beforehand, or where `exact` finds it, or of `mixed`.

        A row of it depends on the user's row and on its t* alone; where t* is None, on the user's
        row, its threshold and the rule.
        """
        rule, ancestral = query.transition, self.config.ancestral
        condition = query.users / self.user_rms
        if t_star is not None:
            law = chain.at_step(
                self.denoiser, self.schedule, condition, t_star, ancestral=ancestral
            )
        elif rule.rule == "exact":
            steps = chain.reverse(self.denoiser, self.schedule, condition, ancestral=ancestral)
            scoring = query.users * self.item_rms
            quantile = transition.hardness_quantile(rule.hardness)
            law = chain.at_threshold(steps, scoring, self._threshold(query), quantile)
        else:  # mixed
            stops = transition.mixed_stops(self.num_steps)
            steps = chain.reverse(
                self.denoiser, self.schedule, condition, stop=min(stops), ancestral=ancestral
            )
            law = chain.at_mean_of_steps(steps, stops)
        return law.scaled(self.item_rms)

    def _threshold(self, query: Query) -> Float[Tensor, " B"]:
        """mu-: the query's, else the mean score of the negatives met in training."""
        if query.threshold is not None:
            return query.threshold
        return self.negative_score.expand(len(query.users))


_UNIT_SCALES = {
    "user_rms": 1.0,
    "item_rms": 1.0,
    "score_mean": 0.0,
    "score_std": 1.0,
    "negative_score": 0.0,
}
