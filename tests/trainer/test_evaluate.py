import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.errors import ConfigError
from trainer.data import Interactions, load
from trainer.evaluate import evaluate, evaluate_users

U, M = 12, 30


def random_data(seed: int = 0) -> Interactions:
    """Every user's 9 items: 5 to learn from, then 1 (some users), then the rest held out."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[tuple[int, int]]] = {"train": [], "valid": [], "test": [], "extra": []}
    for user in range(U):
        items = rng.permutation(M)[: rng.integers(6, 10)]
        parts["train"] += [(user, item) for item in items[:5]]
        valid = items[5:6] if user % 3 else []
        parts["valid"] += [(user, item) for item in valid]
        parts["test"] += [(user, item) for item in items[6:]]  # empty for some users
        parts["extra"] += [(user, item) for item in rng.permutation(M) if item not in items][:2]
    arrays = {name: np.array(pairs, dtype=np.int64) for name, pairs in parts.items()}
    extra = {"test_ood": arrays.pop("extra")}
    labels = np.arange(U).astype(str), np.arange(M).astype(str)
    return Interactions("random", U, M, **arrays, user_labels=labels[0], item_labels=labels[1],
                        extra_tests=extra)  # fmt: skip


def by_hand(scores: Tensor, data: Interactions, split: str, k: int) -> tuple[float, float]:
    """The definition, one user and one item at a time."""
    held = {"valid": data.valid, "test": data.test, **data.extra_tests}[split]
    masked = data.train if split == "valid" else np.concatenate([data.train, data.valid])
    recalls, ndcgs = [], []
    for user in range(data.num_users):
        mine = [item for owner, item in held if owner == user]
        left_out = {item for owner, item in masked if owner == user}
        if not mine:
            continue
        dcg, hits = 0.0, 0
        for item in mine:
            others = [o for o in range(data.num_items) if o != item and o not in left_out]
            rank = 1 + sum(bool(scores[user, o] >= scores[user, item]) for o in others)
            if rank <= k:
                hits, dcg = hits + 1, dcg + 1 / math.log2(rank + 1)
        recalls.append(hits / len(mine))
        ndcgs.append(dcg / sum(1 / math.log2(r + 1) for r in range(1, min(k, len(mine)) + 1)))
    return float(np.mean(recalls)), float(np.mean(ndcgs))


def tables_of(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Tables whose inner products are exactly these scores."""
    return scores, torch.eye(scores.shape[1])


@pytest.mark.parametrize("split", ["valid", "test", "test_ood"])
@pytest.mark.parametrize("levels", [3, 10, 10_000])  # the fewer levels, the more ties
@pytest.mark.parametrize("chunk", [1, 5, 1000])  # users at a time
def test_agrees_with_the_definition(
    split: str, levels: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.evaluate.CELLS", chunk * M)
    data = random_data()
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (U, M), generator=generator).float()
    result = evaluate(*tables_of(scores), data, split, ks=(1, 4, 29, 30, 99))
    assert list(result)[:4] == ["recall@1", "ndcg@1", "recall@4", "ndcg@4"]
    for k in (1, 4, 29, 30, 99):
        expected = by_hand(scores, data, split, k)
        assert (result[f"recall@{k}"], result[f"ndcg@{k}"]) == pytest.approx(expected)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_each_user_has_the_metrics_of_a_data_set_of_its_own(split: str) -> None:
    data = random_data()
    scores = torch.randint(10, (U, M), generator=torch.Generator().manual_seed(0)).float()
    found = evaluate_users(*tables_of(scores), data, split)
    held = {"valid": data.valid, "test": data.test}[split]
    assert found.users.tolist() == sorted({int(user) for user, _ in held})
    for place, user in enumerate(found.users):
        alone = {split: held[held[:, 0] == user]}
        expected = by_hand(scores, replace(data, **alone), split, 20)
        told = [found.metrics[name][place] for name in ("recall@20", "ndcg@20")]
        assert told == pytest.approx(expected)
    assert found.mean() == evaluate(*tables_of(scores), data, split)


