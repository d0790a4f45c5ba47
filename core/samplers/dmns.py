"""DMNS: Diffusion-based Multi-level Negative Sampling (Nguyen and Fang, WWW 2024; method 4).

States of one reverse chain are negatives of several levels of hardness. The denoiser is affine in
x_t, so the law of every level is known in closed form (`core.chain.at_each`), and n negatives cost
one chain and n draws.

Differs from the paper, which predicts links between nodes of a graph: x_0 is the positive item and
the condition the user; embeddings are divided by running RMS values; the linear schedule is
respaced, so that the chain begins in pure noise; the last layer starts at zero. Levels are drawn
independently of each other where the paper takes them from one chain, which a loss that is averaged
over levels cannot tell.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core import chain
from core.denoiser import Coefficients, Levelled, Prepared, time_embedding
from core.errors import ConfigError
from core.losses import diffuse
from core.noise import Noise
from core.samplers.base import Generated, Query
from core.samplers.scaled import Scaled
from core.schedule import Schedule, make_schedule


@dataclass(frozen=True)
class DMNSConfig:
    """Everything that shapes a DMNS sampler; saved in the manifest.

    Attributes:
        dim: d, of user and item embeddings.
        num_steps: T.
        schedule: linear, cosine or sigmoid.
        divisors: a level is the state at t = T / divisor, rounded down; the hardest first.
        weights: of each level's loss, in [0, 1].
        standardize: divide x_0 and condition by running RMS values; False is the literal paper.

    Raises:
        ConfigError: levels and weights of different number, or out of range.
    """

    dim: int
    num_steps: int = 50
    schedule: str = "linear"
    divisors: tuple[int, ...] = (10, 8, 4, 2)
    weights: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7)
    standardize: bool = True

    def __post_init__(self) -> None:
        fits = len(self.divisors) == len(self.weights) > 0
        if not (fits and min(self.divisors) >= 1 and all(0 <= w <= 1 for w in self.weights)):
            raise ConfigError(
                f"divisors = {self.divisors}, weights = {self.weights}; they must be as many, the "
                "divisors at least 1 and the weights in [0, 1]"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DMNSConfig":
        """The inverse of `dataclasses.asdict`, through JSON too."""
        levels = {name: tuple(values[name]) for name in ("divisors", "weights")}
        return cls(**{**values, **levels})

    @property
    def stops(self) -> list[int]:
        """The step of each level."""
        return [self.num_steps // divisor for divisor in self.divisors]


class StackedFiLM(Levelled):
    """Two blocks h <- (gamma + 1) h + delta, their coefficients linear in time code plus condition.

    There is no activation between the blocks, so that the whole is affine in x_t:

        eps_theta = (1 + gamma_1)(1 + gamma_2) x_t + (1 + gamma_2) delta_1 + delta_2

    And the coefficients are linear in the code, so that the part of the user is computed once and a
    step of the chain multiplies no matrix.

    Args:
        schedule: gives T and abar.
        dim: d.
        time_dim: width of the time embedding, even.
    """

    time_codes: Tensor

    def __init__(self, schedule: Schedule, dim: int, time_dim: int = 64) -> None:
        super().__init__(schedule)
        self.time = nn.Sequential(nn.Linear(time_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.film = nn.Linear(dim, 4 * dim)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        codes = time_embedding(schedule.num_steps, time_dim)
        self.register_buffer("time_codes", codes.float(), persistent=False)

    def prepare(self, condition: Float[Tensor, "B d"]) -> Prepared:
        """gamma + 1 and delta of both blocks: the user's parts (B, d), the step's (T+1, d)."""
        user = nn.functional.linear(condition, self.film.weight).chunk(4, dim=-1)
        gamma_1, delta_1, gamma_2, delta_2 = self.film(self.time(self.time_codes)).chunk(4, dim=-1)
        steps = (1 + gamma_1, delta_1, 1 + gamma_2, delta_2)
        return Prepared(tuple(part.contiguous() for part in user), steps)

    def coefficients(self, t: Int[Tensor, " B"], prepared: Prepared) -> Coefficients:
        """(gamma, eta) of both blocks together, each (B, d)."""
        first, delta_1, second, delta_2 = (
            user + nn.functional.embedding(t, step)
            for user, step in zip(prepared.users, prepared.steps, strict=True)
        )
        return first * second, torch.addcmul(delta_2, second, delta_1)

    def transfer(self, t: int, prepared: Prepared) -> Coefficients:
        """(m_t, n_t), each (B, d): sqrt(alpha_t) - k_t (gamma - noise_t) and -k_t eta."""
        first, delta_1, second, delta_2 = (
            user + step[t] for user, step in zip(prepared.users, prepared.steps, strict=True)
        )
        above = first * second - self.noise[t].to(first.dtype)
        eta = torch.addcmul(delta_2, second, delta_1)
        return self.root_alpha[t] - self.k[t] * above, -self.k[t] * eta


class DMNS(Scaled):
    """Generates negatives of several levels of hardness for each (user, positive).

    Raises:
        ConfigError: unknown schedule, or a size out of range.
    """

    method: ClassVar[str] = "dmns"
    inputs: ClassVar[tuple[str, ...]] = ("users", "positives")

    weights: Tensor

    def __init__(self, config: DMNSConfig) -> None:
        super().__init__(config.dim, config.num_steps, standardize=config.standardize)
        self.config = config
        self.schedule = make_schedule(config.schedule, config.num_steps)
        self.denoiser = StackedFiLM(self.schedule, config.dim)
        self.register_buffer("weights", torch.tensor(config.weights), persistent=False)

    def summary(self) -> dict[str, Any]:
        """The manifest's account of this sampler."""
        return {
            "schedule": self.config.schedule,
            "denoiser": "stacked film",
            "scales": self.scales,
            "transition": {},
            "sampler": asdict(self.config),
        }

    def loss(
        self,
        users: Float[Tensor, "B d"],
        positives: Float[Tensor, "B d"],
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """|eps - eps_theta|, the mean over rows and dimensions, on detached embeddings."""
        x_0, condition = positives.detach() / self.item_rms, users.detach() / self.user_rms
        t, eps, x_t = diffuse(x_0, self.denoiser.signal, self.denoiser.noise, generator)
        gamma, eta = self.denoiser.coefficients(t, self.denoiser.prepare(condition))
        return (eps - (gamma * x_t + eta)).abs().mean()

    @torch.no_grad()
    def generate(self, query: Query, n: int, noise: Noise) -> Generated:
        """See `Generates.generate`: the levels in turn, the hardest first, and again from there.

        So n = 1 is the hardest level, and a multiple of the number of levels has all of them alike.
        """
        stops = self.config.stops[:n]
        condition = query.users / self.user_rms
        mean, std = chain.at_each(self.denoiser, self.schedule, condition, stops, ancestral=True)
        which = torch.arange(n, device=mean.device) % len(stops)
        drawn = noise.normal(n, self.dim, dtype=mean.dtype)
        drawn = drawn.mul_(std[:, which]).add_(mean[:, which]).mul_(self.item_rms)
        taken = round(sum(stops[j % len(stops)] for j in range(n)) / n)
        transition = torch.full((len(drawn),), taken, device=drawn.device)
        return Generated(drawn, transition, self.weights[which].expand(len(drawn), n))
