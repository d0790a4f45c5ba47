"""GDNSM in the loop: a queue of negatives from easy to hard, opened as training goes on (method 6).

loss = BPR(e_j) + the mean over what is open of -ln sigmoid(s_ui - h_u . o)
"""

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import ConfigError
from core.losses import bpr, weighted_bpr
from core.noise import Noise
from core.samplers import GDNSM, GDNSMConfig, Query
from trainer.config import TrainConfig
from trainer.data import Interactions
from trainer.distributed import gathered
from trainer.methods.base import Diffusing, Ranked, Rows, likeness
from trainer.run import Diffusion


class GDNSMMethod(Diffusing):
    """The contrast of the paper's loss is its encoder's, `mmlightgcn`.

    Args:
        sampler: conditioned on the features of `interactions`.
        diffusion: see `Diffusing`.
        config: of the run.
        interactions: give each item's features.
    """

    def __init__(
        self, sampler: GDNSM, diffusion: Diffusion, config: TrainConfig, interactions: Interactions
    ) -> None:
        super().__init__(diffusion, config)
        self.sampler = sampler
        self._features = _on(config.device, interactions)
        self._progress: float | None = None

    def begin(self, epoch: int) -> None:
        """The queue opens from epoch S on; with S = 0 it is open."""
        start = self.config.gdnsm_start
        self._progress = self.sampler.queue.progress(epoch, start) if start else None

    def observe(self, rows: Rows) -> None:
        """See `Diffusing.observe`."""
        self.sampler.observe(*gathered(rows.e_u, rows.e_i))

    def objective(self, rows: Rows) -> Float[Tensor, ""]:
        """||eps - eps_theta||^2 with modalities dropped."""
        loss: Tensor = self.sampler.loss(rows.e_u, rows.e_i, self._of(rows), self.generator)
        return loss

    def loss(self, rows: Rows) -> Ranked:
        """BPR alone until the queue opens."""
        plain = bpr(rows.s_ui, rows.s_uj)
        queue, seen = self.sampler.queue, rows.detached
        available = queue.open(self._progress)
        if not available:
            return Ranked(plain)
        query = Query(seen.e_u, seen.e_i, item_features=self._of(rows), progress=self._progress)
        noise = Noise([self.generator], [len(seen.e_u)])
        generated = self.sampler.generate(query, available, noise)
        s_ud = torch.einsum("bd,bnd->bn", rows.e_u, generated.negatives)
        told: dict[str, Tensor] = {}
        for place, level in enumerate(queue.places(available, self._progress)):
            told |= likeness(rows, generated.negatives[:, place], f"_{level + 1}")
        loss = plain + weighted_bpr(rows.s_ui, s_ud, torch.ones_like(s_ud))
        return Ranked(loss, generated.transition, told=told)

    def _of(self, rows: Rows) -> dict[str, Tensor]:
        return {name: table[rows.batch.items] for name, table in self._features.items()}


def new_gdnsm(config: TrainConfig, interactions: Interactions | None) -> GDNSM:
    """An untrained sampler for the features of a data set.

    Raises:
        ConfigError: there are none.
    """
    if interactions is None:
        raise ConfigError("method gdnsm needs the interactions whose item features guide it")
    known = interactions.known_features("method gdnsm")
    sampler = GDNSM(
        GDNSMConfig(
            dim=config.dim,
            features=tuple((name, table.shape[1]) for name, table in known.items()),
            num_steps=config.num_steps,
            schedule=config.schedule,
            denoiser=config.gdnsm_denoiser,
            guidance=config.gdnsm_guidance,
            per_level=config.gdnsm_per_level,
            power=config.gdnsm_power,
            ddim_steps=config.ddim_steps,
            standardize=config.standardize,
        )
    )
    sampler.fit(_on("cpu", interactions))
    return sampler


def _on(device: str, interactions: Interactions) -> dict[str, Tensor]:
    return {
        name: torch.from_numpy(table).to(device) for name, table in interactions.features.items()
    }
