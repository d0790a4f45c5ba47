"""GDNSM: Difficulty-aware negatives by conditional diffusion (Ma et al., SIGIR 2025; method 6).

A negative is generated for the user and some of the positive's modalities: the more of them guide
the chain, the nearer it comes to the positive, the harder it is. `DifficultyQueue` orders the
levels, (user, one modality) for each in turn and then all of them, and opens them as training goes
on. The chain is iterated, in all its T steps or in fewer (DDIM).

Differs from the released code: see `core.samplers.guided`; the schedule is respaced, so that the
chain begins in pure noise; embeddings are divided by running RMS values, and features are centred
and scaled by what the catalogue's were at training.
"""

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import ConfigError
from core.losses import diffuse
from core.noise import Noise
from core.samplers.base import FEATURES, Generated, Query
from core.samplers.guided import GuidedDenoiser, guidance_weights
from core.samplers.queue import DifficultyQueue
from core.samplers.scaled import Scaled
from core.schedule import Schedule, make_schedule


@dataclass(frozen=True)
class GDNSMConfig:
    """Everything that shapes a GDNSM sampler; saved in the manifest.

    Attributes:
        dim: d, of user and item embeddings.
        features: (name, width) of every modality, from the easiest level to the hardest.
        num_steps: T.
        schedule: linear, cosine or sigmoid.
        denoiser: linear or mlp.
        guidance: s, of every modality; 0 ignores it, 1 is no guidance.
        drop: chance, in training, of each level's modalities to be unknown together.
        per_level: M, negatives of each level in the queue.
        power: lambda of the queue's schedule.
        ddim_steps: steps of the deterministic chain, in [1, T]; None is DDPM's, with noise, in T.
        standardize: divide x_0 and the user by running RMS values.

    Raises:
        ConfigError: a value out of range.
    """

    dim: int
    features: tuple[tuple[str, int], ...]
    num_steps: int = 50
    schedule: str = "linear"
    denoiser: str = "mlp"
    guidance: float = 1.1
    drop: float = 0.05
    per_level: int = 2
    power: float = 1.0
    ddim_steps: int | None = None
    standardize: bool = True

    def __post_init__(self) -> None:
        if self.ddim_steps is not None and not 1 <= self.ddim_steps <= self.num_steps:
            raise ConfigError(
                f"ddim_steps = {self.ddim_steps}; it must lie in [1, {self.num_steps}]"
            )
        if not 0 <= self.drop * len(self.levels) < 1:
            raise ConfigError(
                f"drop = {self.drop}; {len(self.levels)} levels must leave a chance of none"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GDNSMConfig":
        """The inverse of `dataclasses.asdict`, through JSON too."""
        features = tuple((name, width) for name, width in values["features"])
        return cls(**{**values, "features": features})

    @property
    def levels(self) -> list[tuple[int, ...]]:
        """The modalities of each level, by place: each alone, then all."""
        each: list[tuple[int, ...]] = [(place,) for place in range(len(self.features))]
        return [*each, tuple(range(len(each)))] if len(each) > 1 else each

    @property
    def queue(self) -> DifficultyQueue:
        """Of the levels."""
        return DifficultyQueue(len(self.levels), self.per_level, self.power)


class GDNSM(Scaled):
    """Generates negatives of rising difficulty for each (user, positive with its features).

    Raises:
        ConfigError: unknown schedule or denoiser, no modality, or a size out of range.
    """

    method: ClassVar[str] = "gdnsm"

    signal: Tensor
    noise: Tensor
    drops: Tensor

    def __init__(self, config: GDNSMConfig) -> None:
        super().__init__(config.dim, config.num_steps, standardize=config.standardize)
        self.config = config
        self.schedule = make_schedule(config.schedule, config.num_steps)
        self.denoiser = GuidedDenoiser(self.schedule, config.dim, self.features, config.denoiser)
        self.queue = config.queue
        self.register_buffer("signal", self.schedule.alpha_bar.sqrt(), persistent=False)
        self.register_buffer("noise", (1 - self.schedule.alpha_bar).sqrt(), persistent=False)
        for place, width in enumerate(self.features.values()):
            self.register_buffer(f"centre_{place}", torch.zeros(width))
            self.register_buffer(f"spread_{place}", torch.tensor(1.0))
        drops = torch.zeros(len(config.levels) + 1, len(config.features), dtype=torch.bool)
        for row, level in enumerate(config.levels):
            drops[row, list(level)] = True  # the last row drops nothing
        self.register_buffer("drops", drops, persistent=False)
        self._walk = chain_steps(self.schedule, config.ddim_steps)

    @property
    def inputs(self) -> tuple[str, ...]:
        """See `NegativeSampler.inputs`."""
        named = (f"{FEATURES}{name}" for name in self.features)
        return ("users", "positives", *named, "progress")

    @property
    def features(self) -> Mapping[str, int]:
        """See `TakesFeatures.features`."""
        return dict(self.config.features)

    def summary(self) -> dict[str, Any]:
        """The manifest's account of this sampler."""
        return {
            "schedule": self.config.schedule,
            "denoiser": f"guided {self.config.denoiser}",
            "scales": self.scales,
            "transition": {},
            "sampler": asdict(self.config),
        }

    def fit(self, tables: Mapping[str, Float[Tensor, "I _"]]) -> None:
        """Take the catalogue's features: where they are centred, and how far they spread.

        What all items have in common tells none of them apart; one divisor for all columns keeps
        the angles between the rest.
        """
        for place, name in enumerate(self.features):
            centre = tables[name].mean(0)
            spread = (tables[name] - centre).square().mean().sqrt()
            getattr(self, f"centre_{place}").copy_(centre)
            getattr(self, f"spread_{place}").copy_(torch.where(spread > 0, spread, 1.0))

    def loss(
        self,
        users: Float[Tensor, "B d"],
        positives: Float[Tensor, "B d"],
        item_features: Mapping[str, Float[Tensor, "B _"]],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """||eps - eps_theta||^2, the mean over rows and dimensions, on detached embeddings.

        One categorical draw per row decides which modalities are unknown to it; the user never is.

        Args:
            users: (B, d).
            positives: (B, d).
            item_features: of every modality, (B, f).
            generator: draws t, eps and what is dropped.
        """
        x_0, condition = positives.detach() / self.item_rms, users.detach() / self.user_rms
        t, eps, x_t = diffuse(x_0, self.signal, self.noise, generator)
        chance = torch.rand(len(t), generator=generator, device=t.device)
        row = (chance / max(self.config.drop, 1e-30)).clamp(max=len(self.drops) - 1).long()
        tables = [self._scaled(place, item_features[name]) for place, name in self._places]
        predicted = self.denoiser(x_t, t, condition, tables, ~self.drops[row])
        error: Tensor = (eps - predicted).square().mean()
        return error

    @torch.no_grad()
    def generate(self, query: Query, n: int, noise: Noise) -> Generated:
        """See `Generates.generate`.

        What `query.progress` has opened of the queue comes in turn, the hardest first, and again
        from there; where nothing is open yet, the easiest level with weight 0.
        """
        users = query.users / self.user_rms
        known = [
            None if table is None else self._scaled(place, table)
            for place, table in ((p, query.item_features.get(name)) for p, name in self._places)
        ]
        levels = self.queue.places(n, query.progress)
        drawn = users.new_empty(len(users), n, self.dim)
        for level in sorted(set(levels)):
            # The last modality is added first: eps(0), eps(image), eps(text, image).
            adding = self.config.levels[level][::-1]
            weights = guidance_weights(adding, [self.config.guidance] * len(known))
            guidance = self.denoiser.guide(users, known, weights)
            places = [j for j, of in enumerate(levels) if of == level]
            x = noise.normal(len(places), self.dim, dtype=users.dtype)
            for t, of_state, of_f, deviation in self._walk:
                x = self.denoiser.step(x, t, guidance, of_state, of_f)
                if deviation:
                    x.add_(noise.normal(len(places), self.dim, dtype=x.dtype), alpha=deviation)
            if len(places) == n:
                drawn = x
            else:
                drawn[:, places] = x
        finished = torch.zeros(len(users), dtype=torch.int64, device=users.device)
        counts = 1.0 if self.queue.open(query.progress) else 0.0
        weight = torch.full((len(users), n), counts, device=users.device, dtype=users.dtype)
        return Generated(drawn.mul_(self.item_rms), finished, weight)

    @property
    def _places(self) -> list[tuple[int, str]]:
        return list(enumerate(self.features))

    def _scaled(self, place: int, table: Float[Tensor, "B _"]) -> Float[Tensor, "B _"]:
        centre, spread = getattr(self, f"centre_{place}"), getattr(self, f"spread_{place}")
        scaled: Tensor = (table - centre) / spread
        return scaled


def chain_steps(
    schedule: Schedule, ddim_steps: int | None
) -> list[tuple[int, float, float, float]]:
    """(t, a, q, sigma) of every step x' = a x_t + q f(x_t) + sigma N(0, I), T first.

    One formula for both chains (Song et al. 2021, Eq. 12), from t to s < t:

        x' = sqrt(abar_s) x0_hat + sqrt(1 - abar_s - sigma^2) eps_theta + sigma N(0, I)

    DDIM has sigma = 0; DDPM is s = t - 1 and sigma_t^2 of ancestral sampling. f is what the
    denoiser adds to sqrt(1 - abar_t) x_t, which is put into `a` here, in float64.

    Args:
        schedule: its tables.
        ddim_steps: how many steps DDIM takes, evenly spaced; None is DDPM.
    """
    total = schedule.num_steps
    many = total if ddim_steps is None else ddim_steps
    stops = [round(total * (many - k) / many) for k in range(many + 1)]
    alpha_bar, ancestral = schedule.alpha_bar.tolist(), schedule.ancestral_variance.tolist()
    steps = []
    for t, s in itertools.pairwise(stops):
        variance = ancestral[t] if ddim_steps is None else 0.0
        growth = (alpha_bar[s] / alpha_bar[t]) ** 0.5
        left = (1 - alpha_bar[t]) ** 0.5
        of_noise = max(0.0, 1 - alpha_bar[s] - variance) ** 0.5 - growth * left
        steps.append((t, growth + of_noise * left, of_noise, variance**0.5))
    return steps
