"""The data sets by name, and what a run that must not see the test split is given."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from core.errors import ConfigError
from trainer.data import Interactions, load

SETS: dict[str, str | None] = {  # files and folders below the data folder; None is generated
    "beauty": "amazon/beauty.txt",
    "toys": "amazon/toys.txt",
    "yelp2018": "ood/yelp2018",
    "tiktok": "multimodal/tiktok",
    "generated": None,
}


@cache
def load_set(name: str, split: str, folder: Path | None) -> Interactions:
    """A data set, split with seed 0 whatever the runs' seeds are.

    Were the split a run's own, the pairs that settings were chosen by would be among the test pairs
    of other seeds.

    Raises:
        ConfigError: it is a file and no folder was named.
    """
    file = SETS[name]
    if file is None:
        return load(None, split=split)
    if folder is None:
        raise ConfigError(f"{name} is read from {file}: name its folder, with --data")
    return load(folder / file, split=split)


def without_test(interactions: Interactions) -> Interactions:
    """The same, its test split empty: nothing that is given this can learn or choose by test."""
    return replace(interactions, test=np.empty((0, 2), dtype=np.int64), extra_tests={})


def fingerprint(interactions: Interactions) -> str:
    """Tells one split data set from another, by its pairs and its items' features."""
    digest = hashlib.sha256()
    parts = [interactions.train, interactions.valid, interactions.test]
    for named in (interactions.extra_tests, interactions.features):
        parts += [named[name] for name in sorted(named)]
    for part in parts:
        digest.update(str(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]
