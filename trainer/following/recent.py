"""The latest rows of a stream: a ring that is drawn from with a preference for what is new."""

import torch
from jaxtyping import Float
from torch import Tensor

Rows = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]  # users, positives


class Recent:
    """At most `capacity` rows of users and positives, the oldest falling out.

    Args:
        capacity: rows, at least 1.
        dim: d.
        device: where they are kept.
    """

    def __init__(self, capacity: int, dim: int, device: str = "cpu") -> None:
        self.capacity = capacity
        self._rows = torch.zeros(capacity, 2, dim, device=device)
        self._next = 0  # where the next row goes
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, users: Float[Tensor, "B d"], positives: Float[Tensor, "B d"]) -> Rows:
        """Take rows in, oldest first; what falls out, oldest first."""
        fresh = torch.stack([users, positives], 1).to(self._rows)
        surplus = max(0, self._count + len(fresh) - self.capacity)
        if surplus > self._count:  # some of the fresh rows only pass through
            out = torch.cat([self._ordered(), fresh[: surplus - self._count]])
            fresh = fresh[surplus - self._count :]
        else:
            out = self._ordered()[:surplus]
        where = (self._next + torch.arange(len(fresh), device=fresh.device)) % self.capacity
        self._rows[where] = fresh
        self._next = (self._next + len(fresh)) % self.capacity
        self._count = min(self._count + len(fresh), self.capacity)
        return out[:, 0], out[:, 1]

    def all(self) -> Rows:
        """Everything, oldest first."""
        rows = self._ordered()
        return rows[:, 0], rows[:, 1]

    def clear(self) -> None:
        """Forget everything."""
        self._next = self._count = 0

    def draw(self, count: int, half_life: int, generator: torch.Generator) -> Rows:
        """Rows with repetition; one of age a, in rows, with a chance in proportion to 2^(-a/h).

        Args:
            count: rows wanted.
            half_life: h.
            generator: on the rows' device.
        """
        share = torch.rand(
            count, dtype=torch.float64, generator=generator, device=self._rows.device
        )
        rest = share * (1 - 2.0 ** (-self._count / half_life))  # the inverse of the truncated law
        age = (-half_life * torch.log2(1 - rest)).long().clamp(max=self._count - 1)
        rows = self._rows[(self._next - 1 - age) % self.capacity]
        return rows[:, 0], rows[:, 1]

    def _ordered(self) -> Float[Tensor, "n 2 d"]:
        oldest = self._next - self._count
        where = torch.arange(oldest, self._next, device=self._rows.device) % self.capacity
        return self._rows[where]
