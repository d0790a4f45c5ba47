"""Diffusing toward the catalogue: the forward process of Eq. 2 with real items as its noise.

    x_t = sqrt(abar_t) e_i + sqrt(1 - abar_t) e_c,    c of the k hardest of M unobserved items

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
from trainer.methods.base import Ranked, Rows
from trainer.sampling.base import candidates_of, scores
from trainer.sampling.complement import UniformNegatives

RULES = ("random", "fixed", "score_aware")


class CatalogueMethod:
    """k generated negatives a row, each with a loss of its own; the losses are averaged.

    The scores are all that is needed: <e_u, x_t> = sqrt(abar_t) s_ui + sqrt(1 - abar_t) s_uc.

    Args:
        config: of the run; `candidates` is M, `draws` is k <= M, `transition` one of `RULES`.
        interactions: whose train pairs are no negatives.

    Raises:
        ConfigError: another rule, or k > M.
    """

    def __init__(self, config: TrainConfig, interactions: Interactions) -> None:
        if config.transition.rule not in RULES:
            raise ConfigError(
                f"transition = {config.transition.rule!r} needs the chain of a denoiser, which "
                f"--method catalogue has not; choose one of {', '.join(RULES)}"
            )
        if config.draws > config.candidates:
            raise ConfigError(
                f"draws = {config.draws} of {config.candidates} candidates; there must be at "
                "least as many candidates as draws"
            )
        self.config = config
        sizes = (interactions.train, interactions.num_users, interactions.num_items)
        self.source = UniformNegatives(*sizes, config.device)
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
        """The mean over the k hardest c of -ln sigmoid(s_ui - <e_u, x_t>)."""
        s_ui = rows.s_ui.unsqueeze(1)
        s_uc = self._hardest(rows)
        t_star = self._transition_point(s_ui.detach(), s_uc.shape)
        abar = self.alpha_bar.to(t_star.device)[t_star]
        s_ud = abar.sqrt().to(s_uc.dtype) * s_ui + (1 - abar).sqrt().to(s_uc.dtype) * s_uc
        loss = weighted_bpr(rows.s_ui, s_ud, s_ud.new_ones(1, 1))
        return Ranked(loss, t_star.flatten(), s_ud[:, 0])

    def _hardest(self, rows: Rows) -> Float[Tensor, "B k"]:
        """Scores of the k hardest of M candidates; only these are looked up with gradient."""
        drawn = candidates_of(rows.batch, self.source, self.config.candidates, self.generator)
        with torch.no_grad():
            best = scores(rows.e_u, rows.encoded.items(drawn)).topk(self.config.draws).indices
        e_c = rows.encoded.items(drawn.gather(1, best))
        return torch.bmm(e_c, rows.e_u.unsqueeze(2)).squeeze(2)

    def _transition_point(
        self, s_ui: Float[Tensor, "B 1"], shape: torch.Size
    ) -> Int[Tensor, "B k"]:
        rule, steps = self.config.transition, self.config.num_steps
        match rule.rule:
            case "random":
                draws = transition.random(shape.numel(), steps, self.generator, s_ui.device)
                return draws.view(shape)
            case "score_aware":
                t = transition.score_aware(s_ui.squeeze(1), steps, rule.omega, rule.k)
                return t.unsqueeze(1).expand(shape)
            case _:  # fixed
                return torch.full(shape, transition.fixed(steps, rule.hardness), device=s_ui.device)
