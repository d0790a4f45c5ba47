"""What a row's law depends on, and nothing else, as a key of 128 bits.

    weights     their sha256: another version never matches, nor the same name with other weights
    the rule    nothing of it where t* is known beforehand: rules that meet at a t* share a law
    the user    the bytes of its row; an id would not tell that the embedding has changed
    t*, mu-     of the row, whichever the law depends on

The hash is BLAKE2b, which nobody can aim: two given rows have one key with probability 2^-128, and
whoever chooses rows cannot make one of them meet the key of another caller's row.
"""

import hashlib

import numpy as np
from torch import Tensor

from core.samplers import Query

KEY_BYTES = 16
# Raise it when core computes another law from the same weights: Redis outlives a deployment.
LAWS = 1


def row_keys(weights: str, query: Query, t_star: Tensor | None) -> list[bytes]:
    """A key per row.

    Args:
        weights: the sha256 of the sampler's weights, hexadecimal.
        query: users (B, d) float32, the rule, and mu- (B,) float32 where the caller gives it.
        t_star: (B,) int64 where the rule knows it beforehand.
    """
    own = []
    if t_star is not None:
        common = "t*"
        own = [t_star.cpu().numpy().astype(np.uint32)]
    elif query.threshold is not None:
        common = f"{query.transition} mu-"
        own = [query.threshold.cpu().numpy().view(np.uint32)]
    else:
        common = f"{query.transition}"
    users = query.users.cpu().numpy().view(np.uint32)
    shared = np.frombuffer(_digest(f"{LAWS} {weights} {common}".encode()), np.uint32)
    content = np.column_stack([np.broadcast_to(shared, (len(users), len(shared))), users, *own])
    return [_digest(row) for row in content.view(f"V{content[0].nbytes}").ravel().tolist()]


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()
