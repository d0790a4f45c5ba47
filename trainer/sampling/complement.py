"""Draws over what a user has not taken, exactly and without rejection."""

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from core.errors import ConfigError


class ComplementNegatives:
    """Item i is drawn with probability proportional to its tickets w_i, train items excluded.

    Tickets are numbered item by item: i has those from W_i = w_0 + ... + w_{i-1} on. Of a user's
    items o_0 < o_1 < ..., there are W_{o_j} - (w_{o_0} + ... + w_{o_{j-1}}) free tickets below o_j.
    So the r-th free ticket is r plus the tickets of every o_j with that number <= r, which one
    binary search finds. All of it in whole numbers: nothing that was taken is ever drawn.

    Args:
        train: int64 [N, 2], pairs (user, item), none twice.
        num_users: U.
        tickets: int64 [I], at least 0 each; their sum times U below 2^63.
        device: where users will be given and negatives wanted.

    Raises:
        ConfigError: a user's items hold every ticket, so that no negative exists.
    """

    def __init__(
        self,
        train: Int64[np.ndarray, "N 2"],
        num_users: int,
        tickets: Int64[np.ndarray, "I"],
        device: torch.device | str = "cpu",
    ) -> None:
        users, items = train[np.lexsort((train[:, 1], train[:, 0]))].T
        taken = np.concatenate([[0], np.cumsum(tickets[items])])  # before each pair, and all
        starts = np.searchsorted(users, np.arange(num_users + 1))
        free = tickets.sum() - np.diff(taken[starts])
        full = np.flatnonzero(free <= 0)
        if len(full):
            count = np.bincount(train[:, 0], minlength=num_users)[full[0]]
            raise ConfigError(
                f"user {full[0]} has taken all {count} items that could be drawn and has no "
                f"negative; leave out the {len(full)} user(s) of that kind"
            )
        first = np.cumsum(tickets) - tickets
        free_below = first[items] - (taken[:-1] - taken[starts[users]])
        self._stride = int(tickets.sum()) + 1  # free_below is less, so users' keys keep apart
        self._keys = torch.from_numpy(users * self._stride + free_below).to(device)
        self._taken = torch.from_numpy(taken).to(device)
        self._taken_before = torch.from_numpy(taken[starts[:-1]]).to(device)
        self._free = torch.from_numpy(free).to(device)
        self._first = torch.from_numpy(first).to(device)

    def sample(
        self, users: Int[Tensor, "*rows"], generator: torch.Generator
    ) -> Int[Tensor, "*rows"]:
        """See `Source.sample`; as many numbers are drawn as there are entries."""
        # 53 random bits: no ticket is likelier than another by more than their number / 2^53;
        # rand < 1 and the product rounds below `free`.
        uniform = torch.rand(
            users.shape, generator=generator, dtype=torch.float64, device=users.device
        )
        r = (uniform * self._free[users]).long()
        found = torch.searchsorted(self._keys, users * self._stride + r, right=True)
        return self._item(r + self._taken[found] - self._taken_before[users])

    def _item(self, ticket: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
        """Whose ticket it is."""
        return torch.searchsorted(self._first, ticket, right=True) - 1


class UniformNegatives(ComplementNegatives):
    """Every item that the user has not taken is equally likely: one ticket each.

    Args:
        train: int64 [N, 2], pairs (user, item), none twice.
        num_users: U.
        num_items: I.
        device: where users will be given and negatives wanted.
    """

    def __init__(
        self,
        train: Int64[np.ndarray, "N 2"],
        num_users: int,
        num_items: int,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(train, num_users, np.ones(num_items, dtype=np.int64), device)

    def _item(self, ticket: Int[Tensor, "*rows"]) -> Int[Tensor, "*rows"]:
        return ticket


class PopularNegatives(ComplementNegatives):
    """Likelier the more users took an item: the number of them to the power 0.75.

    The power is word2vec's (Mikolov et al. 2013). What nobody took in train is never drawn.

    Args:
        train: int64 [N, 2], pairs (user, item), none twice.
        num_users: U.
        num_items: I.
        device: where users will be given and negatives wanted.
    """

    POWER = 0.75
    PRECISION = 1024  # tickets of an item that one user took: rounding moves no weight by 0.05 %

    def __init__(
        self,
        train: Int64[np.ndarray, "N 2"],
        num_users: int,
        num_items: int,
        device: torch.device | str = "cpu",
    ) -> None:
        counts = np.bincount(train[:, 1], minlength=num_items)
        tickets = np.rint(self.PRECISION * counts**self.POWER).astype(np.int64)
        super().__init__(train, num_users, tickets, device)
