"""CL4SRec's augmentations (Xie et al., ICDE 2022): crop, mask, reorder, many sequences at once."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from trainer.sequences import Sequences


def crop(sequences: Sequences, share: float, generator: torch.Generator) -> Sequences:
    """Keeps a run of floor(share * length) items, at least 1, from a random place (Eq. 4).

    Args:
        sequences: to be cropped.
        share: eta, in (0, 1].
        generator: draws the places.
    """
    lengths = _part(sequences, share).clamp(min=1)
    begins = _below(sequences.lengths - lengths + 1, generator)
    after_begin = sequences.places - begins[sequences.owners]
    kept = (after_begin >= 0) & (after_begin < lengths[sequences.owners])
    return Sequences(sequences.items[kept], lengths, int(lengths.max()))


def mask(sequences: Sequences, share: float, symbol: int, generator: torch.Generator) -> Sequences:
    """Replaces floor(share * length) random items by a symbol (Eq. 5).

    Args:
        sequences: to be masked.
        share: gamma, in [0, 1].
        symbol: the mask's id.
        generator: draws which.
    """
    rank = sequences.places[_shuffle(sequences, generator).argsort()]
    masked = rank < _part(sequences, share)[sequences.owners]
    return sequences.replaced(sequences.items.masked_fill(masked, symbol))


def reorder(sequences: Sequences, share: float, generator: torch.Generator) -> Sequences:
    """Shuffles a run of floor(share * length) items at a random place (Eq. 6).

    Args:
        sequences: to be reordered.
        share: beta, in [0, 1].
        generator: draws the place and the order.
    """
    lengths = _part(sequences, share)
    begins = _below(sequences.lengths - lengths + 1, generator)
    after_begin = sequences.places - begins[sequences.owners]
    inside = (after_begin >= 0) & (after_begin < lengths[sequences.owners])
    # Within the run keys are drawn from its own range; elsewhere an item's key is its place.
    starts = sequences.starts[sequences.owners]
    drawn = _uniform(len(starts), generator) * lengths[sequences.owners]
    key = torch.where(inside, begins[sequences.owners] + drawn, sequences.places.double())
    return sequences.replaced(sequences.items[(starts + key).argsort(stable=True)])


def choose(first: Sequences, second: Sequences, take: Bool[Tensor, " S"]) -> Sequences:
    """Sequence by sequence, the second where `take` says so, else the first."""
    lengths = torch.where(take, second.lengths, first.lengths)
    items = torch.cat([first.items, second.items])
    starts = torch.where(take, second.starts + len(first.items), first.starts)
    owners = torch.arange(len(lengths), device=items.device).repeat_interleave(lengths)
    places = torch.arange(len(owners), device=items.device) - (lengths.cumsum(0) - lengths)[owners]
    return Sequences(items[starts[owners] + places], lengths, int(lengths.max()))


def _part(sequences: Sequences, share: float) -> Int[Tensor, " S"]:
    return (share * sequences.lengths).long()


def _uniform(size: int, generator: torch.Generator) -> Float[Tensor, " N"]:
    return torch.rand(size, generator=generator, dtype=torch.float64, device=generator.device)


def _below(bounds: Int[Tensor, " S"], generator: torch.Generator) -> Int[Tensor, " S"]:
    """A whole number in [0, bound) for each bound."""
    return (_uniform(len(bounds), generator) * bounds).long()


def _shuffle(sequences: Sequences, generator: torch.Generator) -> Int[Tensor, " B"]:
    """A permutation of the positions that leaves every sequence its own."""
    return (sequences.owners + _uniform(len(sequences.items), generator)).argsort()
