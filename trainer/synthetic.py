"""A generated data set: power-law item popularity, latent tastes, nothing to download."""

import numpy as np
from jaxtyping import Float32, Int64

from core.errors import ConfigError


def generate(
    *,
    num_users: int = 2000,
    num_items: int = 1000,
    mean_items: float = 20.0,
    exponent: float = 0.8,
    num_tastes: int = 4,
    strength: float = 5.0,
    seed: int = 0,
) -> Int64[np.ndarray, "N 2"]:
    """Pairs that a model of tastes can learn and a ranking by popularity cannot.

    User u takes n_u items one after the other, without replacement, item i with probability
    proportional to (rank of i)^-exponent * exp(strength <taste of u, kind of i>). Tastes and kinds
    are unit vectors of independent directions, so that neither favours an item over all users.
    Nobody takes an item twice, so the head of the power law saturates, the sooner the stronger
    tastes are: at the defaults a fit to the counts gives an exponent of 0.7. n_u - 5 is geometric.

    Args:
        num_users: U >= 1.
        num_items: I; at least twice `mean_items`.
        mean_items: the mean of n_u, more than 5.
        exponent: a >= 0; 0 makes all items equally popular.
        num_tastes: the dimension of tastes and kinds.
        strength: how much tastes matter; 0 leaves popularity alone.
        seed: the same seed, the same data.

    Returns:
        int64 [N, 2], (user, item), by user and in the order in which they were taken. Items are
        numbered without regard to popularity.

    Raises:
        ConfigError: a size that cannot be met.
    """
    if num_users < 1 or mean_items <= 5 or num_items < 2 * mean_items:
        raise ConfigError(
            f"cannot generate {num_users} users with {mean_items} of {num_items} items each on "
            "average: at least 1 user, more than 5 items each, and twice as many to choose from"
        )
    rng = np.random.default_rng(seed)
    ranks, tastes, kinds = _world(rng, num_users, num_items, num_tastes)
    popularity = -exponent * np.log(ranks)
    counts = np.minimum(4 + rng.geometric(1 / (mean_items - 4), num_users), num_items // 2)
    # Gumbel's trick: the n largest of (log weight + Gumbel noise), in falling order, are n draws
    # without replacement.
    keys = popularity + strength * tastes @ kinds.T + rng.gumbel(size=(num_users, num_items))
    ranking = np.argsort(-keys, axis=1)
    taken = np.arange(num_items) < counts[:, None]
    return np.stack([np.nonzero(taken)[0], ranking[taken]], axis=1)


def features(
    *,
    num_users: int = 2000,
    num_items: int = 1000,
    num_tastes: int = 4,
    widths: tuple[int, int] = (32, 16),
    noise: float = 0.5,
    seed: int = 0,
) -> dict[str, Float32[np.ndarray, "I _"]]:
    """What two modalities tell of the items that `generate` gives with the same seed and sizes.

    Both are a random linear image of an item's kind, of variance 1, with normal noise. `image` then
    lies in the non-negative orthant, far from the origin, as real image features do; `audio` does
    not.

    Args:
        num_users: U.
        num_items: I.
        num_tastes: the dimension of kinds.
        widths: f of `image` and of `audio`.
        noise: its deviation in every number; 0 leaves the kind alone.
        seed: of `generate`.

    Returns:
        float32 [I, f] by modality.
    """
    rng = np.random.default_rng(seed)
    _, _, kinds = _world(rng, num_users, num_items, num_tastes)

    def seen(width: int) -> np.ndarray:
        told = kinds @ rng.standard_normal((num_tastes, width))
        noisy: np.ndarray = told + noise * rng.standard_normal(told.shape)
        return noisy.astype(np.float32)

    image, audio = seen(widths[0]), seen(widths[1])
    return {"image": image - image.min(), "audio": audio}


def _world(
    rng: np.random.Generator, num_users: int, num_items: int, num_tastes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks of the items from 1, tastes of the users, kinds of the items: drawn first of all."""
    ranks = rng.permutation(num_items) + 1.0
    return ranks, _directions(rng, num_users, num_tastes), _directions(rng, num_items, num_tastes)


def _directions(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Unit vectors, uniform over the sphere."""
    vectors = rng.standard_normal((rows, dim))
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
