"""Full-ranking evaluation: Recall and NDCG over every item the user has not taken yet."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from core.errors import ConfigError
from trainer.data import Interactions

CELLS = 1 << 23  # scores held at once, 32 MiB


@dataclass(frozen=True)
class PerUser:
    """Metrics before they are averaged.

    Attributes:
        users: int64 [V], those with something held out, ascending.
        metrics: "recall@k" and "ndcg@k" for each k, float64 [V], fractions in [0, 1].
    """

    users: Int64[np.ndarray, "V"]
    metrics: dict[str, Float64[np.ndarray, "V"]]

    def mean(self) -> dict[str, float]:
        """Over users."""
        return {name: float(values.mean()) for name, values in self.metrics.items()}


def evaluate(
    users_table: Float[Tensor, "U d"],
    items_table: Float[Tensor, "I d"],
    interactions: Interactions,
    split: str,
    ks: tuple[int, ...] = (10, 20),
) -> dict[str, float]:
    """What `evaluate_users` finds, averaged over users."""
    return evaluate_users(users_table, items_table, interactions, split, ks).mean()


@torch.no_grad()
def evaluate_users(
    users_table: Float[Tensor, "U d"],
    items_table: Float[Tensor, "I d"],
    interactions: Interactions,
    split: str,
    ks: tuple[int, ...] = (10, 20),
) -> PerUser:
    """Recall@k and NDCG@k of each user, by the inner product of the tables.

    A held-out item's rank is 1 + the number of other items, train items left out, that score at
    least as high: ties count against the model. On any split but "valid", validation items are
    left out as well. Scores are float32; NaN and -inf rank last and are never a hit. NDCG is
    relative to the best that min(k, number held out) hits could reach. Users with nothing held out
    have no metrics.

    Args:
        users_table: float [U, d].
        items_table: float [I, d], on the same device.
        interactions: the data set; U and I are its own.
        split: "valid", "test", or the name of one of its extra tests.
        ks: cut-offs >= 1.

    Raises:
        ConfigError: there is no such split, it is empty, a cut-off is below 1, or the tables do not
            have one row for each user and item.
    """
    shape = (len(users_table), len(items_table))
    if shape != (interactions.num_users, interactions.num_items):
        raise ConfigError(
            f"tables of {shape[0]} users and {shape[1]} items do not fit a data set of "
            f"{interactions.num_users} users and {interactions.num_items} items; an encoder's "
            "tables must have a row for each"
        )
    if not ks or min(ks) < 1:
        raise ConfigError(f"cut-offs must be at least 1, not {ks}")
    held, masked = _pairs(interactions, split)
    users_table, items_table = users_table.float(), items_table.float()
    users, sizes = np.unique(held[:, 0], return_counts=True)
    depth = min(max(ks) + 1, len(items_table))
    step = max(1, CELLS // len(items_table))
    ranks = []
    for start in range(0, len(users), step):
        chunk = users[start : start + step]
        scores = users_table[torch.from_numpy(chunk).to(users_table.device)] @ items_table.T
        ranks.append(_ranks(scores, _rows(chunk, held), _rows(chunk, masked), depth))
    row = np.repeat(np.arange(len(users)), sizes)
    rank = torch.cat(ranks).cpu().numpy()
    gain = 1.0 / np.log2(np.arange(1, max(ks) + 1) + 1.0)
    metrics: dict[str, np.ndarray] = {}
    for k in ks:
        hit = rank <= k
        hits = np.bincount(row[hit], minlength=len(users))
        dcg = np.bincount(row[hit], weights=gain[rank[hit] - 1], minlength=len(users))
        ideal = np.cumsum(gain)[np.minimum(sizes, k) - 1]
        metrics[f"recall@{k}"] = hits / sizes
        metrics[f"ndcg@{k}"] = dcg / ideal
    return PerUser(users, metrics)


def _ranks(
    scores: Float[Tensor, "C I"], held: np.ndarray, masked: np.ndarray, depth: int
) -> Int64[Tensor, "H"]:
    """Ranks of the held-out items of C users; those of `depth` and beyond are not exact.

    An item's rank is the number of scores, its own included, that are at least its own. Counting
    among the `depth` best is enough to know every rank below `depth`.

    Args:
        scores: float32 [C, I]; altered in place.
        held: int64 [H, 2], (row of `scores`, item).
        masked: int64 [M, 2], the same, what is left out of the ranking.
        depth: one more than the largest cut-off, or I where that is less.

    Returns:
        int64 [H].
    """
    held_at, masked_at = (
        torch.from_numpy(pairs).to(scores.device).unbind(1) for pairs in (held, masked)
    )
    scores.masked_fill_(scores.isnan(), -torch.inf)
    scores[masked_at] = -torch.inf
    own = scores[held_at]
    best = scores.topk(depth, sorted=False).values
    rank = (best[held_at[0]] >= own[:, None]).sum(1)
    return rank.masked_fill(own == -torch.inf, torch.iinfo(rank.dtype).max)


def _rows(users: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The pairs of these users as [P, 2] (row in `users`, item); both arguments ascend by user."""
    low, high = np.searchsorted(pairs[:, 0], [users[0], users[-1] + 1])
    mine = pairs[low:high]
    row = np.searchsorted(users, mine[:, 0])
    kept = users[row] == mine[:, 0]
    return np.stack([row[kept], mine[kept, 1]], axis=1)


def _pairs(interactions: Interactions, split: str) -> tuple[np.ndarray, np.ndarray]:
    """What is held out and what is masked, both by user."""
    splits = {"valid": interactions.valid, "test": interactions.test, **interactions.extra_tests}
    if split not in splits:
        raise ConfigError(f"no split is called {split!r}; there are {', '.join(splits)}")
    if not len(splits[split]):
        raise ConfigError(
            f"the split {split!r} of {interactions.name} is empty; choose another, or give it data"
        )
    masked = interactions.train
    if split != "valid":
        masked = np.concatenate([masked, interactions.valid])
        masked = masked[np.argsort(masked[:, 0], kind="stable")]
    return splits[split], masked
