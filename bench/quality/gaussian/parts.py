"""ADAR in parts, what may stand in the place of each, and the variants that are made of them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from bench.quality.cells import Settings
from core.chain import Law
from core.losses import augmented_bpr, bpr
from core.samplers import ADAR, Query
from core.samplers.catalogue import shares
from trainer.config import TrainConfig
from trainer.methods import Ranked, Rows
from trainer.methods.adar import ADARMethod
from trainer.methods.base import likeness
from trainer.run import Diffusion

SHOWN = 256  # random items that stand for the catalogue where a user's quantiles are wanted
RAMP = 40  # epochs that a schedule takes from its first value to its last
DRAWS = 4  # where each has a loss of its own


class Altered(ADARMethod):
    """ADAR in parts, some of them others than its own.

    Args:
        parts: what stands in the place of what.
        sampler, diffusion, config: as of `ADARMethod`.
        num_items: I.
    """

    def __init__(
        self,
        parts: "Parts",
        sampler: ADAR,
        diffusion: Diffusion,
        config: TrainConfig,
        num_items: int,
    ) -> None:
        super().__init__(sampler, diffusion, config)
        self.parts = parts
        self.num_items = num_items
        self.ramp = 0.0  # how much of a schedule is over

    def begin(self, epoch: int) -> None:
        """See `Method.begin`."""
        self.ramp = min(1.0, epoch / RAMP)

    def objective(self, rows: Rows) -> Float[Tensor, ""]:
        """Eq. 8, under the condition that generates."""
        condition = self.parts.condition(self, rows)
        loss: Tensor = self.sampler.loss(condition, rows.e_i, self.generator).total
        return loss

    def loss(self, rows: Rows) -> Ranked:
        """Lines 11 to 17 of Algorithm 1, part by part."""
        seen, parts = rows.detached, self.parts
        threshold = parts.threshold(self, seen)
        query = Query(seen.e_u, seen.e_i, self.config.transition, threshold=threshold)
        t_star = self.sampler.transition_point(query, self.generator)
        law = self.sampler.law_at(replace(query, users=parts.condition(self, seen)), t_star)
        e_d = parts.negatives(self, rows, law)
        s_ud = (e_d * rows.e_u.unsqueeze(1)).sum(-1)
        loss = parts.ranking(self, rows, law, s_ud)
        return Ranked(loss, law.transition, s_ud[:, 0], likeness(rows, e_d[:, 0]))


# ---- mu-, of the rule `exact` ---------------------------------------------------------------


def of_e_j(_: Altered, rows: Rows) -> Float[Tensor, " B"]:
    """The sampled negative's score."""
    return rows.s_uj


def quantile(first: float, last: float | None = None) -> "Threshold":
    """A quantile of the user's scores over random items, or one after the other on a ramp."""

    def threshold(method: Altered, rows: Rows) -> Float[Tensor, " B"]:
        # Batches and e_j have another generator, so they are those of every other variant.
        items = torch.randint(method.num_items, (SHOWN,), generator=method.generator)
        scores = rows.e_u @ rows.encoded.items(items).detach().T
        at = first if last is None else first + method.ramp * (last - first)
        found: Tensor = scores.quantile(at, dim=1)
        return found

    return threshold


# ---- what the diffusion model is conditioned on, in units of users --------------------------


def on_user(_: Altered, rows: Rows) -> Float[Tensor, "B d"]:
    """e_u."""
    return rows.e_u


def on_pair(method: Altered, rows: Rows) -> Float[Tensor, "B d"]:
    """e_u + e_i, each divided by its scale."""
    return rows.e_u + rows.e_i * (method.sampler.user_rms / method.sampler.item_rms)


# ---- e_d ------------------------------------------------------------------------------------


def draws(number: int) -> "Negatives":
    """So many of the law."""
    return lambda method, _, law: law.draw(number, method.generator)


def hardest_of(number: int) -> "Negatives":
    """Of so many draws the one that scores highest."""

    def negatives(method: Altered, rows: Rows, law: Law) -> Float[Tensor, "B 1 d"]:
        drawn = law.draw(number, method.generator)
        best = (drawn @ rows.e_u.detach().unsqueeze(2)).argmax(1, keepdim=True)
        return drawn.take_along_dim(best, 1)

    return negatives


