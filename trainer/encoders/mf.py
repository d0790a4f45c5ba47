"""Matrix factorisation: one free vector for every user and every item."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from trainer.encoders.base import Encoded, half_squared_norm
from trainer.encoders.lookup import rows_of


class MF(nn.Module):
    """Matrix factorisation (BPR-MF, Rendle et al. 2009), Xavier-initialised.

    Args:
        num_users: U.
        num_items: I.
        dim: d.
        generator: draws the first values; the global one where none is given.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        dim: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.users = nn.Parameter(xavier(num_users, dim, generator))
        self.items = nn.Parameter(xavier(num_items, dim, generator))

    def encode(self, users: Int[Tensor, " B"]) -> Encoded:
        """See `Encoder.encode`."""
        return Encoded(embedding(users, self.users), rows_of(self.items))

    def penalty(self, users: Int[Tensor, " B"], items: Int[Tensor, " M"]) -> Float[Tensor, ""]:
        """See `Encoder.penalty`."""
        return half_squared_norm(embedding(users, self.users), embedding(items, self.items))

    def tables(self, _split: str = "test") -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """See `Encoder.tables`."""
        return self.users.detach(), self.items.detach()


def xavier(rows: int, dim: int, generator: torch.Generator | None) -> Float[Tensor, "rows dim"]:
    """A float32 table of Xavier-uniform values.

    Args:
        rows: U or I.
        dim: d.
        generator: draws the values; the global one where none is given.

    Returns:
        float32 [rows, dim].
    """
    return nn.init.xavier_uniform_(torch.empty(rows, dim), generator=generator)
