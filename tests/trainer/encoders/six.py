"""Six users, seven items and two modalities: small enough to go through by hand."""

import numpy as np

from trainer.data import Interactions

U, M, DIM = 6, 7, 8
TRAIN = np.array([[0, 0], [0, 1], [0, 4], [1, 1], [2, 0], [2, 3], [2, 2], [2, 5], [4, 2], [4, 6]])
VALID = np.array([[0, 6], [1, 4]])
RNG = np.random.default_rng(0)
FEATURES = {
    "image": RNG.random((M, 5)).astype(np.float32),
    "audio": RNG.standard_normal((M, 3)).astype(np.float32),
}


def six() -> Interactions:
    empty = np.empty((0, 2), dtype=np.int64)
    users, items = np.arange(U).astype(str), np.arange(M).astype(str)
    return Interactions("six", U, M, TRAIN, VALID, empty, users, items, features=FEATURES)
