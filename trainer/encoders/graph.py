"""The bipartite graph of who took what, and the product with it."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


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


def product(adjacency: Float[Tensor, "n n"], table: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """A E, differentiable in E; a sparse product forwards and one backwards.

    Args:
        adjacency: float sparse CSR [n, n], A; it must be symmetric, the gradient relies on it.
        table: float [n, d], E.

    Returns:
        float [n, d].
    """
    out: Tensor = _Product.apply(adjacency, table)  # type: ignore[no-untyped-call]
    return out


class _Product(torch.autograd.Function):
    """A E, whose gradient is A g because A is symmetric: nothing is transposed."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, table: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        return adjacency @ table

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, product(ctx.adjacency, grad)
