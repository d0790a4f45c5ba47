"""CNSDiff in the loop: a negative mixed of a generated and a sampled one; a contrast (method 5).

loss = BPR(e_neg) + 0.3 L_CL + 1e-6 L_diff,    e_neg = l e_hard + (1 - l) e_j
l ~ Beta(1 + 8p, 9 - 8p), p = epoch / epochs:  a tenth of e_hard at first, nine tenths at last
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from core.losses import bpr
from core.noise import Noise
from core.samplers import CNSDiff, Query
from trainer.config import TrainConfig
from trainer.data import Interactions
from trainer.methods.base import Diffusing, Ranked, Rows, likeness
from trainer.popularity import strata
from trainer.run import Diffusion

NOISE, TEMPERATURE = 0.01, 2.0  # of the contrast: of its positive; cos/2
CONTRASTED = 2048  # rows of a batch that are contrasted, at most: it costs their number's square


class CNSDiffMethod(Diffusing):
    """The released variant's denoiser never learns; the others' does, as in every method here.

    Args:
        sampler: whose P(E) is set to the strata's shares of the train pairs.
        diffusion: see `Diffusing`.
        config: of the run.
        interactions: give each item's stratum.
    """

    def __init__(
        self,
        sampler: CNSDiff,
        diffusion: Diffusion,
        config: TrainConfig,
        interactions: Interactions,
    ) -> None:
        super().__init__(diffusion, config)
        self.sampler = sampler
        popularity = interactions.popularity
        of_item = torch.from_numpy(strata(popularity, sampler.strata)).to(config.device)
        taken = torch.from_numpy(popularity).to(config.device)
        sampler.expose(torch.zeros_like(taken[: sampler.strata]).index_add(0, of_item, taken))
        self._strata = of_item
        self._progress = 0.0

    def begin(self, epoch: int) -> None:
        """The share of generated negatives grows with p."""
        self._progress = epoch / self.config.epochs

    def learn(self, rows: Rows) -> Mapping[str, Float[Tensor, ""]]:
        """See `Method.learn`."""
        return {} if self.config.cnsdiff_variant == "released" else super().learn(rows)

    def observe(self, rows: Rows) -> None:
        """See `Diffusing.observe`; there are no scales."""

    def objective(self, rows: Rows) -> Float[Tensor, ""]:
        """L_diff."""
        loss: Tensor = self.sampler.loss(*self._seen(rows)).total
        return loss

    def loss(self, rows: Rows) -> Ranked:
        """The three terms; the gradient of L_diff goes into the positives alone."""
        seen = rows.detached
        noise = Noise([self.generator], [len(seen.e_u)])
        generated = self.sampler.generate(Query(seen.e_u, seen.e_i), 1, noise)
        hard = generated.negatives.squeeze(1)
        share = self._share(len(hard), hard.device)
        mixed = share * hard + (1 - share) * rows.e_j
        near = rows.e_i + NOISE * noise.normal(self.sampler.dim, dtype=hard.dtype)
        loss = bpr(rows.s_ui, (rows.e_u * mixed).sum(-1))
        some = (table[:CONTRASTED] for table in (rows.e_i, near, hard, rows.e_j))
        loss = loss + self.config.cnsdiff_contrast * contrast(*some)
        loss = loss + self.config.cnsdiff_diffusion * self.sampler.loss(*self._seen(rows)).total
        return Ranked(loss, generated.transition, told=likeness(rows, hard))

    def _seen(self, rows: Rows) -> tuple[Tensor, torch.Generator, Tensor]:
        """What L_diff is computed from."""
        return rows.e_i, self.generator, self._strata[rows.batch.items]

    def _share(self, rows: int, device: torch.device) -> Float[Tensor, "B 1"]:
        """l, from two gamma variates: torch's own Beta takes no generator."""
        p = self._progress
        first, second = (
            torch._standard_gamma(torch.full((rows, 1), of, device=device), self.generator)
            for of in (1 + 8 * p, 9 - 8 * p)
        )
        return first / (first + second)


def contrast(
    anchor: Float[Tensor, "B d"],
    positive: Float[Tensor, "B d"],
    hard: Float[Tensor, "B d"],
    random: Float[Tensor, "B d"],
) -> Float[Tensor, ""]:
    """L_CL = -cos(e_i, e_i+)/2 + ln sum over the batch's 2B negatives of exp(cos(e_i, e-)/2)."""
    anchor, positive = normalize(anchor), normalize(positive)
    negatives = normalize(torch.cat([hard, random]))
    near = (anchor * positive).sum(-1) / TEMPERATURE
    far: Tensor = _LogSums.apply(anchor, negatives / TEMPERATURE)  # type: ignore[no-untyped-call]
    return far - near.mean()


class _LogSums(torch.autograd.Function):
    """The mean over rows a of ln sum_n exp <a, n>, and its gradient in one pass over blocks.

    A [B, 2B] matrix of a batch of thousands would be written and read again a dozen times; a block
    of it stays in the cache. No maximum is taken out: the scores are cosines over a temperature.
    """

    BLOCK = 128  # rows

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, negatives: Tensor) -> Tensor:
        total = anchors.new_zeros(())
        of_anchors, of_negatives = torch.empty_like(anchors), torch.zeros_like(negatives)
        for rows, slot in zip(
            anchors.split(_LogSums.BLOCK), of_anchors.split(_LogSums.BLOCK), strict=True
        ):
            shares = (rows @ negatives.T).exp_()
            sums = shares.sum(1, keepdim=True)
            total += sums.log().sum()
            shares /= sums
            torch.mm(shares, negatives, out=slot)
            of_negatives.addmm_(shares.T, rows)
        ctx.save_for_backward(of_anchors, of_negatives)
        ctx.rows = len(anchors)
        mean: Tensor = total / ctx.rows
        return mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        of_anchors, of_negatives = ctx.saved_tensors
        return of_anchors * (grad / ctx.rows), of_negatives * (grad / ctx.rows)
