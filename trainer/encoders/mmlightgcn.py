"""GDNSM's encoder: LightGCN beside FREEDOM's (MM 2023) frozen graphs of items that look alike."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from trainer.data import Interactions
from trainer.encoders.graph import product
from trainer.encoders.lightgcn import LightGCN
from trainer.encoders.lookup import Lookup, rows_of
from trainer.encoders.neighbours import NEIGHBOURS, item_graph


class MultiModalLightGCN(LightGCN):
    """h_u is LightGCN's; h_i is LightGCN's + S E_i, one step from the ID embeddings over S.

    S = sum_m w_m S_m is frozen: a normalised graph of k nearest items in each modality m.

    Differs from GDNSM, whose h_i is id + (.1 image + .9 text) / 3: the default weights were chosen
    on validation for the modalities at hand (docs/encoders.md). There is no InfoNCE.

    Args:
        interactions: gives the graph of train, and the features.
        dim: d.
        num_layers: L >= 0, of LightGCN.
        weights: w_m by modality; default: 1 each.
        neighbours: k.
        generator: draws the first values; the global one where none is given.

    Raises:
        ConfigError: there are no features.
    """

    alike: Tensor

    def __init__(
        self,
        interactions: Interactions,
        dim: int,
        num_layers: int = 3,
        weights: Mapping[str, float] | None = None,
        neighbours: int = NEIGHBOURS,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        features = interactions.known_features("mmlightgcn")
        sizes = interactions.num_users, interactions.num_items
        super().__init__(interactions.train, *sizes, dim, num_layers, generator=generator)
        weights = weights or dict.fromkeys(features, 1.0)
        # Follows from the data, so a checkpoint need not keep it.
        self.register_buffer("alike", item_graph(features, weights, neighbours), persistent=False)

    def _final(self) -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        users, items = super()._final()
        return users, items + self._from_alike()

    def _layers(self) -> tuple[Lookup, ...]:
        return (*super()._layers(), rows_of(self._from_alike()))

    def _from_alike(self) -> Float[Tensor, "I d"]:
        return product(self.alike, self.table[self.num_users :])
