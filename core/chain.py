"""The collapsed reverse chain (ADAR Eq. 9-10; method 3).

With eps_theta = gamma * x_t + eta every reverse step is affine, so the chain from z ~ N(0, I) is

    x_t = A_t z + B_t,        A_T = 1, B_T = 0
    A_{t-1} = m_t A_t,        m_t = (1 - c_t gamma_t) / sqrt(alpha_t)
    B_{t-1} = m_t B_t + n_t,  n_t = -c_t eta_t / sqrt(alpha_t)
    with c_t = (1 - alpha_t) / sqrt(1 - abar_t)

and x_t | u ~ N(B_t, diag(A_t^2)) exactly. With ancestral noise of variance sigma_t^2 the variance
obeys V_{t-1} = m_t^2 V_t + sigma_t^2 (none is added on reaching t = 0, where sigma_1^2 = 0).

`reverse` walks the chain. Four functions say where to stop: at a step that is known beforehand
(`at_step`, which gives every row just the steps that it needs), where the expected score first
meets a threshold (`at_threshold`), at several steps at once (`at_mean_of_steps`), or at several
steps each by itself (`at_each`). Everything is in the standardised space of the denoiser.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.denoiser import ClosedChain, Denoiser
from core.noise import FEW_VARIATES, bits_of, standard_normal_
from core.schedule import Schedule

CPU_CHUNK_ROWS = 512  # its states fit a core's cache; measured against 256..2048
CPU_CHUNK_VARIATES = 65_536  # likewise, of a draw


class Step(NamedTuple):
    """The law of x_t = m_{t+1} x_{t+1} + n_{t+1} (+ fresh noise), and the factor m_{t+1}."""

    t: int
    mean: Float[Tensor, "B d"]
    variance: Float[Tensor, "B d"]
    factor: Float[Tensor, "B d"] | float


Steps = Iterator[Step]


@dataclass(frozen=True)
class Law:
    """The law of one generated sample per row: N(mean, diag(std^2)).

    Attributes:
        transition: (B,) int64, t*.
        mean: (B, d).
        std: (B, d), >= 0.
    """

    transition: Int[Tensor, " B"]
    mean: Float[Tensor, "B d"]
    std: Float[Tensor, "B d"]

    def scaled(self, scale: Tensor | float) -> "Law":
        """The law of `scale * x`."""
        return Law(self.transition, self.mean * scale, self.std * scale)

    def draw(self, n: int, generator: torch.Generator) -> Float[Tensor, "B n d"]:
        """n independent samples per row.

        Args:
            n: at least 1.
            generator: on the device of the law; of the request or the run, never shared.
        """
        rows, dim = self.mean.shape
        mean, std = self.mean.unsqueeze(1), self.std.unsqueeze(1)
        if self.mean.device.type != "cpu" or rows * n * dim < FEW_VARIATES:
            noise = torch.randn(
                rows, n, dim, generator=generator, device=mean.device, dtype=mean.dtype
            )
            return noise.mul_(std).add_(mean)
        drawn, bits = mean.new_empty(rows, n, dim), bits_of(generator)
        chunk = max(1, CPU_CHUNK_VARIATES // (n * dim))
        for part, stds, means in _chunks(chunk, drawn, std, mean):
            standard_normal_(part, bits).mul_(stds).add_(means)
        return drawn


def reverse(
    denoiser: Denoiser,
    schedule: Schedule,
    condition: Float[Tensor, "B d"],
    *,
    stop: int = 0,
    ancestral: bool = False,
) -> Steps:
    """The laws of x_T, x_{T-1}, ..., x_stop.

    Args:
        denoiser: predicts (gamma, eta).
        schedule: float64 tables; each coefficient is computed there and cast once.
        condition: (B, d) standardised user embeddings.
        stop: the smallest step wanted, in [0, T].
        ancestral: add the posterior's noise at every step, as DDPM does; Eq. 10 adds none.
    """
    prepared = denoiser.prepare(condition)
    sigma2 = schedule.ancestral_variance.tolist()
    mean, variance = torch.zeros_like(condition), torch.ones_like(condition)
    yield Step(schedule.num_steps, mean, variance, 1.0)
    for t in range(schedule.num_steps, stop, -1):
        m, n = denoiser.transfer(t, prepared)
        mean, variance = torch.addcmul(n, m, mean), m.square() * variance
        if ancestral:
            variance = variance + sigma2[t]
        yield Step(t - 1, mean, variance, m)


@torch.no_grad()
def at_step(
    denoiser: Denoiser,
    schedule: Schedule,
    condition: Float[Tensor, "B d"],
    transition: Int[Tensor, " B"],
    *,
    ancestral: bool = False,
) -> Law:
    """The law of x_{t*}, t* known beforehand; without gradient.

    Where the chain closes, one formula; elsewhere exactly sum(T - t*) row-steps: rows are put in
    the order of t*, so that those still running are always the first ones, and how many they are is
    the one thing that the host must know before the chain starts.

    Args:
        denoiser: predicts (gamma, eta).
        schedule: its tables.
        condition: (B, d) standardised user embeddings.
        transition: (B,) t*, in [0, T].
        ancestral: as in `reverse`.
    """
    if isinstance(denoiser, ClosedChain) and not ancestral:
        mean, spread = torch.empty_like(condition), torch.empty_like(condition)
        for t_star, users, means, spreads in _chunks(
            CPU_CHUNK_ROWS, transition, condition, mean, spread
        ):
            spreads[:], means[:] = denoiser.state(t_star, denoiser.prepare(users))
        return Law(transition, mean, spread)
    mean, spread = torch.zeros_like(condition), torch.ones_like(condition)  # B_t; A_t, or V_t
    t_star, order = transition.sort(stable=True)
    sigma2 = schedule.ancestral_variance.tolist()
    every_t = torch.arange(schedule.num_steps + 1, device=t_star.device)
    prepared = denoiser.prepare(condition[order])
    begin = 0
    for stops, means, spreads in _chunks(CPU_CHUNK_ROWS, t_star, mean, spread):
        running = torch.searchsorted(stops, every_t).tolist()  # running[t]: rows with t* < t
        for t in range(schedule.num_steps, 0, -1):
            if (rows := running[t]) == 0:
                break
            m, n = denoiser.transfer(t, prepared.rows(slice(begin, begin + rows)))
            torch.addcmul(n, m, means[:rows], out=means[:rows])
            if ancestral:
                spreads[:rows].mul_(m.square()).add_(sigma2[t])
            else:
                spreads[:rows].mul_(m)
        begin += len(stops)
    back = order.argsort()
    return Law(transition, mean[back], (spread.sqrt() if ancestral else spread.abs())[back])


def at_threshold(
    steps: Steps,
    users: Float[Tensor, "B d"],
    threshold: Float[Tensor, " B"],
    quantile: float = 0.0,
) -> Law:
    """The law at the smallest t whose score is at most `threshold` (method, rule `exact`).

    The score <e_u, x_t> of a generated sample is N(<e_u, B_t>, sum e_u^2 A_t^2). The rule compares
    mean + quantile * deviation, in standard deviations; 0 compares the expected score.

    Args:
        steps: the chain down to 0.
        users: (B, d) such that <users, x_t> is the score (the caller puts the scales in).
        threshold: (B,) mu-; where no step meets it, t* = T.
        quantile: of N(0, 1), may be infinite: -inf gives t* = 0 and +inf gives t* = T.
    """
    first = next(steps)  # x_T
    mean, variance = first.mean, first.variance
    transition = torch.full(users.shape[:1], first.t, device=users.device)
    squared = users.square()
    for step in steps:
        score = (users * step.mean).sum(-1)
        # A user of zeros has no deviation, and 0 * inf is NaN: 1e-30 keeps the sign of an infinite
        # quantile and is far below any score's resolution.
        deviation = (squared * step.variance).sum(-1).sqrt().clamp_min(1e-30)
        bound = score if quantile == 0 else score + quantile * deviation
        met = bound <= threshold
        transition = torch.where(met, step.t, transition)
        mean = torch.where(met.unsqueeze(-1), step.mean, mean)
        variance = torch.where(met.unsqueeze(-1), step.variance, variance)
    return Law(transition, mean, variance.sqrt())


def at_mean_of_steps(steps: Steps, stops: Sequence[int]) -> Law:
    """The law of the mean of x_t over `stops`, states of one and the same chain (rule `mixed`).

    (x_t, S), S the running sum, is jointly Gaussian: V, C = Cov(x_t, S) and W = Var(S) follow by
    one affine step each, with or without ancestral noise.
    """
    first = next(steps)  # x_T
    total, spread, cross = (torch.zeros_like(first.mean) for _ in range(3))
    for step in itertools.chain([first], steps):
        cross = step.factor * cross
        for _ in range(stops.count(step.t)):
            total = total + step.mean
            spread = spread + 2 * cross + step.variance
            cross = cross + step.variance
    k = len(stops)
    transition = torch.full((len(total),), round(sum(stops) / k), device=total.device)
    return Law(transition, total / k, spread.clamp_min(0).sqrt() / k)


@torch.no_grad()
def at_each(
    denoiser: Denoiser,
    schedule: Schedule,
    condition: Float[Tensor, "B d"],
    stops: Sequence[int],
    *,
    ancestral: bool = False,
) -> tuple[Float[Tensor, "B k d"], Float[Tensor, "B k d"]]:
    """(mean, std) of x_t at each of several steps, without gradient (DMNS).

    States of one chain depend on each other; what is given here is the law of each by itself.

    Args:
        denoiser: predicts (gamma, eta).
        schedule: its tables.
        condition: (B, d) standardised user embeddings.
        stops: k steps in [0, T], in any order; one may stand there twice.
        ancestral: as in `reverse`.
    """
    mean = condition.new_empty(len(condition), len(stops), condition.shape[1])
    variance = torch.empty_like(mean)
    for users, means, variances in _chunks(CPU_CHUNK_ROWS, condition, mean, variance):
        for step in reverse(denoiser, schedule, users, stop=min(stops), ancestral=ancestral):
            for place in (place for place, stop in enumerate(stops) if stop == step.t):
                means[:, place], variances[:, place] = step.mean, step.variance
    return mean, variance.sqrt_()


def _chunks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same rows of each: so many on a CPU, all of them elsewhere."""
    if tensors[0].device.type != "cpu":
        rows = max(len(tensors[0]), 1)
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)
