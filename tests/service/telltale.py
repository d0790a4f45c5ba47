"""A sampler that takes everything and whose answer tells what it was given, row by row."""

from typing import ClassVar

import torch
from torch import nn

from core.noise import Noise
from core.samplers import Generated, Query
from tests.service.live import DIM

IMAGE, AUDIO, STRATA = 5, 3, 4


class Telltale(nn.Module):
    """Columns of a negative: user, image, audio, stratum, progress, n, then noise."""

    method: ClassVar[str] = "telltale"
    inputs = ("users", "positives", "progress", "popularity")
    inputs += ("item_features.audio", "item_features.image")
    features: ClassVar[dict[str, int]] = {"image": IMAGE, "audio": AUDIO}
    strata = STRATA
    dim, num_steps, device = DIM, 8, torch.device("cpu")

    def summary(self) -> dict[str, object]:
        return {}

    def generate(self, query: Query, n: int, noise: Noise) -> Generated:
        rows = len(query.users)
        missing = -torch.ones(rows)
        image, audio = (query.item_features.get(name) for name in ("image", "audio"))
        told = [
            query.users[:, 0],
            missing if image is None else image.sum(-1),
            missing if audio is None else audio.sum(-1),
            missing if query.popularity is None else query.popularity.float(),
            missing if query.progress is None else torch.full((rows,), query.progress),
            torch.full((rows,), float(n)),
        ]
        known = torch.stack(told, dim=-1)[:, None].expand(rows, n, len(told))
        drawn = noise.normal(n, DIM - len(told))
        weights = torch.linspace(1, 0.5, n).expand(rows, n)
        return Generated(
            torch.cat([known, drawn], dim=-1), torch.arange(rows) % (self.num_steps + 1), weights
        )
