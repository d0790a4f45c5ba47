"""GRU4Rec (Hidasi et al., ICLR 2016): a recurrent network reads the sequence."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trainer.data import Interactions
from trainer.encoders.lookup import Lookup
from trainer.encoders.sequence import SequenceEncoder
from trainer.sequences import Sequences


class GRU4Rec(SequenceEncoder):
    """One GRU over the items' embeddings; e_u is its hidden state, projected to d.

    Differs from the paper: whole sequences in place of session-parallel batches, and items are
    scored by their input embeddings.

    Args:
        interactions: see `SequenceEncoder`.
        dim: d, of embeddings and of the hidden state.
        max_length: see `SequenceEncoder`.
        dropout: of the embeddings.
        generator: draws the first values; the global one where none is given.
    """

    def __init__(
        self,
        interactions: Interactions,
        dim: int,
        max_length: int = 50,
        dropout: float = 0.5,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(interactions, dim, max_length, dropout)
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.out = nn.Linear(dim, dim)
        self.initialise(generator)

    def states(self, sequences: Sequences, items: Lookup) -> Float[Tensor, "B d"]:
        """See `SequenceEncoder.states`."""
        inputs = self.dropout(items(sequences.items))
        out: Tensor = self.out(sequences.in_bands(self._run, inputs))
        return out

    def _run(self, inputs: Float[Tensor, "B d"], sequences: Sequences) -> Float[Tensor, "B d"]:
        hidden, _ = self.gru(sequences.pad(inputs))
        return sequences.unpad(hidden)
