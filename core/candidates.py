"""Candidates that rows share, so that scoring them is one product of matrices.

The rows of a batch are dealt to G groups, row r to group r mod G, and the rows of a group have the
same K candidates. For a row they are what K draws of its own would be, uniform items, but fewer
embeddings are looked up. What rows share costs variety: one item can be the hardest for all of
them. So groups are many, whatever the batch's size, and rows that stand side by side, as the
positions of one sequence do, are of different groups.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.functional import pad

GROUPS = 256  # G, of a batch with as many rows; 24 are too few (docs/quality/ablations.md)


class Hardest(NamedTuple):
    """The candidate that scores highest, of each of a row's k draws.

    Attributes:
        items: int64 [B, k].
        scores: [B, k]; -inf where the row may have none of that draw's candidates.
    """

    items: Int[Tensor, "B k"]
    scores: Float[Tensor, "B k"]


def candidates(
    rows: int, number: int, num_items: int, generator: torch.Generator
) -> Int[Tensor, "G K"]:
    """K = `number` uniform items for each group of `rows`; one may come twice."""
    shape = (min(rows, GROUPS), number)
    return torch.randint(num_items, shape, generator=generator, device=generator.device)


def hardest(
    users: Float[Tensor, "B d"],
    items: Int[Tensor, "G K"],
    embeddings: Float[Tensor, "G K d"],
    draws: int,
    taken: Bool[Tensor, "G R K"] | None = None,
) -> Hardest:
    """Of each row's candidates, K / k to a draw, those that score highest for its user.

    Args:
        users: [B, d], dealt as above.
        items: candidates of each group.
        embeddings: theirs.
        draws: k, which divides K.
        taken: what the r-th row of a group may not have; None forbids nothing.
    """
    scores = grouped(users) @ embeddings.mT
    if taken is not None:
        scores = scores.masked_fill_(taken, -torch.inf)
    many = items.shape[1] // draws
    best = scores.unflatten(2, (draws, many)).max(3)
    place = best.indices + torch.arange(draws, device=items.device) * many
    group = torch.arange(len(items), device=items.device)[:, None, None]
    return Hardest(in_order(items[group, place], len(users)), in_order(best.values, len(users)))


def grouped(rows: Float[Tensor, "B d"]) -> Float[Tensor, "G R d"]:
    """A batch dealt to its groups, each filled up with rows of zeros."""
    groups = min(len(rows), GROUPS)
    dealt = pad(rows, (0, 0, 0, -len(rows) % groups)).view(-1, groups, rows.shape[1])
    return dealt.transpose(0, 1)


def in_order(groups: Shaped[Tensor, "G R *rest"], many: int) -> Shaped[Tensor, "B *rest"]:
    """What each row of a batch of `many` has got, back in the batch's order."""
    return groups.transpose(0, 1).flatten(0, 1)[:many]
