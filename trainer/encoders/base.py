"""What the co-training loop asks of an encoder, so that anybody's own `nn.Module` can be one."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn


@runtime_checkable
class Encoder(Protocol):
    """Turns user and item ids into embeddings whose inner product is the score.

    The first four members are the encoder's own; the others come with `nn.Module`.
    """

    dim: int  # d, the width of every embedding

    def encode(
        self, users: Int[Tensor, "B"], items: Int[Tensor, "M"]
    ) -> tuple[Float[Tensor, "B d"], Float[Tensor, "M d"]]:
        """Embeddings of some users and items, with gradient.

        Args:
            users: int64 [B], ids in [0, U).
            items: int64 [M], ids in [0, I): positives and negatives together, so that a graph is
                propagated once a step.

        Returns:
            float [B, d] and float [M, d].
        """
        ...

    def penalty(self, users: Int[Tensor, "B"], items: Int[Tensor, "M"]) -> Float[Tensor, ""]:
        """Half the squared L2 norm of the raw parameters of these ids, over B; with gradient.

        Args:
            users: int64 [B], repetitions count again.
            items: int64 [M].

        Returns:
            float scalar, to be multiplied by the L2 weight.
        """
        ...

    def tables(self) -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """Final embeddings of every user and every item, without gradient."""
        ...

    def parameters(self, recurse: bool = ...) -> Iterator[nn.Parameter]:
        """What the optimiser moves."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = ...) -> object:
        """Takes back what `state_dict` gave."""
        ...

    def train(self, mode: bool = ...) -> "Encoder":
        """Switches dropout and the like on."""
        ...

    def eval(self) -> "Encoder":
        """Switches dropout and the like off."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> "Encoder":
        """Moves everything to a device."""
        ...


def half_squared_norm(
    users: Float[Tensor, "B d"], items: Float[Tensor, "M d"]
) -> Float[Tensor, ""]:
    """(|e_u|^2 + |e_i|^2) / 2B, the regulariser of LightGCN's Eq. 15 over one mini-batch.

    Args:
        users: float [B, d], raw embeddings of the batch's users.
        items: float [M, d], of its items.

    Returns:
        float scalar.
    """
    return (users.square().sum() + items.square().sum()) / (2 * len(users))
