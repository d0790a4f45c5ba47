import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from core.errors import ConfigError
from trainer.data import load
from trainer.encoders import make
from trainer.evaluate import evaluate
from trainer.features import standardised
from trainer.sampling import UniformNegatives
from trainer.synthetic import features, generate


def exponent_of(pairs: np.ndarray, num_items: int) -> float:
    """The slope of log count over log rank, the saturated head and the noisy tail left out."""
    counts = np.sort(np.bincount(pairs[:, 1], minlength=num_items))[::-1]
    ranks = np.arange(num_items // 50, num_items // 2)
    return -float(np.polyfit(np.log(ranks + 1.0), np.log(counts[ranks]), 1)[0])


@pytest.mark.parametrize("exponent", [0.0, 0.4, 0.8])
@pytest.mark.parametrize(("strength", "error"), [(0.0, 0.1), (5.0, 0.15)])
def test_popularity_follows_the_stated_power_law(
    exponent: float, strength: float, error: float
) -> None:
    # Exponents further apart than the error are told apart, so each is the others' control.
    pairs = generate(exponent=exponent, strength=strength)
    assert exponent_of(pairs, 1000) == pytest.approx(exponent, abs=error)


def test_sizes_are_the_stated_ones() -> None:
    pairs = generate()
    counts = np.bincount(pairs[:, 0])
    assert len(counts) == 2000
    assert counts.min() >= 5
    assert counts.mean() == pytest.approx(20, abs=1.0)  # deviation 15.5 / sqrt(2000) = 0.35
    assert len(np.unique(pairs[:, 0] * 1000 + pairs[:, 1])) == len(pairs)
    assert set(pairs[:, 1]) <= set(range(1000))


def test_a_seed_fixes_the_data() -> None:
    one, same, other = (generate(num_users=50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_features_tell_of_the_kind_of_the_generated_items() -> None:
    pairs, tables = generate(), features()
    users = np.zeros((1000, 2000), dtype=np.float32)
    users[pairs[:, 1], pairs[:, 0]] = 1.0
    together = cosines(users)
    for table in tables.values():
        alike = cosines(standardised(table))
        apart = cosines(standardised(features(seed=1)["image"]))  # of other items
        assert correlation(alike, together) > 0.3
        assert abs(correlation(apart, together)) < 0.02
    assert tables["image"].min() == 0
    assert cosines(tables["image"]).mean() > 0.8
    assert tables["audio"].min() < 0


def cosines(table: np.ndarray) -> np.ndarray:
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(table), 1)]


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


@pytest.mark.parametrize("sizes", [{"num_users": 0}, {"mean_items": 5.0}, {"num_items": 39}])
def test_sizes_that_cannot_be_met_are_refused(sizes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="cannot generate"):
        generate(**sizes)


def test_matrix_factorisation_learns_more_than_popularity() -> None:
    data = load(None)
    popularity = np.bincount(data.train[:, 1], minlength=data.num_items)
    noise = np.random.default_rng(0).random(data.num_items)  # ties would count against it
    items = torch.from_numpy(popularity + 0.5 * noise).float()[:, None]
    baseline = evaluate(torch.ones(data.num_users, 1), items, data, "test")

    encoder = make("mf", data, 32, seed=0)
    negatives = UniformNegatives(data.train, data.num_users, data.num_items)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    pairs = torch.from_numpy(data.train)
    for _ in range(8):
        for rows in torch.randperm(len(pairs), generator=generator).split(1024):
            users, positives = pairs[rows].unbind(1)
            both = torch.cat([positives, negatives.sample(users, generator)])
            encoded = encoder.encode(users)
            positive, negative = encoded.items(both).split(len(users))
            loss = -logsigmoid((encoded.users * (positive - negative)).sum(1)).mean()
            (loss + 1e-3 * encoder.penalty(users, both)).backward()
            optimiser.step()
            optimiser.zero_grad()
    learnt = evaluate(*encoder.tables(), data, "test")
    # About 0.36 against 0.19, and 0.23 against 0.10.
    assert learnt["recall@20"] > 1.5 * baseline["recall@20"]
    assert learnt["ndcg@10"] > 1.5 * baseline["ndcg@10"]
