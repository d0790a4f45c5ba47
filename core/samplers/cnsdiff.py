"""CNSDiff: Causal Negative Sampling via Diffusion (Zhao et al. 2025; method 5).

A positive is noised a little and brought back; of candidates at several levels the one that scores
highest for the user is the negative. Only the abstract and the released code could be read, and
they differ, so there are three variants:

    released    each candidate is noised to its own step s and runs through all T steps; the
                denoiser is never trained
    described   one chain from x_T, trained; its states at the steps s are the candidates
    causal      described, and the chain is conditioned on the positive's stratum of popularity, the
                observed stand-in for the confounder E; generation adjusts for it (backdoor):
                x0_hat = sum_E P(E) f(x_t, t, E), P(E) the strata's shares of what was observed

Differs from the released code: dropout acts in training only and by the run's own generator.
"""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.errors import ConfigError
from core.losses import diffuse
from core.noise import Noise
from core.samplers.base import Generated, Query
from core.samplers.clean import CleanDenoiser, Codes
from core.samplers.scaled import Scaled
from core.schedule import linear_variance

VARIANTS = ("released", "described", "causal")
CHUNK_ROWS = 1024  # of candidates at once: their states fit a core's cache
LEVELS = (9, 7, 5)  # tenths of T: 18, 14 and 10 of the paper's 20


