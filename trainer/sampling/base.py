"""What the co-training loop asks of a picker of negatives, and what a picker draws from."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trainer.batches import Batch
from trainer.encoders.base import Encoded


class Negatives(NamedTuple):
    """One negative a row.

    Attributes:
        embeddings: float [B, d], e_j, with gradient.
        items: int64 [B], whose raw parameters the encoder's penalty counts.
    """

    embeddings: Float[Tensor, "B d"]
    items: Int[Tensor, " B"]


@runtime_checkable
class NegativePicker(Protocol):
    """Makes one negative a row, of an item or items that the user has not taken."""

    def pick(self, batch: Batch, encoded: Encoded, generator: torch.Generator) -> Negatives:
        """A negative for each row of a batch.

        Args:
            batch: its B rows.
            encoded: their embeddings; candidates are looked up in it without gradient, what is
                chosen with.
            generator: the only source of randomness; on the device of the batch.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Draws items that users have not taken, without looking at any embedding."""

    def sample(
        self, users: Int[Tensor, "*rows"], generator: torch.Generator
    ) -> Int[Tensor, "*rows"]:
        """One item for each entry of `users`.

        Args:
            users: int64 [...], ids in [0, U).
            generator: the only source of randomness; on the device of `users`.

        Returns:
            int64 [...], ids in [0, I).
        """
        ...


class Drawn:
    """Takes what the source draws: `uniform` and `popularity`.

    Args:
        source: draws the negatives.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def pick(self, batch: Batch, encoded: Encoded, generator: torch.Generator) -> Negatives:
        """See `NegativePicker.pick`."""
        items = self.source.sample(batch.users, generator)
        return Negatives(encoded.items(items), items)


def candidates_of(
    batch: Batch, source: Source, number: int, generator: torch.Generator
) -> Int[Tensor, "B M"]:
    """M draws for each row; an item may come twice."""
    return source.sample(batch.users[:, None].expand(-1, number), generator)


@torch.no_grad()
def scores(users: Float[Tensor, "B d"], candidates: Float[Tensor, "B M d"]) -> Float[Tensor, "B M"]:
    """The inner product of each row's user with each of its candidates, without gradient."""
    return torch.bmm(candidates, users.unsqueeze(2)).squeeze(2)


def entry(rows: Int[Tensor, "B M"], column: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """One entry of each row."""
    return rows.gather(1, column[:, None]).squeeze(1)
