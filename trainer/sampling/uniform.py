"""Uniform negatives: every item that the user has not taken in train is equally likely."""

import numpy as np
import torch
from jaxtyping import Int, Int64
from torch import Tensor

from core.errors import ConfigError


class UniformNegatives:
    """Draws uniformly over the complement of each user's train items, without rejection.

    With a user's items sorted, o_0 < o_1 < ..., there are o_j - j free items below o_j. So the r-th
    free item is r plus the number of j with o_j - j <= r, which one binary search finds.

    Args:
        train: int64 [N, 2], pairs (user, item), none twice.
        num_users: U.
        num_items: I.
        device: where users will be given and negatives wanted.

    Raises:
        ConfigError: a user has taken every item, so that no negative exists.
    """

    def __init__(
        self,
        train: Int64[np.ndarray, "N 2"],
        num_users: int,
        num_items: int,
        device: torch.device | str = "cpu",
    ) -> None:
        taken = np.bincount(train[:, 0], minlength=num_users)
        full = np.flatnonzero(taken >= num_items)
        if len(full):
            raise ConfigError(
                f"user {full[0]} has taken all {num_items} items and has no negative; "
                f"leave out the {len(full)} user(s) of that kind"
            )
        users, items = train[np.lexsort((train[:, 1], train[:, 0]))].T
        starts = np.cumsum(taken) - taken
        free_below = items - (np.arange(len(items)) - starts[users])
        self._stride = num_items + 1  # free_below is in [0, I], so a user's keys keep to themselves
        self._keys = torch.from_numpy(users * self._stride + free_below).to(device)
        self._starts = torch.from_numpy(starts).to(device)
        self._free = torch.from_numpy(num_items - taken).to(device)

    def sample(self, users: Int[Tensor, "B"], generator: torch.Generator) -> Int[Tensor, "B"]:
        """See `NegativePicker.sample`; exact, and B numbers are drawn whatever the users own."""
        # 53 random bits: no item is likelier than another by more than I / 2^53; rand < 1 and the
        # product rounds below `free`.
        uniform = torch.rand(
            users.shape, generator=generator, dtype=torch.float64, device=users.device
        )
        r = (uniform * self._free[users]).long()
        found = torch.searchsorted(self._keys, users * self._stride + r, right=True)
        return r + found - self._starts[users]