def forward(method: Altered, rows: Rows, law: Law) -> Float[Tensor, "B n d"]:
    """x_t by Eq. 2 from e_i itself, whose gradient is kept; the reverse chain is left out."""
    t_star = law.transition.unsqueeze(1).expand(-1, DRAWS)
    signal, other = shares(method.sampler.schedule.alpha_bar, t_star, rows.e_i.dtype)
    shape = (*t_star.shape, rows.e_i.shape[1])
    noise = torch.randn(shape, generator=method.generator) * method.sampler.item_rms
    return signal.unsqueeze(2) * rows.e_i.unsqueeze(1) + other.unsqueeze(2) * noise


# ---- the encoder's loss ---------------------------------------------------------------------


def eq_12(method: Altered, rows: Rows, _: Law, s_ud: Float[Tensor, "B 1"]) -> Float[Tensor, ""]:
    """-ln sigmoid(s_ui - (s_uj + lambda s_ud))."""
    return augmented_bpr(rows.s_ui, rows.s_uj, s_ud[:, 0], method.config.weight)


def ramped(first: float, last: float) -> "Ranking":
    """Eq. 12 with lambda on a ramp."""

    def ranking(
        method: Altered, rows: Rows, _: Law, s_ud: Float[Tensor, "B 1"]
    ) -> Float[Tensor, ""]:
        weight = first + method.ramp * (last - first)
        return augmented_bpr(rows.s_ui, rows.s_uj, s_ud[:, 0], weight)

    return ranking


def own_losses(_: Altered, rows: Rows, __: Law, s_ud: Float[Tensor, "B n"]) -> Float[Tensor, ""]:
    """The mean of BPR over e_j and over the draws."""
    losses = softplus(s_ud - rows.s_ui.unsqueeze(1))
    return (bpr(rows.s_ui, rows.s_uj) + losses.mean()) / 2


def weighted(_: Altered, rows: Rows, law: Law, s_ud: Float[Tensor, "B n"]) -> Float[Tensor, ""]:
    """The same, a draw counted as often as one outscores the positive, which the law knows."""
    seen = rows.detached
    mean = (seen.e_u * law.mean).sum(-1)
    deviation = (seen.e_u * law.std).norm(dim=1).clamp(min=1e-12)
    likely = torch.special.ndtr((mean - seen.s_ui) / deviation)
    losses = softplus(s_ud - rows.s_ui.unsqueeze(1)).mean(1)
    return ((softplus(rows.s_uj - rows.s_ui) + likely * losses) / (1 + likely)).mean()


Threshold = Callable[[Altered, Rows], Tensor]
Condition = Callable[[Altered, Rows], Tensor]
Negatives = Callable[[Altered, Rows, Law], Tensor]
Ranking = Callable[[Altered, Rows, Law, Tensor], Tensor]


@dataclass(frozen=True)
class Parts:
    """What a variant is made of; by default ADAR's own.

    Attributes:
        settings: over the defaults of the encoder and of ADAR.
        threshold: mu- (B,).
        condition: (B, d).
        negatives: e_d (B, n, d).
        ranking: the encoder's loss.
    """

    settings: Settings = field(default_factory=dict)
    threshold: Threshold = of_e_j
    condition: Condition = on_user
    negatives: Negatives = draws(1)  # noqa: RUF009
    ranking: Ranking = eq_12


EXACT: Settings = {"transition.rule": "exact"}
CALIBRATED: Settings = {"transition.rule": "calibrated"}
VARIANTS = {
    "Eq. 11 and 12": Parts(),
    "not standardised": Parts({"standardize": False}),
    "lambda 0 to .3": Parts(ranking=ramped(0.0, 0.3)),
    "lambda .3 to 0": Parts(ranking=ramped(0.3, 0.0)),
    "calibrated": Parts(CALIBRATED),
    "calibrated, on e_u and e_i": Parts(CALIBRATED, condition=on_pair),
    "calibrated, own losses": Parts(CALIBRATED, negatives=draws(DRAWS), ranking=own_losses),
    "calibrated, own losses, from e_i": Parts(CALIBRATED, negatives=forward, ranking=own_losses),
    "exact, mu- of e_j": Parts(EXACT),
    "exact, mu- the median": Parts(EXACT, quantile(0.5)),
    "exact, mu- the .9 quantile": Parts(EXACT, quantile(0.9)),
    "exact, mu- the .99 quantile": Parts(EXACT, quantile(0.99)),
    "exact, mu- from .5 to .99": Parts(EXACT, quantile(0.5, 0.99)),
    "exact, hardest of 8": Parts(EXACT, negatives=hardest_of(8)),
    "exact, own losses": Parts(EXACT, negatives=draws(DRAWS), ranking=own_losses),
    "exact, own losses, weighted": Parts(EXACT, negatives=draws(DRAWS), ranking=weighted),
}
