"""Dynamic negative sampling: the hardest of several candidates."""

import torch

from trainer.batches import Batch
from trainer.encoders.base import Encoded
from trainer.sampling.base import Negatives, Source, candidates_of, entry, scores


class DNS:
    """Of M uniform candidates, the one that scores highest now (Zhang et al., SIGIR 2013).

    Args:
        source: draws the candidates.
        candidates: M; 1 is uniform sampling.
    """

    def __init__(self, source: Source, candidates: int) -> None:
        self.source = source
        self.candidates = candidates

    def pick(self, batch: Batch, encoded: Encoded, generator: torch.Generator) -> Negatives:
        """See `NegativePicker.pick`."""
        candidates = candidates_of(batch, self.source, self.candidates, generator)
        with torch.no_grad():
            hardest = scores(encoded.users, encoded.items(candidates)).argmax(1)
        items = entry(candidates, hardest)
        return Negatives(encoded.items(items), items)
