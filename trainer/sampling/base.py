"""What the co-training loop asks of a picker of negatives."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor


@runtime_checkable
class NegativePicker(Protocol):
    """Picks one item a row that the user has not taken.

    A picker that ranks candidates by score (DNS, AHNS) draws them from `UniformNegatives` and holds
    the encoder it scores with; the loop sees this one method.
    """

    def sample(self, users: Int[Tensor, "B"], generator: torch.Generator) -> Int[Tensor, "B"]:
        """One negative item for each row.

        Args:
            users: int64 [B], ids in [0, U).
            generator: the only source of randomness; on the device of `users`.

        Returns:
            int64 [B], ids in [0, I).
        """
        ...
