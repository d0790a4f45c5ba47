"""Looking embeddings up in a table, several times a step, for one gradient of the table.

`torch.nn.functional.embedding` makes a gradient as large as the table for each look-up, most of it
zeros, and adds them all up.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding

Lookup = Callable[[Int[Tensor, "..."]], Float[Tensor, "... d"]]


def rows_of(table: Float[Tensor, "n d"]) -> Lookup:
    """The look-up in a table; all that it looks up adds to one gradient, made in the backward pass.

    Args:
        table: float [n, d]; the look-up is of the values that it has now, good for one step.

    Returns:
        ids int64 [...] to embeddings [..., d], with gradient where the table has one.
    """
    gradient = _Gradient(len(table))
    shared = _Shared.apply(table, gradient)  # type: ignore[no-untyped-call]

    def look_up(ids: Int[Tensor, "..."]) -> Float[Tensor, "... d"]:
        found: Tensor = _LookUp.apply(shared, gradient, ids)  # type: ignore[no-untyped-call]
        return found

    return look_up


class _Gradient:
    """Of a table, from all its look-ups, as their rows until it is wanted."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, ids: Tensor, rows: Tensor) -> None:
        self.parts.append((ids.flatten(), rows.flatten(0, -2)))

    def take(self) -> Tensor | None:
        """The sum, the same bits every time on every device."""
        if not self.parts:
            return None
        ids, rows = map(torch.cat, zip(*self.parts, strict=True))
        self.parts = []
        total: Tensor = torch.ops.aten.embedding_dense_backward(rows, ids, self.size, -1, False)
        return total


class _Shared(torch.autograd.Function):
    """The table itself; going back, it waits for every look-up and hands on what they gathered."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, gradient: _Gradient) -> Tensor:
        ctx.gradient = gradient
        ctx.set_materialize_grads(False)
        return table.view_as(table)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, None]:
        return ctx.gradient.take(), None


class _LookUp(torch.autograd.Function):
    """Rows of the table; going back, it adds to the shared gradient and hands nothing on."""

    @staticmethod
    def forward(ctx: Any, shared: Tensor, gradient: _Gradient, ids: Tensor) -> Tensor:
        ctx.gradient = gradient
        ctx.save_for_backward(ids)
        return embedding(ids, shared)

    @staticmethod
    def backward(ctx: Any, rows: Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        ctx.gradient.add(ids, rows)
        return None, None, None
