"""The shared candidates of `core.candidates`, and which of them a row's user has taken."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from core.candidates import candidates

MARKS = 2**20  # a power of two; see `SharedCandidates._taken`


class Candidates(NamedTuple):
    """K uniform items for each of G groups of rows.

    Attributes:
        items: int64 [G, K]; one may come twice.
        taken: bool [G, R, K], whether the user of a group's r-th row has taken the item in train.
    """

    items: Int[Tensor, "G K"]
    taken: Bool[Tensor, "G R K"]


class SharedCandidates:
    """Draws the candidates of a batch and knows the train pairs.

    Args:
        train: int64 [N, 2], pairs (user, item).
        num_users: U.
        num_items: I.
        device: where users will be given and candidates wanted.
    """

    def __init__(
        self,
        train: Int64[np.ndarray, "N 2"],
        num_users: int,
        num_items: int,
        device: torch.device | str = "cpu",
    ) -> None:
        users, items = train[np.argsort(train[:, 0], kind="stable")].T
        starts = np.searchsorted(users, np.arange(num_users + 1))
        self._items = torch.from_numpy(items.copy()).to(device)
        self._starts = torch.from_numpy(starts).to(device)
        self._num_items = num_items

    def draw(self, users: Int[Tensor, " B"], number: int, generator: torch.Generator) -> Candidates:
        """K = `number` items for each group.

        Args:
            users: int64 [B], of the rows.
            number: K.
            generator: the only source of randomness; on the device of `users`.
        """
        items = candidates(len(users), number, self._num_items, generator)
        return Candidates(items, self._taken(users, items))

    def _taken(self, users: Int[Tensor, " B"], items: Int[Tensor, "G K"]) -> Bool[Tensor, "G R K"]:
        """Look every item that a row's user took up among the row's candidates."""
        groups, number = items.shape
        row, owned = self._owned(users)
        offsets = torch.arange(groups, device=users.device).unsqueeze(1) * self._num_items
        keys, slots = (items + offsets).flatten().sort()
        wanted = row % groups * self._num_items + owned
        # Nearly nothing that is wanted was drawn, and the last bits of most of it were not drawn.
        drawn = torch.zeros(MARKS, dtype=torch.bool, device=users.device)
        drawn[keys & (MARKS - 1)] = True
        likely = drawn[wanted & (MARKS - 1)]
        row, wanted = row[likely], wanted[likely]
        first = torch.searchsorted(keys, wanted)
        many = torch.searchsorted(keys, wanted, right=True) - first  # as often as it was drawn
        found = first.repeat_interleave(many) + _places(many)
        rows = -(-len(users) // groups)
        taken = torch.zeros(groups, rows, number, dtype=torch.bool, device=users.device)
        row = row.repeat_interleave(many)
        taken[row % groups, row // groups, slots[found] % number] = True
        return taken

    def _owned(self, users: Int[Tensor, " B"]) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
        """(row, item) of all that the rows' users took."""
        begin = self._starts[users]
        many = self._starts[users + 1] - begin
        row = torch.arange(len(users), device=users.device).repeat_interleave(many)
        return row, self._items[begin[row] + _places(many)]


def _places(many: Int[Tensor, " n"]) -> Int[Tensor, " P"]:
    """0, 1, ..., many[0] - 1, 0, 1, ..., many[1] - 1, and so on."""
    begin = (many.cumsum(0) - many).repeat_interleave(many)
    return torch.arange(len(begin), device=many.device) - begin
