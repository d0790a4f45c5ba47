"""CL4SRec (Xie et al., ICDE 2022): SASRec that tells its users apart under augmentation."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from core.errors import ConfigError
from trainer import augment
from trainer.data import Interactions
from trainer.encoders.lookup import rows_of
from trainer.encoders.sasrec import SASRec
from trainer.sequences import Sequences

CROP, MASK, REORDER = 0.6, 0.3, 0.6  # eta, gamma, beta: shares of a sequence


class CL4SRec(SASRec):
    """SASRec with InfoNCE over two augmented views of each sequence as an auxiliary loss.

    Args:
        interactions: see `SequenceEncoder`.
        dim: d.
        max_length: see `SequenceEncoder`.
        dropout: see `SASRec`.
        contrast: weight of the contrastive loss (the paper's lambda).
        temperature: of its softmax.
        generator: draws the first values; the global one where none is given.

    Raises:
        ConfigError: contrast < 0, temperature <= 0, or see `SASRec`.
    """

    extra_items = 1  # the mask

    def __init__(
        self,
        interactions: Interactions,
        dim: int,
        max_length: int = 50,
        dropout: float = 0.5,
        contrast: float = 0.1,
        temperature: float = 1.0,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        if not contrast >= 0 or not temperature > 0:
            raise ConfigError(
                f"contrast = {contrast}, temperature = {temperature}; at least 0, and above 0"
            )
        super().__init__(interactions, dim, max_length, dropout, generator=generator)
        self.contrast = contrast
        self.temperature = temperature

    def auxiliary(self, contexts: Sequences, generator: torch.Generator) -> Float[Tensor, ""]:
        """See `HasAuxiliary`; Eq. 2: a view's other view among all views of the batch."""
        views = [self._view(contexts, generator) for _ in range(2)]
        items = rows_of(self.items)
        states = torch.cat([view.last(self.states(view, items)) for view in views])
        likeness = states @ states.T / self.temperature
        likeness.fill_diagonal_(-torch.inf)
        others = torch.arange(len(states), device=states.device).roll(len(states) // 2)
        return self.contrast * cross_entropy(likeness, others)

    def _view(self, sequences: Sequences, generator: torch.Generator) -> Sequences:
        """Each sequence under one of the three augmentations, each as likely."""
        kind = torch.randint(
            3, sequences.lengths.shape, generator=generator, device=generator.device
        )
        view = augment.crop(sequences, CROP, generator)
        masked = augment.mask(sequences, MASK, self.num_items, generator)
        view = augment.choose(view, masked, kind == 1)
        return augment.choose(view, augment.reorder(sequences, REORDER, generator), kind == 2)
