"""What the co-training loop asks of an encoder, so that anybody's own `nn.Module` can be one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from trainer.encoders.lookup import Lookup


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder makes of a batch: embeddings whose inner product is the score.

    Items are looked up when they are wanted: a graph is propagated once a step, and only the rows
    that are looked up with gradient cost a backward pass.

    Attributes:
        users: float [B, d], e_u of each row, with gradient.
        items: embeddings [..., d] of items [...], with gradient.
        layers: gives what each layer of a graph adds to an item's embedding, look-ups whose sum is
            `items`; None where there are no layers.
    """

    users: Float[Tensor, "B d"]
    items: Lookup
    layers: Callable[[], tuple[Lookup, ...]] | None = None


@runtime_checkable
class Encoder(Protocol):
    """Turns users, or sequences, and items into embeddings whose inner product is the score.

    The first four members are the encoder's own; the others come with `nn.Module`.
    """

    dim: int  # d, the width of every embedding

    def encode(self, contexts: Any) -> Encoded:
        """Embeddings of a batch, with gradient.

        Args:
            contexts: int64 [B], users in [0, U); or `Sequences` of B positions, for an encoder that
                `ReadsSequences`.
        """
        ...

    def penalty(self, users: Int[Tensor, " B"], items: Int[Tensor, " M"]) -> Float[Tensor, ""]:
        """Half the squared L2 norm of the raw parameters of these ids, over B; with gradient.

        Args:
            users: int64 [B], repetitions count again.
            items: int64 [M].

        Returns:
            float scalar, to be multiplied by the L2 weight; not asked for where that is 0.
        """
        ...

    def tables(self, split: str = "test", /) -> tuple[Float[Tensor, "U d"], Float[Tensor, "I d"]]:
        """Final embeddings of every user and every item, without gradient.

        Args:
            split: what is held out. Only an encoder of sequences cares: a user's sequence is
                everything before it, so on any split but "valid" the validation item is its last.
        """
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


@runtime_checkable
class ReadsSequences(Protocol):
    """An encoder whose contexts are `Sequences`; the loop then gives it every train position."""

    max_length: int  # the longest sequence that it reads


@runtime_checkable
class HasAuxiliary(Protocol):
    """An encoder with a loss of its own beside the ranking loss."""

    def auxiliary(self, contexts: Any, generator: torch.Generator) -> Float[Tensor, ""]:
        """A loss on a batch's contexts, weighted, with gradient.

        Args:
            contexts: those of the batch, see `Encoder.encode`.
            generator: draws what the loss needs; on the encoder's device.
        """
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
