"""Diffusing toward the catalogue in the loop; see `core.samplers.catalogue`.

Here candidates are items that the user has not taken, and the gradient reaches e_i and e_c.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from core.candidates import hardest
from core.losses import weighted_bpr
from core.samplers.catalogue import check_rule, shares, transition_point
from core.schedule import make_schedule
from trainer.config import TrainConfig
from trainer.data import Interactions
from trainer.distributed import rank, world
from trainer.methods.base import Ranked, Rows, likeness
from trainer.sampling.shared import SharedCandidates


class CatalogueMethod:
    """k generated negatives a row, each with a loss of its own; the losses are averaged.

    Each has M candidates of its own; what is told is told of the first of them. Nothing but scores
    is needed: <e_u, x_t> = sqrt(abar_t) s_ui + sqrt(1 - abar_t) s_uc.

    Args:
        config: of the run; `candidates` is M, `draws` is k, `transition` as in `CatalogueConfig`.
        interactions: whose train pairs are no negatives.

    Raises:
        ConfigError: another rule.
    """

    def __init__(self, config: TrainConfig, interactions: Interactions) -> None:
        check_rule(config.transition)
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
        config, score = self.config, rows.s_ui.detach()
        t_star = transition_point(
            config.transition, score, config.draws, config.num_steps, self.generator
        )
        signal, noise = shares(self.alpha_bar, t_star, s_uc.dtype)
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
            found = hardest(rows.e_u, items, rows.encoded.items(items), k, taken)
            counts = found.scores.isfinite().to(found.scores.dtype)
        e_c = rows.encoded.items(found.items)
        s_uc = torch.bmm(e_c, rows.e_u.unsqueeze(2)).squeeze(2)
        return s_uc, e_c[:, 0].detach(), counts
