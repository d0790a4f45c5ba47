"""Normalised graphs as sparse matrices, above all that of who took what; the product with one."""

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
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
    users, items = train[:, 0], train[:, 1] + num_users
    rows, columns = np.concatenate([users, items]), np.concatenate([items, users])
    n = num_users + num_items
    return sparse(rows, columns, normalised(rows, columns, n), n)


def normalised(
    rows: Int64[np.ndarray, "E"], columns: Int64[np.ndarray, "E"], n: int
) -> Float64[np.ndarray, "E"]:
    """1 / sqrt(degree at one end * degree at the other) of each edge, given both ways."""
    degree = np.bincount(rows, minlength=n)
    weights: np.ndarray = 1.0 / np.sqrt(degree[rows] * degree[columns])
    return weights


def sparse(
    rows: Int64[np.ndarray, "E"],
    columns: Int64[np.ndarray, "E"],
    values: Float64[np.ndarray, "E"],
    n: int,
) -> Float[Tensor, "n n"]:
    """The float32 sparse CSR matrix [n, n] of these entries; values of one place are added up."""
    places, where = np.unique(rows * n + columns, return_inverse=True)
    starts = np.searchsorted(places, np.arange(n + 1) * n)
    with warnings.catch_warnings():
        # "Sparse CSR tensor support is in beta state": the one product used here is tested.
        warnings.filterwarnings("ignore", message="Sparse CSR", category=UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(starts.astype(np.int32)),  # MKL's own index type: int64 would be
            torch.from_numpy((places % n).astype(np.int32)),  # converted in every product
            torch.from_numpy(np.bincount(where, values).astype(np.float32)),
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
