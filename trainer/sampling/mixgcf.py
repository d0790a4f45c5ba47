"""MixGCF: negatives put together from several candidates, layer by layer, and from the positive."""

import torch
from torch import Tensor

from trainer.batches import Batch
from trainer.encoders.base import Encoded
from trainer.sampling.base import Negatives, Source, candidates_of, entry, scores


class MixGCF:
    """Positive mixing and hop mixing over M uniform candidates (Huang et al., KDD 2021).

    In every layer of the graph the hardest candidate is chosen (hop mixing) and mixed with the
    positive, a e_i + (1 - a) e_c with a fresh a ~ U(0, 1) (positive mixing); the layers' mixtures
    are pooled as the encoder pools layers. As in the released code a row's a is common to its
    candidates, so mixing does not change which of them is the hardest. An encoder without layers
    has one: the hardest candidate, mixed with the positive.

    Args:
        source: draws the candidates.
        candidates: M.
    """

    def __init__(self, source: Source, candidates: int) -> None:
        self.source = source
        self.candidates = candidates

    def pick(self, batch: Batch, encoded: Encoded, generator: torch.Generator) -> Negatives:
        """See `NegativePicker.pick`; the penalty counts the candidate chosen in layer 0."""
        candidates = candidates_of(batch, self.source, self.candidates, generator)
        layers = encoded.layers() if encoded.layers is not None else (encoded.items,)
        mixtures: list[Tensor] = []
        chosen: list[Tensor] = []
        for layer in layers:
            with torch.no_grad():
                hardest = scores(encoded.users, layer(candidates)).argmax(1)
            chosen.append(entry(candidates, hardest))
            positive, negative = layer(torch.stack([batch.items, chosen[-1]]))
            share = torch.rand(len(positive), 1, generator=generator, device=positive.device)
            mixtures.append(share * positive + (1 - share) * negative)
        return Negatives(torch.stack(mixtures).sum(0), chosen[0])
