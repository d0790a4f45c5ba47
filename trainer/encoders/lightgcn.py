"""LightGCN (He et al., SIGIR 2020): embeddings averaged over a bipartite graph's neighbourhoods.

One step costs L sparse products forwards and L backwards and little else: the normalised adjacency
A is symmetric, so the mean over layers P(A) = (1 + A + ... + A^L) / (L + 1) is its own transpose,
and the backward pass is the forward pass applied to the gradient.
"""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn.functional import embedding

from trainer.encoders.base import half_squared_norm
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

    def encode(
        self, users: Int[Tensor, "B"], items: Int[Tensor, "M"]
    ) -> tuple[Float[Tensor, "B d"], Float[Tensor, "M d"]]:
        """See `Encoder.encode`."""
        rows = self._rows(users, items)
        final = embedding(rows, propagate(self.table, self.adjacency, self.num_layers))
        return final[: len(users)], final[len(users) :]

    def penalty(self, users: Int[Tensor, "B"], items: Int[Tensor, "M"]) -> Float[Tensor, ""]:
        """See `Encoder.penalty`; the raw parameters are those of layer 0."""
        raw = embedding(self._rows(users, items), self.table)
        return half_squared_norm(raw[: len(users)], raw[len(users) :])

    @torch.no_grad()
    def tables(self) -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """See `Encoder.tables`."""
        final = propagate(self.table, self.adjacency, self.num_layers)
        return final[: self.num_users], final[self.num_users :]

    def _rows(self, users: Int[Tensor, "B"], items: Int[Tensor, "M"]) -> Int[Tensor, "B+M"]:
        return torch.cat([users, items + self.num_users])


def normalised_adjacency(
    train: Int64[np.ndarray, "N 2"], num_users: int, num_items: int
) -> Float[Tensor, "n n"]:
    """D^-1/2 [[0, R], [R', 0]] D^-1/2 (LightGCN Eq. 8); a node without edges keeps a zero row.

    Args:
        train: int64 [N, 2], pairs (user, item), none twice.
        num_users: U.
        num_items: I.

    Returns:
        float32 sparse CSR [U + I, U + I], symmetric.
    """
    n = num_users + num_items
    users, items = train[:, 0], train[:, 1] + num_users
    rows, columns = np.concatenate([users, items]), np.concatenate([items, users])
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    degree = np.bincount(rows, minlength=n)
    values = 1.0 / np.sqrt(degree[rows] * degree[columns])
    starts = np.concatenate([[0], np.cumsum(degree)])
    with warnings.catch_warnings():
        # "Sparse CSR tensor support is in beta state": the one product used here is tested.
        warnings.filterwarnings("ignore", message="Sparse CSR", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts.astype(np.int32)),  # MKL's own index type: int64 would be
            torch.from_numpy(columns.astype(np.int32)),  # converted in every product
            torch.from_numpy(values.astype(np.float32)),
            size=(n, n),
            check_invariants=True,
        )


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
