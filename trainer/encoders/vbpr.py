"""VBPR (He and McAuley, AAAI 2016): matrix factorisation beside a projection of items' features."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding

from core.errors import ConfigError
from trainer.data import Interactions
from trainer.encoders.base import Encoded
from trainer.encoders.lookup import rows_of
from trainer.encoders.mf import xavier
from trainer.features import standardised


class VBPR(nn.Module):
    """VBPR: e_u = [gamma_u ; theta_u], e_i = [gamma_i ; E f_i], Xavier-initialised.

    Their inner product is the paper's Eq. 4 without its biases. Those would be coordinates that are
    1 for every user, which is no embedding that a diffusion model should learn; alpha and beta_u
    change no ranking in any case. Half of d is matrix factorisation, the other half looks. f_i are
    all modalities, standardised, side by side, divided by their number: Adam moves every entry of E
    alike, and E f_i shall not move further in a step than gamma_i does.

    Args:
        interactions: gives the sizes and the features.
        dim: d, even.
        generator: draws the first values; the global one where none is given.

    Raises:
        ConfigError: d is odd, or there are no features.
    """

    features: Tensor

    def __init__(
        self,
        interactions: Interactions,
        dim: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        half, rest = divmod(dim, 2)
        if rest:
            raise ConfigError(f"dim = {dim}; VBPR has two halves, so dim must be even")
        tables = interactions.known_features("vbpr").values()
        side_by_side = np.concatenate([*map(standardised, tables)], axis=1)
        features = torch.from_numpy(side_by_side / side_by_side.shape[1])
        self.dim = dim
        self.users = nn.Parameter(xavier(interactions.num_users, dim, generator))
        self.items = nn.Parameter(xavier(interactions.num_items, half, generator))
        self.projection = nn.Parameter(xavier(half, features.shape[1], generator))
        # Follows from the data, so a checkpoint need not keep it.
        self.register_buffer("features", features, persistent=False)

    def encode(self, users: Int[Tensor, " B"]) -> Encoded:
        """See `Encoder.encode`."""
        return Encoded(embedding(users, self.users), rows_of(self._items()))

    def penalty(self, users: Int[Tensor, " B"], items: Int[Tensor, " M"]) -> Float[Tensor, ""]:
        """See `Encoder.penalty`; the projection belongs to no id and goes free."""
        own, theirs = embedding(users, self.users), embedding(items, self.items)
        return (own.square().sum() + theirs.square().sum()) / (2 * len(users))

    @torch.no_grad()
    def tables(self, _split: str = "test") -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """See `Encoder.tables`."""
        return self.users.detach(), self._items()

    def _items(self) -> Float[Tensor, "I d"]:
        """Everybody at once: less work than the candidates of a batch, which are many."""
        return torch.cat([self.items, self.features @ self.projection.T], dim=1)
