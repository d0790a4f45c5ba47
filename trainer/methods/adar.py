"""ADAR in the loop: Algorithm 1, lines 6 to 17."""

from jaxtyping import Float
from torch import Tensor

from core.losses import augmented_bpr
from core.samplers import ADAR, Query
from trainer.config import TrainConfig
from trainer.distributed import gathered
from trainer.methods.base import Diffusing, Ranked, Rows, likeness
from trainer.run import Diffusion


class ADARMethod(Diffusing):
    """One generated negative a row at its transition point, beside the sampled one (Eq. 12)."""

    def __init__(self, sampler: ADAR, diffusion: Diffusion, config: TrainConfig) -> None:
        super().__init__(diffusion, config)
        self.sampler = sampler

    def observe(self, rows: Rows) -> None:
        """See `Diffusing.observe`."""
        self.sampler.observe(*gathered(rows.e_u, rows.e_i, rows.e_j))

    def objective(self, rows: Rows) -> Float[Tensor, ""]:
        """Eq. 8."""
        loss: Tensor = self.sampler.loss(rows.e_u, rows.e_i, self.generator).total
        return loss

    def loss(self, rows: Rows) -> Ranked:
        """Lines 11 to 17: the sampled negative's score is mu-."""
        seen = rows.detached
        query = Query(seen.e_u, seen.e_i, self.config.transition, threshold=seen.s_uj)
        law = self.sampler.law(query, self.generator)
        e_d = law.draw(1, self.generator).squeeze(1)
        s_ud = (rows.e_u * e_d).sum(-1)
        loss = augmented_bpr(rows.s_ui, rows.s_uj, s_ud, self.config.weight)
        return Ranked(loss, law.transition, s_ud, likeness(rows, e_d))
