"""What the samplers beside ADAR have in common: sizes, and running scales of the embeddings."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from core.errors import ConfigError

EMA_BATCHES = 100  # the running scales remember about this many batches
TINY = (
    1e-12  # RMS of an all-zero batch; far below any trained table (1e-3..10), above float32's 1e-38
)


class Scaled(nn.Module):
    """`user_rms` and `item_rms`, by which embeddings are divided before a denoiser sees them.

    They are moments over recent training batches and part of the checkpoint. A plain mean until
    `EMA_BATCHES` batches are seen.

    Args:
        dim: d.
        num_steps: T.
        standardize: False leaves both at 1.

    Raises:
        ConfigError: d below 1.
    """

    user_rms: Tensor
    item_rms: Tensor
    batches: Tensor

    def __init__(self, dim: int, num_steps: int, *, standardize: bool = True) -> None:
        super().__init__()
        if dim < 1:
            raise ConfigError(f"dim = {dim}; it must be at least 1")
        self._sizes = (dim, num_steps)
        self._standardize = standardize
        for name in ("user_rms", "item_rms"):
            self.register_buffer(name, torch.tensor(1.0))
        self.register_buffer("batches", torch.tensor(0))

    @property
    def dim(self) -> int:
        """d."""
        return self._sizes[0]

    @property
    def num_steps(self) -> int:
        """T."""
        return self._sizes[1]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.user_rms.device

    @property
    def scales(self) -> dict[str, float]:
        """The running scales, for the manifest."""
        return {"user_rms": float(self.user_rms), "item_rms": float(self.item_rms)}

    @torch.no_grad()
    def observe(self, users: Float[Tensor, "B d"], positives: Float[Tensor, "B d"]) -> None:
        """Move the running scales towards this batch."""
        self.batches += 1
        if self._standardize:
            rate = 1 / self.batches.clamp(max=EMA_BATCHES)
            move(self.user_rms, users.square().mean(), rate)
            move(self.item_rms, positives.square().mean(), rate)


def move(rms: Tensor, mean_square: Tensor, rate: Tensor) -> None:
    """Move an RMS towards that of a batch, in place."""
    rms.copy_(rms.square().lerp(mean_square, rate).sqrt().clamp_min(TINY))
