"""What encoders of sequences share: one item table, histories, and states at every position."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.encoders.base import Encoded
from trainer.encoders.lookup import Lookup, rows_of
from trainer.sequences import Ragged, Sequences, last_of_each, runs

CHUNK = 1024  # sequences at once where no gradient is kept


class SequenceEncoder(nn.Module):
    """e_u is the network's state at a position, e_i the next item's row of the input table.

    A kind of network fills in `states`, and calls `initialise` when it has its parameters.

    Args:
        interactions: gives the number of items, and the histories that `tables` reads.
        dim: d.
        max_length: the longest sequence; of a longer history the latest items are read.
        dropout: share of values set to 0 in training, in [0, 1).

    Raises:
        ConfigError: max_length < 1, or dropout outside [0, 1).
    """

    extra_items = 0  # rows of the table beyond the items, for symbols such as a mask

    def __init__(
        self, interactions: Interactions, dim: int, max_length: int = 50, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if max_length < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"max_length = {max_length}, dropout = {dropout}; at least 1, and in [0, 1)"
            )
        self.dim = dim
        self.max_length = max_length
        self.dropout = nn.Dropout(dropout)
        self.num_items = interactions.num_items
        self.items = nn.Parameter(torch.empty(self.num_items + self.extra_items, dim))
        self._interactions = interactions

    def initialise(self, generator: torch.Generator | None) -> None:
        """Xavier for every matrix, 0 for every bias; the rest (norms) stays as it is."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter, generator=generator)
            elif "bias" in name:
                nn.init.zeros_(parameter)

    def states(self, sequences: Sequences, items: Lookup) -> Float[Tensor, "B d"]:
        """The state at each position, from the items up to it, which are looked up in `items`."""
        raise NotImplementedError

    def encode(self, contexts: Sequences) -> Encoded:
        """See `Encoder.encode`."""
        items = rows_of(self.items)
        return Encoded(self.states(contexts, items), items)

    def penalty(self, users: Int[Tensor, " B"], items: Int[Tensor, " M"]) -> Float[Tensor, ""]:
        """See `Encoder.penalty`; users have no parameters of their own."""
        return embedding(items, self.items).square().sum() / (2 * len(users))

    @torch.no_grad()
    def tables(self, split: str = "test") -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """See `Encoder.tables`; a user without a history has a row of zeros."""
        history = self._interactions.train
        if split != "valid":
            history = np.concatenate([history, self._interactions.valid])
            history = history[np.argsort(history[:, 0], kind="stable")]
        pairs = last_of_each(history, self.max_length)
        who, starts, lengths = runs(pairs[:, 0])
        ragged = Ragged(starts, lengths)
        users = self.items.new_zeros(self._interactions.num_users, self.dim)
        look_up = rows_of(self.items)
        for rows in torch.arange(len(who)).split(CHUNK):
            items = torch.from_numpy(pairs[ragged.places(rows), 1]).to(users.device)
            counts = ragged.lengths[rows]
            sequences = Sequences(items, counts.to(users.device), int(counts.max()))
            last = sequences.last(self.states(sequences, look_up))
            users[torch.from_numpy(who)[rows].to(users.device)] = last
        return users, self.items[: self.num_items].detach()
