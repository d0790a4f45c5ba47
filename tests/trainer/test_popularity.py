import numpy as np
import pytest

from core.errors import ConfigError
from trainer.popularity import strata


def test_strata_are_of_equal_size_where_nothing_ties() -> None:
    popularity = np.random.default_rng(0).permutation(100)
    found = strata(popularity, 4)
    assert np.bincount(found).tolist() == [25, 25, 25, 25]
    assert (np.diff(found[np.argsort(popularity)]) >= 0).all()


def test_equally_popular_items_share_a_stratum() -> None:
    popularity = np.array([0, 0, 0, 1, 1, 1, 1, 2, 9])
    assert strata(popularity, 3).tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert strata(np.zeros(5, dtype=np.int64), 3).tolist() == [0] * 5


def test_one_stratum_holds_everything() -> None:
    assert not strata(np.arange(10), 1).any()


def test_no_strata_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_strata = 0"):
        strata(np.arange(3), 0)
