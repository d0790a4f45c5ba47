"""Diffusing toward the catalogue: the forward process of Eq. 2 with real items as its noise.

    x_t = sqrt(abar_t) e_i + sqrt(1 - abar_t) e_c,    c the hardest of M unobserved items

At t = 0 this is the positive and at t = T a hard real negative, so t* sets how hard a generated
negative is; no denoiser is needed, for the way back is known. What Gaussian noise cannot give, the
catalogue does: every x_t lies where items lie, and its gradient reaches e_i and e_c.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core import transition
from core.errors import ConfigError
from core.losses import weighted_bpr
from core.schedule import make_schedule
from trainer.config import TrainConfig
from trainer.data import Interactions
from trainer.distributed import rank, world
from trainer.methods.base import Ranked, Rows, likeness
from trainer.sampling.shared import SharedCandidates, grouped, in_order

RULES = ("random", "fixed", "score_aware")


class CatalogueMethod:
    """k generated negatives a row, each with a loss of its own; the losses are averaged.

    Each has M candidates of its own; what is told is told of the first of them. Nothing but scores
    is needed: <e_u, x_t> = sqrt(abar_t) s_ui + sqrt(1 - abar_t) s_uc.

    Args:
        config: of the run; `candidates` is M, `draws` is k, `transition` one of `RULES`.
        interactions: whose train pairs are no negatives.

    Raises:
        ConfigError: another rule.
    """

    def __init__(self, config: TrainConfig, interactions: Interactions) -> None:
        if config.transition.rule not in RULES:
            raise ConfigError(
                f"transition = {config.transition.rule!r} needs the chain of a denoiser, which "
                f"--method catalogue has not; choose one of {', '.join(RULES)}"
            )
        self.config = config
        sizes = (interactions.train, interactions.num_users, interactions.num_items)
        self.source = SharedCandidates(*sizes, config.device)
        self.alpha_bar = make_schedule(config.schedule, config.num_steps).alpha_bar
        self.generator = torch.Generator(config.device)

    def begin(self, epoch: int) -> None:
        """A stream of its own for each epoch, and for each worker.

        So a resumed run goes on alike, and batches are those of any other method.
        """
        self.generator.manual_seed(self.config.seed * 2**32 + epoch * world() + rank())

    def learn(self, _: Rows) -> Mapping[str, Tensor]:
        """See `Method.learn`; there is nothing to learn."""
        return {}

    def loss(self, rows: Rows) -> Ranked:
        """The mean over k draws of c of -ln sigmoid(s_ui - <e_u, x_t>)."""
        s_uc, e_c, counts = self._hardest(rows)
        t_star = self._transition_point(rows.s_ui.detach(), s_uc.shape)
        abar = self.alpha_bar.to(s_uc.device)[t_star]
        signal, noise = abar.sqrt().to(s_uc.dtype), (1 - abar).sqrt().to(s_uc.dtype)
        s_ud = signal * rows.s_ui.unsqueeze(1) + noise * s_uc
        loss = weighted_bpr(rows.s_ui, s_ud, counts)
        first = signal[:, :1] * rows.e_i.detach() + noise[:, :1] * e_c
        return Ranked(loss, t_star[:, 0], s_ud[:, 0], likeness(rows, first))

    def _hardest(
        self, rows: Rows
    ) -> tuple[Float[Tensor, "B k"], Float[Tensor, "B d"], Float[Tensor, "B k"]]:
        """s_uc of the hardest of each M, with gradient; the first e_c, without; and what counts.

        0 counts one of whose M candidates the user has taken all.
        """
        k, many = self.config.draws, self.config.candidates
        items, taken = self.source.draw(rows.batch.users, k * many, self.generator)
        with torch.no_grad():
            scores = grouped(rows.e_u) @ rows.encoded.items(items).mT
            best = scores.masked_fill_(taken, -torch.inf).unflatten(2, (k, many)).max(3)
            place = best.indices + torch.arange(k, device=items.device) * many
            group = torch.arange(len(items), device=items.device)[:, None, None]
            hardest = in_order(items[group, place], len(rows.e_u))
            counts = in_order(best.values.isfinite().to(scores.dtype), len(rows.e_u))
        e_c = rows.encoded.items(hardest)
        s_uc = torch.bmm(e_c, rows.e_u.unsqueeze(2)).squeeze(2)
        return s_uc, e_c[:, 0].detach(), counts

    def _transition_point(
        self, score: Float[Tensor, " B"], shape: torch.Size
    ) -> Int[Tensor, "B k"]:
        rule, steps = self.config.transition, self.config.num_steps
        match rule.rule:
            case "random":
                draws = transition.random(shape.numel(), steps, self.generator, score.device)
                return draws.view(shape)
            case "score_aware":
                t_star = transition.score_aware(score, steps, rule.omega, rule.k)
                return t_star.unsqueeze(1).expand(shape)
            case _:  # fixed
                t = transition.fixed(steps, rule.hardness)
                return torch.full(shape, t, device=score.device)
