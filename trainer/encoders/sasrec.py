"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention reads the sequence."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.encoders.lookup import Lookup
from trainer.encoders.sequence import SequenceEncoder
from trainer.sequences import Sequences


class SASRec(SequenceEncoder):
    """A stack of causal attention blocks; e_u is the last block's output, normalised.

    Positions count from the oldest item read. Everything but attention itself runs on real
    positions alone, without padding.

    Differs from the paper: plain pre-norm (x + f(norm(x)), queries, keys and values all from
    norm(x)); the loss is the loop's.

    Args:
        interactions: see `SequenceEncoder`.
        dim: d, a multiple of `num_heads`.
        max_length: see `SequenceEncoder`.
        dropout: of embeddings, attention weights and each sub-layer's output.
        num_blocks: attention blocks.
        num_heads: heads of each.
        generator: draws the first values; the global one where none is given.

    Raises:
        ConfigError: d is no multiple of `num_heads`.
    """

    def __init__(
        self,
        interactions: Interactions,
        dim: int,
        max_length: int = 50,
        dropout: float = 0.5,
        num_blocks: int = 2,
        num_heads: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(interactions, dim, max_length, dropout)
        if dim % num_heads:
            raise ConfigError(f"dim = {dim}; it must be a multiple of the {num_heads} heads")
        self.positions = nn.Parameter(torch.empty(max_length, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, dropout) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(dim)
        self.initialise(generator)

    def states(self, sequences: Sequences, items: Lookup) -> Float[Tensor, "B d"]:
        """See `SequenceEncoder.states`."""
        inputs = items(sequences.items) * self.dim**0.5
        x: Tensor = self.dropout(inputs + embedding(sequences.places, self.positions))
        for block in self.blocks:
            x = block(x, sequences)
        out: Tensor = self.norm(x)
        return out


class Block(nn.Module):
    """Attention and a two-layer network, each added to what it reads."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.network = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(dim, dim),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B d"], sequences: Sequences) -> Float[Tensor, "B d"]:
        """The block's output at each position.

        Args:
            x: float [B, d].
            sequences: whose positions the rows of x are.
        """
        attended = sequences.in_bands(self._attend, self.qkv(self.norm(x)))
        x = x + self.dropout(self.out(attended))
        out: Tensor = x + self.dropout(self.network(x))
        return out

    def _attend(self, qkv: Float[Tensor, "B e"], sequences: Sequences) -> Float[Tensor, "B d"]:
        heads = sequences.pad(qkv).unflatten(2, (3, self.num_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        rate = self.dropout.p if self.training else 0.0
        attended = scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)
        return sequences.unpad(attended.transpose(1, 2).flatten(2))
