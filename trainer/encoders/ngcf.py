"""NGCF (Wang et al., SIGIR 2019): messages weighted by how alike the two ends are.

A layer costs one sparse product forwards and one backwards, with the same normalised adjacency as
LightGCN's.
"""

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding, leaky_relu, normalize, pad

from core.errors import ConfigError
from trainer.encoders.base import Encoded, half_squared_norm
from trainer.encoders.graph import normalised_adjacency, product
from trainer.encoders.lookup import Lookup, rows_of
from trainer.encoders.mf import xavier

SLOPE = 0.2  # of LeakyReLU below 0, as in the released code


class NGCF(nn.Module):
    """NGCF: every layer's embeddings side by side, Xavier-initialised.

    Differs from the paper: every layer above 0 is scaled to length 1 before it is put beside the
    others, as in the released code. And d is the width of the whole, so that encoders of equal d
    are compared and a sampler of width d fits all of them; a layer has d / (L + 1), where the paper
    gives each layer 64 and the whole 256.

    Args:
        train: int64 [N, 2], the (user, item) pairs that make the graph; no pair twice.
        num_users: U.
        num_items: I.
        dim: d, a multiple of L + 1.
        num_layers: L >= 0; 0 is matrix factorisation.
        message_dropout: share of a layer's values set to 0 in training, in [0, 1).
        generator: draws the first values; the global one where none is given.

    Raises:
        ConfigError: d is no multiple of L + 1.
    """

    adjacency: Tensor

    def __init__(
        self,
        train: Int64[np.ndarray, "N 2"],
        num_users: int,
        num_items: int,
        dim: int,
        num_layers: int = 3,
        message_dropout: float = 0.1,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        width, rest = divmod(dim, num_layers + 1)
        if rest:
            raise ConfigError(
                f"dim = {dim}; NGCF puts {num_layers + 1} layers side by side, so dim must be a "
                f"multiple of {num_layers + 1}"
            )
        self.dim, self.width = dim, width
        self.num_users = num_users
        self.message_dropout = message_dropout
        tables = (xavier(num_users, width, generator), xavier(num_items, width, generator))
        self.table = nn.Parameter(torch.cat(tables))
        self.own = nn.ModuleList(_linear(width, generator) for _ in range(num_layers))
        self.alike = nn.ModuleList(_linear(width, generator) for _ in range(num_layers))
        adjacency = normalised_adjacency(train, num_users, num_items)
        self.register_buffer("adjacency", adjacency, persistent=False)

    def encode(self, users: Int[Tensor, " B"]) -> Encoded:
        """See `Encoder.encode`."""
        layers = self._layers()
        final = torch.cat(layers, dim=1)
        users_table, items_table = final.split([self.num_users, len(final) - self.num_users])

        def each_layer() -> tuple[Lookup, ...]:
            blocks = (
                pad(layer[self.num_users :], (at * self.width, self.dim - (at + 1) * self.width))
                for at, layer in enumerate(layers)
            )
            return tuple(map(rows_of, blocks))

        return Encoded(embedding(users, users_table), rows_of(items_table), each_layer)

    def penalty(self, users: Int[Tensor, " B"], items: Int[Tensor, " M"]) -> Float[Tensor, ""]:
        """See `Encoder.penalty`; the raw parameters are those of layer 0."""
        raw = embedding(torch.cat([users, items + self.num_users]), self.table)
        return half_squared_norm(raw[: len(users)], raw[len(users) :])

    @torch.no_grad()
    def tables(self, _split: str = "test") -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """See `Encoder.tables`."""
        final = torch.cat(self._layers(), dim=1)
        return final[: self.num_users], final[self.num_users :]

    def _layers(self) -> list[Float[Tensor, "n w"]]:
        """Eq. 7: E_l = LeakyReLU((A + 1) E_{l-1} W1 + (A E_{l-1} * E_{l-1}) W2), then dropout.

        What the next layer reads is E_l itself; what is given is E_0 and the directions of the
        others.
        """
        last: Tensor = self.table
        layers = [last]
        for own, alike in zip(self.own, self.alike, strict=True):
            received = product(self.adjacency, last)
            messages = own(received + last) + alike(received * last)
            last = dropout(leaky_relu(messages, SLOPE), self.message_dropout, self.training)
            layers.append(normalize(last, dim=1))
        return layers


def _linear(width: int, generator: torch.Generator | None) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.xavier_uniform_(linear.weight, generator=generator)
    nn.init.zeros_(linear.bias)
    return linear