@dataclass(frozen=True)
class CNSDiffConfig:
    """Everything that shapes a CNSDiff sampler; saved in the manifest.

    Attributes:
        dim: d, of user and item embeddings.
        num_steps: T.
        variant: one of `VARIANTS`.
        strata: K, of popularity; of `causal` alone.
        hidden: width of the denoiser's hidden layer.
        dropout: of the denoiser's input, in training.
        causal_weight: of R_causal in the diffusion's loss.

    Raises:
        ConfigError: unknown variant, or a value out of range.
    """

    dim: int
    num_steps: int = 20
    variant: str = "released"
    strata: int = 5
    hidden: int = 64
    dropout: float = 0.5
    causal_weight: float = 0.1

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ConfigError(f"variant = {self.variant!r}; known: {', '.join(VARIANTS)}")
        if self.strata < 1 or self.hidden < 1:
            raise ConfigError(
                f"strata = {self.strata}, hidden = {self.hidden}; both must be at least 1"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout = {self.dropout}; it must lie in [0, 1)")

    @property
    def levels(self) -> list[int]:
        """The step of each candidate, falling."""
        return [tenths * self.num_steps // 10 for tenths in LEVELS]


class CNSDiffLoss(NamedTuple):
    """L_diff, each term a mean over rows and dimensions."""

    reconstruction: Float[Tensor, ""]
    causal: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Their sum; R_causal is weighted already."""
        return self.reconstruction + self.causal


class CNSDiff(Scaled):
    """Generates, for each (user, positive), the candidate that scores highest.

    Embeddings are taken as they are: the schedule's noise is meant for their own units.

    Raises:
        ConfigError: a size out of range.
    """

    method: ClassVar[str] = "cnsdiff"

    exposure: Tensor
    signal: Tensor
    noise: Tensor
    loss_weight: Tensor
    variance: Tensor
    levels: Tensor

    def __init__(self, config: CNSDiffConfig) -> None:
        super().__init__(config.dim, config.num_steps, standardize=False)
        self.config = config
        self.schedule = linear_variance(config.num_steps)
        self.denoiser = CleanDenoiser(config.num_steps, config.dim, config.hidden, self.strata)
        self.register_buffer("exposure", torch.full((self.strata,), 1 / self.strata))
        tables = {
            "signal": self.schedule.alpha_bar.sqrt(),
            "noise": (1 - self.schedule.alpha_bar).sqrt(),
            "loss_weight": snr_weights(self.schedule.snr),
            "variance": clipped(self.schedule.ancestral_variance, self.schedule.alpha_bar),
            "levels": torch.tensor(config.levels),
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        of_clean, of_state = self.schedule.posterior_mean
        self._back = list(zip(of_clean.tolist(), of_state.tolist(), strict=True))

    @property
    def inputs(self) -> tuple[str, ...]:
        """See `NegativeSampler.inputs`."""
        return ("users", "positives", *(("popularity",) if self.strata > 1 else ()))

    @property
    def strata(self) -> int:
        """K; 1 unless the variant is `causal`."""
        return self.config.strata if self.config.variant == "causal" else 1

    def summary(self) -> dict[str, Any]:
        """The manifest's account of this sampler."""
        return {
            "schedule": self.schedule.name,
            "denoiser": self.config.variant,
            "scales": self.scales,
            "transition": {},
            "sampler": asdict(self.config),
        }

    def expose(self, counts: Int[Tensor, " K"]) -> None:
        """Set P(E), from how often the items of each stratum were taken."""
        self.exposure.copy_(counts.double() / counts.sum())

    def loss(
        self,
        positives: Float[Tensor, "B d"],
        generator: torch.Generator,
        popularity: Int[Tensor, " B"] | None = None,
    ) -> CNSDiffLoss:
        """mean(w_t ||x_0 - x0_hat||^2) and R_causal, at one uniform t per row.

        w_t = SNR(t-1) - SNR(t), w_1 = 1; R_causal is the KL from N(x0_hat, V_t) to
        N(x_{t-1}, V_{t-1}), x_{t-1} from the same noise as x_t. At t = 1 it compares with x_1 and
        variance 1, as the released code does.

        Args:
            positives: (B, d) x_0; the gradient reaches them.
            generator: draws t, eps and dropout.
            popularity: (B,) strata of the positives, of `causal`.
        """
        t, eps, x_t = diffuse(positives, self.signal, self.noise, generator)
        before = (t - 1).clamp_min(1)
        signal, noise = (level.to(eps.dtype)[before, None] for level in (self.signal, self.noise))
        kept = torch.rand(x_t.shape, generator=generator, device=x_t.device, dtype=x_t.dtype)
        mask = (kept >= self.config.dropout).to(x_t.dtype) / (1 - self.config.dropout)
        predicted = self.denoiser(x_t, t, popularity, mask)
        error = (positives - predicted).square().mean(-1)
        variance = self.variance.to(eps.dtype)
        ahead = torch.where(t == 1, 1.0, variance[before])
        divergence = gaussian_kl(
            predicted, variance[t, None], signal * positives + noise * eps, ahead[:, None]
        )
        weight = self.loss_weight.to(eps.dtype)[t]
        return CNSDiffLoss((weight * error).mean(), self.config.causal_weight * divergence.mean())

    @torch.no_grad()
    def generate(self, query: Query, n: int, noise: Noise) -> Generated:
        """See `Generates.generate`; every negative has candidates from noise of its own."""
        rows, dim = query.positives.shape
        released = self.config.variant == "released"
        per_row = (n, len(self.levels), dim) if released else (n, dim)
        z = noise.normal(*per_row, dtype=query.positives.dtype)
        codes = self.denoiser.codes(self.exposure, query.popularity)
        drawn = torch.empty(rows, n, dim, device=z.device, dtype=z.dtype)
        taken = torch.empty(rows, n, device=z.device, dtype=torch.int64)
        chunk = max(1, CHUNK_ROWS // n) if z.device.type == "cpu" else rows
        for begin in range(0, rows, chunk):
            part = slice(begin, begin + chunk)
            x_0, users = (table[part, None] for table in (query.positives, query.users))
            chain = self._each_alone if released else self._along_one
            candidates = chain(x_0, z[part], codes.rows(part))
            best = (candidates * users.unsqueeze(2)).sum(-1).argmax(2, keepdim=True)
            where = best.unsqueeze(-1).expand(-1, -1, -1, dim)
            drawn[part] = candidates.gather(2, where).squeeze(2)
            taken[part] = self.levels[best.squeeze(2)]
        return Generated(drawn, taken.double().mean(1).round().long())

    def _each_alone(
        self, x_0: Float[Tensor, "B 1 d"], z: Float[Tensor, "B n k d"], codes: Codes
    ) -> Float[Tensor, "B n k d"]:
        """`released`: x_0 noised to each level's step, and all T steps back."""
        signal, noise = (
            level.to(z.dtype)[self.levels, None] for level in (self.signal, self.noise)
        )
        x = signal * x_0.unsqueeze(2) + noise * z
        for t in range(self.num_steps, 0, -1):
            x = self._step(t, x, codes)
        return x

    def _along_one(
        self, x_0: Float[Tensor, "B 1 d"], z: Float[Tensor, "B n d"], codes: Codes
    ) -> Float[Tensor, "B n k d"]:
        """`described` and `causal`: the states at the levels of one chain from x_T."""
        x = self.signal[-1].to(z.dtype) * x_0 + self.noise[-1].to(z.dtype) * z
        states = {}
        for t in range(self.num_steps, min(self.config.levels), -1):
            states[t] = x
            x = self._step(t, x, codes)
        states[min(self.config.levels)] = x
        return torch.stack([states[level] for level in self.config.levels], dim=2)

    def _step(self, t: int, x: Float[Tensor, "B *n d"], codes: Codes) -> Float[Tensor, "B *n d"]:
        """The posterior's mean: x_{t-1} = a_t x0_hat + b_t x_t."""
        return self.denoiser.step(x, t, codes, *self._back[t])


def snr_weights(snr: Float[Tensor, "T1"]) -> Float[Tensor, "T1"]:
    """w_t = SNR(t-1) - SNR(t) for t >= 2, and 1 at t = 1; w_0 is not used."""
    weights = torch.ones_like(snr)
    weights[2:] = snr[1:-1] - snr[2:]
    return weights


def clipped(variance: Float[Tensor, "T1"], alpha_bar: Float[Tensor, "T1"]) -> Float[Tensor, "T1"]:
    """The posterior's variance, which is 0 at t = 1, with its value at 2 there (Ho et al. 2020).

    Where there is no second step, the noise of the first.
    """
    table = variance.clone()
    table[:2] = variance[2] if len(variance) > 2 else 1 - alpha_bar[1]
    return table


def gaussian_kl(
    mean: Float[Tensor, "B d"],
    variance: Float[Tensor, "B 1"],
    other_mean: Float[Tensor, "B d"],
    other_variance: Float[Tensor, "B 1"],
) -> Float[Tensor, "B d"]:
    """KL(N(mean, variance) || N(other_mean, other_variance)), element by element."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - ratio.log() + (mean - other_mean).square() / other_variance)
