"""The objectives: the diffusion's (ADAR Eq. 8), BPR, and BPR with a generated negative (Eq. 12)."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from core.chain import Step, reverse
from core.denoiser import Denoiser
from core.errors import ConfigError
from core.schedule import Schedule

RECONSTRUCTIONS = ("one_step", "chain")


class DiffusionLoss(NamedTuple):
    """The two terms of Eq. 8, each a mean over rows and dimensions."""

    noise: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Eq. 8."""
        return self.noise + self.reconstruction


def diffusion_loss(
    denoiser: Denoiser,
    schedule: Schedule,
    x_0: Float[Tensor, "B d"],
    condition: Float[Tensor, "B d"],
    generator: torch.Generator,
    *,
    reconstruction: str = "one_step",
    weight_cap: float = 5.0,
) -> DiffusionLoss:
    """Eq. 8, ||eps - eps_theta||^2 + ||x_0 - x_{d,0}||^2, at one uniform t in 1..T per row.

    `reconstruction` says how x_{d,0} is read:

    * `one_step`: the estimate of x_0 from x_t. Then the second term is the first one times
      (1 - abar_t)/abar_t. That weight reaches 24,800 at t = T and would drown every other step,
      so it is capped; `weight_cap = inf` is the literal reading.
    * `chain`: the end of the whole reverse chain, x_{d,0} = A_0 z + B_0 with z ~ N(0, I); its mean
      over z is taken in closed form, (x_0 - B_0)^2 + A_0^2.

    Differs from the paper: means, not sums, over the dimensions; the cap above.

    Args:
        denoiser: predicts (gamma, eta).
        schedule: its tables.
        x_0: (B, d) standardised positives, no gradient expected.
        condition: (B, d) standardised users.
        generator: draws t and eps.
        reconstruction: `one_step` or `chain`.
        weight_cap: > 0, see above.

    Raises:
        ConfigError: unknown `reconstruction`.
    """
    t, noise, x_t = diffuse(x_0, denoiser.signal, denoiser.noise, generator)
    gamma, eta = denoiser.coefficients(t, denoiser.prepare(condition))
    error = (noise - (gamma * x_t + eta)).square()
    if reconstruction == "one_step":
        ratio = denoiser.noise.to(x_0.dtype)[t] / denoiser.signal.to(x_0.dtype)[t]
        weight = ratio.square().clamp(max=weight_cap).unsqueeze(-1)
        return DiffusionLoss(error.mean(), (weight * error).mean())
    if reconstruction == "chain":
        last = _last(denoiser, schedule, condition)
        return DiffusionLoss(error.mean(), ((x_0 - last.mean).square() + last.variance).mean())
    known = ", ".join(RECONSTRUCTIONS)
    raise ConfigError(f"reconstruction = {reconstruction!r}; known: {known}")


def diffuse(
    x_0: Float[Tensor, "B d"],
    signal: Float[Tensor, "T1"],
    noise: Float[Tensor, "T1"],
    generator: torch.Generator,
) -> tuple[Int[Tensor, " B"], Float[Tensor, "B d"], Float[Tensor, "B d"]]:
    """(t, eps, x_t) of Eq. 2 at one uniform t in 1..T per row.

    Args:
        x_0: (B, d).
        signal: (T+1,) sqrt(abar_t); cast here.
        noise: (T+1,) sqrt(1 - abar_t); likewise.
        generator: draws t, then eps.
    """
    t = torch.randint(1, len(signal), x_0.shape[:1], generator=generator, device=x_0.device)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device, dtype=x_0.dtype)
    signal_t, noise_t = (level.to(x_0.dtype)[t].unsqueeze(-1) for level in (signal, noise))
    return t, eps, signal_t * x_0 + noise_t * eps


def bpr(positive: Float[Tensor, " B"], negative: Float[Tensor, " B"]) -> Float[Tensor, ""]:
    """-ln sigmoid(s_ui - s_uj), the mean over rows (Rendle et al. 2012)."""
    return softplus(negative - positive).mean()


def augmented_bpr(
    positive: Float[Tensor, " B"],
    negative: Float[Tensor, " B"],
    generated: Float[Tensor, " B"],
    weight: float,
) -> Float[Tensor, ""]:
    """Eq. 12, -ln sigmoid(s_ui - (s_uj + lambda s_ud)), the mean over rows; `weight` is lambda."""
    return bpr(positive, negative + weight * generated)


def weighted_bpr(
    positive: Float[Tensor, " B"],
    negatives: Float[Tensor, "B n"],
    weights: Float[Tensor, "#B n"],
) -> Float[Tensor, ""]:
    """The mean over rows and negatives of -w ln sigmoid(s_ui - s_ud) (DMNS)."""
    return (weights * softplus(negatives - positive.unsqueeze(1))).mean()


def _last(denoiser: Denoiser, schedule: Schedule, condition: Float[Tensor, "B d"]) -> Step:
    *_, last = reverse(denoiser, schedule, condition)
    return last
