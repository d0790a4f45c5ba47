"""DMNS in the loop: several levels of negatives, each with a loss of its own weight (method 4)."""

import torch
from jaxtyping import Float
from torch import Tensor

from core.losses import weighted_bpr
from core.noise import Noise
from core.samplers import DMNS, Query
from trainer.config import TrainConfig
from trainer.distributed import gathered
from trainer.methods.base import Diffusing, Ranked, Rows, likeness
from trainer.run import Diffusion


class DMNSMethod(Diffusing):
    """The sampled negative and one of every level; their weighted losses are averaged."""

    def __init__(self, sampler: DMNS, diffusion: Diffusion, config: TrainConfig) -> None:
        super().__init__(diffusion, config)
        self.sampler = sampler

    def observe(self, rows: Rows) -> None:
        """See `Diffusing.observe`."""
        self.sampler.observe(*gathered(rows.e_u, rows.e_i))

    def objective(self, rows: Rows) -> Float[Tensor, ""]:
        """|eps - eps_theta|."""
        loss: Tensor = self.sampler.loss(rows.e_u, rows.e_i, self.generator)
        return loss

    def loss(self, rows: Rows) -> Ranked:
        """The mean over e_j and the levels of -w ln sigmoid(s_ui - s_ud); w = 1 for e_j."""
        seen, levels = rows.detached, len(self.sampler.config.weights)
        noise = Noise([self.generator], [len(seen.e_u)])
        generated = self.sampler.generate(Query(seen.e_u, seen.e_i), levels, noise)
        s_ud = torch.einsum("bd,bnd->bn", rows.e_u, generated.negatives)
        scores = torch.cat([rows.s_uj.unsqueeze(1), s_ud], dim=1)
        weights = torch.nn.functional.pad(self.sampler.weights, (1, 0), value=1.0)
        told: dict[str, Tensor] = {}
        for level in range(levels):
            told |= likeness(rows, generated.negatives[:, level], f"_{level + 1}")
        loss = weighted_bpr(rows.s_ui, scores, weights.unsqueeze(0))
        return Ranked(loss, generated.transition, told=told)
