"""A small encoder to follow: positives are a linear map of users, and noise."""

import time

import torch
from torch import Tensor

from core.pairs import Pairs, encode, stream_key
from trainer.following.config import FollowConfig

DIM = 8
MODEL = "demo"
CONFIG = FollowConfig(
    batch_size=256,
    buffer_rows=4096,
    half_life_rows=2048,
    held_out_rows=512,
    publish_every=50,
    num_steps=10,
    learning_rate=3e-3,
    save_seconds=0.2,
)


class World:
    """Draws rows; `rotation` and `scale` may be changed on the way."""

    def __init__(self, seed: int = 0, dim: int = DIM) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.map = torch.randn(dim, dim, generator=self.generator) / dim**0.5
        self.offset = torch.randn(dim, generator=self.generator)
        self.rotation = torch.eye(dim)
        self.scale = 0.3

    def rotate(self) -> None:
        drawn = torch.randn(self.map.shape, generator=self.generator)
        self.rotation = torch.linalg.qr(drawn)[0]

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        users, noise = torch.randn(2, count, len(self.map), generator=self.generator)
        positives = users @ self.map + 0.3 * noise + self.offset
        return users @ self.rotation * self.scale, positives @ self.rotation * self.scale

    def pairs(self, count: int) -> Pairs:
        return Pairs(MODEL, "v1", *self.rows(count), time.time())

    def send(self, redis, entries: int, rows: int = 64) -> None:
        for _ in range(entries):
            redis.xadd(stream_key(MODEL), encode(self.pairs(rows)))
