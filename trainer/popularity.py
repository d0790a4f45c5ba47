"""How popular items are, in strata: the observed stand-in for what confounds exposure and taste."""

import numpy as np
from jaxtyping import Int64

from core.errors import ConfigError


def strata(popularity: Int64[np.ndarray, "I"], num_strata: int) -> Int64[np.ndarray, "I"]:
    """The stratum of each item, cut at the quantiles of popularity over items.

    Equally popular items share a stratum, the lower where a cut falls among them, so strata are of
    equal size only as far as ties allow; one may be empty.

    Args:
        popularity: int64 [I], train pairs of each item; see `Interactions.popularity`.
        num_strata: E >= 1.

    Returns:
        int64 [I] in [0, E), 0 the least popular.

    Raises:
        ConfigError: num_strata < 1.
    """
    if num_strata < 1:
        raise ConfigError(f"num_strata = {num_strata}; it must be at least 1")
    cuts = np.quantile(popularity, np.arange(1, num_strata) / num_strata, method="inverted_cdf")
    return np.searchsorted(cuts, popularity, side="left").astype(np.int64)