def perfect(data: Interactions) -> Tensor:
    """Held-out items above all others, all scores different, train items above even those."""
    scores = torch.arange(M).float().repeat(U, 1)
    scores[tuple(torch.from_numpy(data.test).T)] += 100
    scores[tuple(torch.from_numpy(data.train).T)] += 1000
    scores[tuple(torch.from_numpy(data.valid).T)] += 1000
    return scores


def test_a_perfect_ranking_scores_one() -> None:
    data = random_data()
    result = evaluate(*tables_of(perfect(data)), data, "test")
    assert set(result) == {"recall@10", "ndcg@10", "recall@20", "ndcg@20"}
    assert all(value == pytest.approx(1.0) for value in result.values())


def test_validation_items_compete_only_on_validation() -> None:
    data = random_data()
    assert evaluate(*tables_of(perfect(data)), data, "valid", ks=(1,))["recall@1"] == 1.0
    assert evaluate(*tables_of(-perfect(data)), data, "test", ks=(1,))["recall@1"] == 0.0


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_model_that_tells_nothing_apart_scores_zero(value: float) -> None:
    scores = torch.full((U, M), value)
    users, items = scores[:, :1], torch.ones(M, 1)
    assert set(evaluate(users, items, random_data(), "test").values()) == {0.0}


def test_a_bad_item_is_no_hit_and_stands_in_nobodys_way() -> None:
    data = random_data()
    bad = int(data.test[0, 1])
    scores = perfect(data)
    users, items = torch.cat([scores, torch.ones(U, 1)], 1), torch.eye(M, M + 1)
    good = evaluate(users, items, data, "test", ks=(M,))["recall@30"]
    items[bad, -1] = math.nan  # its score is NaN for every user
    _, size = np.unique(data.test[:, 0], return_counts=True)
    share = [1 / size[owner] for owner in owners(data.test, bad)]
    result = evaluate(users, items, data, "test", ks=(M,))["recall@30"]
    assert good == 1.0
    assert result == pytest.approx(1.0 - sum(share) / len(size))


def owners(pairs: np.ndarray, item: int) -> np.ndarray:
    """Which of the users of these pairs have the item, counted among those users."""
    return np.searchsorted(np.unique(pairs[:, 0]), pairs[pairs[:, 1] == item, 0])


def test_a_half_precision_table_is_scored_in_float32() -> None:
    # 2048 and 2049 are the same number in float16, so their sum tells them apart in float32 only.
    data = random_data()
    users = torch.ones(U, 2, dtype=torch.float16)
    items = torch.stack([torch.full((M,), 2048.0), torch.arange(M).float()], 1).half()
    expected = by_hand(2048.0 + torch.arange(M).float().repeat(U, 1), data, "test", 10)
    result = evaluate(users, items, data, "test", ks=(10,))
    assert (result["recall@10"], result["ndcg@10"]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("split", "ks", "rows", "message"),
    [
        ("dev", (10,), M, "'dev'; there are valid, test, test_ood"),
        ("test", (0, 10), M, "cut-offs"),
        ("test", (), M, "cut-offs"),
        ("test", (10,), M - 1, "29 items do not fit"),
    ],
)
def test_what_cannot_be_evaluated(split: str, ks: tuple[int, ...], rows: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(torch.zeros(U, 2), torch.zeros(rows, 2), random_data(), split, ks)


def test_an_empty_split_is_refused() -> None:
    data = random_data()
    empty = np.empty((0, 2), dtype=np.int64)
    bare = Interactions("bare", U, M, data.train, empty, empty, data.user_labels, data.item_labels)
    with pytest.raises(ConfigError, match="'valid' of bare is empty"):
        evaluate(torch.zeros(U, 2), torch.zeros(M, 2), bare, "valid")


def test_beauty_is_ranked_in_seconds(data_dir: Path) -> None:
    data = load(data_dir / "amazon" / "beauty.txt")
    generator = torch.Generator().manual_seed(0)
    users = torch.randn(data.num_users, 64, generator=generator)
    items = torch.randn(data.num_items, 64, generator=generator)
    start = time.perf_counter()
    result = evaluate(users, items, data, "test")
    assert time.perf_counter() - start < 10  # about 0.6 s on two quiet cores
    assert result["recall@20"] == pytest.approx(20 / data.num_items, rel=0.5)
