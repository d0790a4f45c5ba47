"""Sequences of items, one after the other: padding exists only where a network asks for it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

WIDTHS = (8, 20)  # where `in_bands` divides; most people's sequences are short


@dataclass(frozen=True, eq=False)
class Sequences:
    """S sequences of B items together, S <= B.

    Attributes:
        items: int64 [B], ids, oldest first within a sequence, one sequence after the other.
        lengths: int64 [S], at least 1 each; their sum is B.
        longest: no length is above it; known without asking the device.
    """

    items: Int[Tensor, " B"]
    lengths: Int[Tensor, " S"]
    longest: int

    @cached_property
    def owners(self) -> Int[Tensor, " B"]:
        """Which sequence each position belongs to."""
        numbers = torch.arange(len(self.lengths), device=self.items.device)
        return numbers.repeat_interleave(self.lengths, output_size=len(self.items))

    @cached_property
    def starts(self) -> Int[Tensor, " S"]:
        """The first position of each sequence."""
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def places(self) -> Int[Tensor, " B"]:
        """0, 1, ... within each sequence."""
        positions = torch.arange(len(self.items), device=self.items.device)
        return positions - self.starts[self.owners]

    def pad(self, rows: Float[Tensor, "B d"]) -> Float[Tensor, "S L d"]:
        """A row for each position as a rectangle, L = `longest`; zeros fill up on the right.

        What is real comes first, so a causal network needs no mask to keep the padding out.
        """
        width = rows.shape[1]
        flat = rows.new_zeros(len(self.lengths) * self.longest, width)
        return flat.index_copy(0, self._cells, rows).view(-1, self.longest, width)

    def unpad(self, rectangle: Float[Tensor, "S L d"]) -> Float[Tensor, "B d"]:
        """The inverse of `pad`: what stands at real positions."""
        return rectangle.reshape(-1, rectangle.shape[2]).index_select(0, self._cells)

    def last(self, rows: Float[Tensor, "B d"]) -> Float[Tensor, "S d"]:
        """The rows of each sequence's last position."""
        return rows[self.starts + self.lengths - 1]

    def replaced(self, items: Int[Tensor, " B"]) -> "Sequences":
        """Other items at the same positions."""
        return Sequences(items, self.lengths, self.longest)

    def in_bands(
        self, function: Callable[[Tensor, "Sequences"], Tensor], rows: Float[Tensor, "B d"]
    ) -> Float[Tensor, "B e"]:
        """function(rows, sequences), which pads, for short, middling and long sequences apart.

        A rectangle costs what its longest sequence costs; attention, the square of it.
        """
        results = [function(rows[at], part) for at, part in self._bands]
        order = torch.cat([at for at, _ in self._bands])
        return torch.cat(results).index_select(0, order.argsort())

    @cached_property
    def _bands(self) -> list[tuple[Int[Tensor, " b"], "Sequences"]]:
        """Positions and sequences by length."""
        bands = []
        low = 0
        for high in (*(width for width in WIDTHS if width < self.longest), self.longest):
            inside = (self.lengths > low) & (self.lengths <= high)
            at = inside[self.owners].nonzero().squeeze(1)
            if len(at):
                bands.append((at, Sequences(self.items[at], self.lengths[inside], high)))
            low = high
        return bands

    @cached_property
    def _cells(self) -> Int[Tensor, " B"]:
        return self.owners * self.longest + self.places


Contexts = Int[Tensor, " B"] | Sequences  # what an encoder reads: users, or sequences


class Ragged:
    """Rows of different lengths within one array on the CPU, of which some are taken at a time.

    Args:
        starts: int64 [S], where each row begins.
        lengths: int64 [S], at least 1 each.
    """

    def __init__(self, starts: Int64[np.ndarray, "S"], lengths: Int64[np.ndarray, "S"]) -> None:
        self._starts = torch.from_numpy(starts)
        self.lengths = torch.from_numpy(lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def places(self, rows: Int[Tensor, " R"]) -> Int[Tensor, " B"]:
        """The places in the array of everything in these rows, row by row."""
        lengths = self.lengths[rows]
        shift = self._starts[rows] - (lengths.cumsum(0) - lengths)
        return torch.arange(int(lengths.sum())) + shift.repeat_interleave(lengths)


def last_of_each(pairs: Int64[np.ndarray, "N 2"], most: int) -> Int64[np.ndarray, "K 2"]:
    """The last pairs of every user, `most` at most; `pairs` ascend by user."""
    users = pairs[:, 0]
    ends = np.cumsum(np.bincount(users)) if len(users) else np.empty(0, dtype=np.int64)
    from_end: Bool[np.ndarray, " N"] = ends[users] - np.arange(len(users)) <= most
    kept: Int64[np.ndarray, "K 2"] = pairs[from_end]
    return kept


def runs(users: Int64[np.ndarray, "N"]) -> tuple[Shaped[np.ndarray, "S"], ...]:
    """Who occurs in an ascending column, where each begins, and how often: int64 [S] each."""
    who, starts, counts = np.unique(users, return_index=True, return_counts=True)
    return who, starts.astype(np.int64), counts.astype(np.int64)
