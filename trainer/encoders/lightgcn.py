"""LightGCN (He et al., SIGIR 2020): embeddings averaged over a bipartite graph's neighbourhoods.

One step costs L sparse products forwards and L backwards and little else: the normalised adjacency
A is symmetric, so the mean over layers P(A) = (1 + A + ... + A^L) / (L + 1) is its own transpose,
and the backward pass is the forward pass applied to the gradient.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn.functional import embedding

from trainer.encoders.base import Encoded, half_squared_norm
from trainer.encoders.graph import normalised_adjacency, product
from trainer.encoders.lookup import Lookup, rows_of
from trainer.encoders.mf import xavier


class LightGCN(nn.Module):
    """LightGCN: propagation without weights or activations, Xavier-initialised.

    Args:
        train: int64 [N, 2], the (user, item) pairs that make the graph; no pair twice.
        num_users: U.
        num_items: I.
        dim: d.
        num_layers: L >= 0; 0 is matrix factorisation.
        generator: draws the first values; the global one where none is given.
    """

    adjacency: Tensor

    def __init__(
        self,
        train: Int64[np.ndarray, "N 2"],
        num_users: int,
        num_items: int,
        dim: int,
        num_layers: int = 3,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.num_users = num_users
        self.num_layers = num_layers
        # Users above items in one table: one product, one Adam step, no concatenation.
        tables = (xavier(num_users, dim, generator), xavier(num_items, dim, generator))
        self.table = nn.Parameter(torch.cat(tables))
        # Follows from the data, so a checkpoint need not keep it.
        adjacency = normalised_adjacency(train, num_users, num_items)
        self.register_buffer("adjacency", adjacency, persistent=False)

    def encode(self, users: Int[Tensor, " B"]) -> Encoded:
        """See `Encoder.encode`."""
        users_table, items_table = self._final()
        return Encoded(embedding(users, users_table), rows_of(items_table), self._layers)

    def penalty(self, users: Int[Tensor, " B"], items: Int[Tensor, " M"]) -> Float[Tensor, ""]:
        """See `Encoder.penalty`; the raw parameters are those of layer 0."""
        raw = embedding(torch.cat([users, items + self.num_users]), self.table)
        return half_squared_norm(raw[: len(users)], raw[len(users) :])

    @torch.no_grad()
    def tables(self, _split: str = "test") -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """See `Encoder.tables`."""
        return self._final()

    def _final(self) -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """Two tables: rows looked up in one cost a dense gradient of that one alone."""
        final = propagate(self.table, self.adjacency, self.num_layers)
        users, items = final.split([self.num_users, len(final) - self.num_users])
        return users, items

    def _layers(self) -> tuple[Lookup, ...]:
        """See `Encoded.layers`; propagated again, since `propagate` keeps no layer."""
        return tuple(
            rows_of(layer[self.num_users :] / (self.num_layers + 1)) for layer in self._each_layer()
        )

    def _each_layer(self) -> Iterator[Float[Tensor, "n d"]]:
        layer: Tensor = self.table
        yield layer
        for _ in range(self.num_layers):
            layer = product(self.adjacency, layer)
            yield layer


def propagate(
    table: Float[Tensor, "n d"], adjacency: Float[Tensor, "n n"], num_layers: int
) -> Float[Tensor, "n d"]:
    """The mean of the layers, P(A) E (LightGCN Eq. 11, alpha_k = 1/(L + 1)), differentiable in E.

    Args:
        table: float [n, d], E, the embeddings of layer 0.
        adjacency: float sparse CSR [n, n], A; it must be symmetric, the gradient relies on it.
        num_layers: L.

    Returns:
        float [n, d].
    """
    out: Tensor = _Propagate.apply(table, adjacency, num_layers)  # type: ignore[no-untyped-call]
    return out


class _Propagate(torch.autograd.Function):
    """P(A) E, whose gradient is P(A) g because A is symmetric."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, adjacency: Tensor, num_layers: int) -> Tensor:
        ctx.adjacency, ctx.num_layers = adjacency, num_layers
        return _mean_of_layers(table, adjacency, num_layers)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return propagate(grad, ctx.adjacency, ctx.num_layers), None, None


def _mean_of_layers(table: Tensor, adjacency: Tensor, num_layers: int) -> Tensor:
    """Horner's rule, E + A (E + A (E + ...)): no layer is kept and none is added up twice."""
    out = table
    for _ in range(num_layers):
        out = torch.addmm(table, adjacency, out)
    return out / (num_layers + 1)
