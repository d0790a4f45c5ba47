"""No method: BPR on sampled negatives."""

from collections.abc import Mapping

from torch import Tensor

from core.losses import bpr
from trainer.methods.base import Ranked, Rows


class Plain:
    """The baseline that every method is compared with."""

    def begin(self, epoch: int) -> None:
        """See `Method.begin`."""

    def learn(self, _: Rows) -> Mapping[str, Tensor]:
        """See `Method.learn`; there is nothing to learn."""
        return {}

    def loss(self, rows: Rows) -> Ranked:
        """See `Method.loss`."""
        return Ranked(bpr(rows.s_ui, rows.s_uj))
