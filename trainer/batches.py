"""Mini-batches: the rows that one step of Algorithm 1 learns from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from core.errors import DataError
from trainer.data import Interactions
from trainer.encoders.base import Encoder, ReadsSequences
from trainer.sequences import Contexts, Ragged, Sequences, last_of_each, runs


@dataclass(frozen=True, eq=False)
class Batch:
    """B rows, each a user in some context and the item that was taken.

    Attributes:
        contexts: what the encoder reads: the users, or sequences whose positions are the rows.
        users: int64 [B]; whose items are no negatives.
        items: int64 [B], the positives.
        weight: of the mean over these rows, where they are a worker's part of a batch: its part of
            all rows times the number of workers.
    """

    contexts: Contexts
    users: Int[Tensor, " B"]
    items: Int[Tensor, " B"]
    weight: float = 1.0


@runtime_checkable
class Batches(Protocol):
    """The training rows of a data set."""

    def __len__(self) -> int:
        """Steps an epoch."""
        ...

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Every row once, in an order drawn from `generator`."""
        ...


class PairBatches:
    """Every train pair is a row; its context is its user.

    Args:
        interactions: whose train pairs.
        size: B; the last batch of an epoch may be smaller.
        device: where batches are wanted.
    """

    def __init__(self, interactions: Interactions, size: int, device: str = "cpu") -> None:
        self._pairs = torch.from_numpy(interactions.train).to(device)
        self._size = size

    def __len__(self) -> int:
        return math.ceil(len(self._pairs) / self._size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """See `Batches.epoch`."""
        order = torch.randperm(len(self._pairs), generator=generator, device=self._pairs.device)
        for rows in order.split(self._size):
            users, items = self._pairs[rows].unbind(1)
            yield Batch(users, users, items)


class SequenceBatches:
    """Every position of every user's train sequence is a row, whose item is the next one.

    A user of n train items gives min(n - 1, max_length) rows, those of the latest items; a user of
    one item gives none.

    Args:
        interactions: whose train pairs, in time order within a user.
        size: users (sequences) of a batch; rows are several times as many.
        max_length: the longest sequence.
        device: where batches are wanted.

    Raises:
        DataError: nobody has two train items.
    """

    def __init__(
        self, interactions: Interactions, size: int, max_length: int, device: str = "cpu"
    ) -> None:
        pairs = last_of_each(interactions.train, max_length + 1)
        _, starts, counts = runs(pairs[:, 0])
        if not (counts > 1).any():
            raise DataError(
                f"{interactions.name}: no user has two train items, so there is no next item to "
                "learn; choose an encoder of pairs, or another split"
            )
        self._users, self._items = torch.from_numpy(pairs).unbind(1)
        self._sequences = Ragged(starts[counts > 1], counts[counts > 1] - 1)
        self._size = size
        self._device = device

    def __len__(self) -> int:
        return math.ceil(len(self._sequences) / self._size)

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """See `Batches.epoch`; put together on the CPU, where the lengths are known."""
        order = torch.randperm(len(self._sequences), generator=generator, device=self._device)
        for rows in order.cpu().split(self._size):
            at = self._sequences.places(rows)
            lengths = self._sequences.lengths[rows]
            columns = (self._items[at], lengths, self._users[at], self._items[at + 1])
            seen, lengths_there, users, items = (column.to(self._device) for column in columns)
            yield Batch(Sequences(seen, lengths_there, int(lengths.max())), users, items)


def make_batches(
    encoder: Encoder, interactions: Interactions, size: int, device: str = "cpu"
) -> Batches:
    """The batches that the encoder reads: of sequences, or of pairs."""
    if isinstance(encoder, ReadsSequences):
        return SequenceBatches(interactions, size, encoder.max_length, device)
    return PairBatches(interactions, size, device)
