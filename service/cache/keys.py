"""What a row's law depends on, and nothing else; and two ways of making a key of 128 bits from it.

    weights     their sha256: another version never matches, nor the same name with other weights
    the rule    nothing of it where t* is known beforehand: rules that meet at a t* share a law
    the user    the bytes of its row; an id would not tell that the embedding has changed
    t*, mu-     of the row, whichever the law depends on

Two given rows have one key with probability 2^-128, and whoever chooses rows cannot make one of
them meet the key of another caller's row: of `SecretHash` he does not know the secret, and BLAKE2b
nobody can aim. The first takes a quarter of the time, the second needs no secret that replicas
would have to share.
"""

import hashlib
import secrets

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.samplers import Query

Words = NDArray[np.uint32]
KEY_BYTES = 16
KEY_WORDS = KEY_BYTES // 4
# Raise it when core computes another law from the same weights: Redis outlives a deployment.
LAWS = 1


def depends_on(weights: str, query: Query, t_star: Tensor | None) -> Words:
    """(B, d + 5) words that tell apart whatever has another law.

    Args:
        weights: the sha256 of the sampler's weights, hexadecimal.
        query: users (B, d) float32, the rule, and mu- (B,) float32 where the caller gives it.
        t_star: (B,) int64 where the rule knows it beforehand.
    """
    own: NDArray[np.generic] | int = 0
    common = str(query.transition)
    if t_star is not None:
        common, own = "t*", t_star.cpu().numpy()
    elif query.threshold is not None:
        common, own = f"{common} mu-", query.threshold.cpu().numpy().view(np.uint32)
    rows, dim = query.users.shape
    words = np.empty((rows, KEY_WORDS + dim + 1), np.uint32)
    words[:, :KEY_WORDS] = np.frombuffer(_blake2b(f"{LAWS} {weights} {common}".encode()), np.uint32)
    words[:, KEY_WORDS:-1] = query.users.cpu().numpy().view(np.uint32)
    words[:, -1] = own
    return words


def public_keys(words: Words) -> list[bytes]:
    """BLAKE2b of every row: the same in every process."""
    return [_blake2b(row) for row in words.view(f"V{words[0].nbytes}").ravel().tolist()]


class SecretHash:
    """A hash of rows that nobody else can compute, vectorised; another one in every process.

    Each word of a key is ((sum a_i x_i + b) mod 2^64) >> 32 with a, b uniform in [0, 2^64), drawn
    for it alone: strongly universal for 32-bit words x_i (Dietzfelbinger 1996), so that two given
    rows agree in a word with probability 2^-32, and in all four with 2^-128.
    """

    def __init__(self) -> None:
        self._drawn: dict[int, NDArray[np.uint64]] = {}

    def __call__(self, words: Words) -> list[bytes]:
        """A key per row."""
        keys = np.empty((len(words), KEY_WORDS), np.uint32)
        wide = words.astype(np.uint64)
        for column, secret in enumerate(self._secrets(words.shape[1])):
            total = np.einsum("bi,i->b", wide, secret[:-1]) + secret[-1]
            keys[:, column] = total >> np.uint64(32)
        found: list[bytes] = keys.view(f"V{KEY_BYTES}").ravel().tolist()
        return found

    def _secrets(self, width: int) -> NDArray[np.uint64]:
        """(4, width + 1): a and b for each word of a key."""
        if width not in self._drawn:
            content = secrets.token_bytes(8 * KEY_WORDS * (width + 1))
            self._drawn[width] = np.frombuffer(content, np.uint64).reshape(KEY_WORDS, -1)
        return self._drawn[width]


def _blake2b(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()
