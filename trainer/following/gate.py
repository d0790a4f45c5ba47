"""The gate before every publication: sound, sane, and no worse than what is live.

Two models are compared on the same held-out rows with the same noise, chunk by chunk, so that the
noise of the comparison is that of paired differences. Eq. 8 is in units of each sampler's own
scales, and a scale too large makes it small; so all are judged in the units of the held-out rows,
and their scales apart from that. Samples have an upper bound alone: Eq. 10 adds no noise, so that a
chain may end near its mean, which is small where users say little of positives.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from core.denoiser import MomentHead
from core.samplers import ADAR, Query
from core.transition import Transition

CHUNKS = 32
ERRORS = 2.0  # standard errors by which a candidate may seem worse than the live version
MARGIN = 0.02  # and, however noisy the comparison, no more than this part of its loss
SCALE_FACTOR = 2.0  # the running scales must be within this of the rows' RMS
SAMPLE_FACTOR = 4.0  # samples must not be larger than the positives by more
HOPELESS = 1.1  # times the unconditional loss: nothing that knows less goes live


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: whether the candidate may go live.
        sound: whether it could be served at all; a sound one can still be worse.
        why: one clause for people.
        losses: of the candidate, of the live version where it can be compared, and of the best
            model that does not look at the user: `candidate`, `live`, `unconditional`.
    """

    passed: bool
    sound: bool
    why: str
    losses: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def judge(
    candidate: ADAR,
    live: ADAR | None,
    users: Float[Tensor, "n d"],
    positives: Float[Tensor, "n d"],
    seed: int = 0,
) -> Verdict:
    """Whether a candidate may take the live version's place.

    A live version that is not sound on these rows (of another dimension, or of a space that is
    no more) is not compared with: then the candidate must not be hopeless.

    Args:
        candidate: on the rows' device.
        live: what is served now, or None.
        users: held-out rows, never learnt from.
        positives: likewise.
        seed: of the noise.
    """
    if fault := unsound(candidate, users, positives, seed):
        return Verdict(passed=False, sound=False, why=fault)
    ours = held_out_losses(candidate, users, positives, seed)
    blind = held_out_losses(unconditional(candidate, positives), users, positives, seed)
    losses = {"candidate": float(ours.mean()), "unconditional": float(blind.mean())}
    if live is None or live.dim != candidate.dim or unsound(live, users, positives, seed):
        passed = losses["candidate"] <= HOPELESS * losses["unconditional"]
        told = "nothing comparable is live; loss {candidate:.4f}, unconditional {unconditional:.4f}"
        return Verdict(passed, sound=True, why=told.format(**losses), losses=losses)
    theirs = held_out_losses(live, users, positives, seed)
    losses["live"] = float(theirs.mean())
    worse = ours - theirs
    noise = float(worse.std()) / math.sqrt(len(worse))
    passed = float(worse.mean()) <= min(ERRORS * noise, MARGIN * losses["live"])
    told = "held-out loss {candidate:.4f}, live {live:.4f}, unconditional {unconditional:.4f}"
    return Verdict(passed, sound=True, why=told.format(**losses), losses=losses)


@torch.no_grad()
def unsound(
    sampler: ADAR, users: Float[Tensor, "n d"], positives: Float[Tensor, "n d"], seed: int = 0
) -> str | None:
    """What is wrong with a sampler for these rows: weights, scales, samples; None if nothing is."""
    for name, tensor in sampler.state_dict().items():
        if not tensor.isfinite().all():
            return f"weights are not finite: {name}"
    if sampler.dim != users.shape[1]:
        return f"its dimension is {sampler.dim}, the pairs have {users.shape[1]}"
    for name, rows in (("user_rms", users), ("item_rms", positives)):
        scale, found = float(getattr(sampler, name)), _units(sampler, rows)
        if not 1 / SCALE_FACTOR <= scale / found <= SCALE_FACTOR:  # a NaN is neither
            return f"its {name} is {scale:.3g}, the pairs have {found:.3g}"
    generator = torch.Generator(users.device).manual_seed(seed)
    for rule in (Transition("fixed", hardness=1.0), sampler.transition):
        samples = sampler.law(Query(users, positives, rule), generator).draw(1, generator)
        found, most = _rms(samples), SAMPLE_FACTOR * _rms(positives)
        if not found <= most:
            return f"samples have an RMS of {found:.3g}; {most:.3g} is most (rule {rule.rule})"
    return None


@torch.no_grad()
def unconditional(like: ADAR, positives: Float[Tensor, "n d"]) -> ADAR:
    """The best model that does not look at the user: every element Gaussian, as in these rows."""
    config = replace(like.config, denoiser="moment", hidden=1)
    blind = ADAR(config)
    head = MomentHead(blind.schedule, like.dim, config.hidden)  # its output layer starts at zero
    standard = positives / _units(like, positives)
    head.out.bias.copy_(torch.cat([standard.mean(0), standard.std(0).clamp_min(1e-6).log()]))
    blind.denoiser = head
    return blind.to(positives.device)


@torch.no_grad()
def held_out_losses(
    sampler: ADAR, users: Float[Tensor, "n d"], positives: Float[Tensor, "n d"], seed: int = 0
) -> Float[Tensor, " chunks"]:
    """Eq. 8 of each chunk of rows, in the units of these rows; the same noise for every sampler."""
    generator = torch.Generator(users.device).manual_seed(seed)
    # `loss` divides by the sampler's scales: what goes in is such that the rows' own come out.
    users = users * (sampler.user_rms / _units(sampler, users))
    positives = positives * (sampler.item_rms / _units(sampler, positives))
    chunks = zip(users.chunk(CHUNKS), positives.chunk(CHUNKS), strict=True)
    return torch.stack([sampler.loss(*chunk, generator).total for chunk in chunks])


def _units(sampler: ADAR, rows: Tensor) -> float:
    """What a sampler with the right scale divides these rows by; the literal paper's by nothing."""
    return _rms(rows) if sampler.config.standardize else 1.0


def _rms(rows: Tensor) -> float:
    rms = float(rows.square().mean().sqrt())
    return max(rms, 1e-30) if math.isfinite(rms) else rms
