"""Adaptive hardness negative sampling: the better the positive scores, the easier the negative."""

from dataclasses import dataclass

import torch

from trainer.batches import Batch
from trainer.encoders.base import Encoded
from trainer.sampling.base import Negatives, Source, candidates_of, entry, scores


@dataclass(frozen=True)
class AHNS:
    """Of M uniform candidates, the one whose score is nearest beta (s_ui + alpha)^(p + 1).

    Lai et al., AAAI 2024, AHNS_{p<0}; the defaults are those of the released code.

    Attributes:
        source: draws the candidates.
        candidates: M.
        alpha: shifts the positive's score.
        beta: scales the target.
        power: p < 0, whole, so that a negative s_ui + alpha has a power; at -1 every positive has
            the target beta.
    """

    source: Source
    candidates: int
    alpha: float = 1.0
    beta: float = 0.1
    power: int = -2

    def pick(self, batch: Batch, encoded: Encoded, generator: torch.Generator) -> Negatives:
        """See `NegativePicker.pick`."""
        candidates = candidates_of(batch, self.source, self.candidates, generator)
        with torch.no_grad():
            positive = (encoded.users * encoded.items(batch.items)).sum(1)
            target = self.beta * (positive + self.alpha).pow(self.power + 1)
            distance = scores(encoded.users, encoded.items(candidates)) - target[:, None]
            items = entry(candidates, distance.abs().argmin(1))
        return Negatives(encoded.items(items), items)
