"""A key changes with everything that the law depends on, and with nothing else."""

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.samplers import Query
from core.transition import Transition
from service.cache.keys import KEY_BYTES, SecretHash, Words, depends_on, public_keys
from tests.service.live import make_sampler, pairs

SHA, OTHER = "a" * 64, "b" * 64
USERS, POSITIVES = pairs(6)
T_STAR = torch.tensor([0, 1, 25, 49, 50, 50])
EXACT, MIXED = Transition("exact"), Transition("mixed")
MU = torch.linspace(-1, 1, 6)


def keys(rule: Transition, t_star: torch.Tensor | None = None, **changes: object) -> list[bytes]:
    return public_keys(depends_on(SHA, replace(Query(USERS, POSITIVES, rule), **changes), t_star))


def all_differ(one: list[bytes], other: list[bytes]) -> bool:
    return all(a != b for a, b in zip(one, other, strict=True))


def bumped(values: torch.Tensor) -> torch.Tensor:
    """The next float32: the smallest change that there is, in the last column."""
    changed = values.clone()
    last = changed[..., -1:] if changed.ndim > 1 else changed
    last.copy_(last.nextafter(torch.tensor(torch.inf)))
    return changed


def test_what_a_known_t_star_depends_on() -> None:
    base = keys(Transition("fixed"), T_STAR)
    assert all(len(key) == KEY_BYTES for key in base)
    assert len(set(base)) == 6
    assert all_differ(base, keys(Transition("fixed"), T_STAR, users=bumped(USERS)))
    assert all_differ(base, keys(Transition("fixed"), T_STAR + 1))
    other = depends_on(OTHER, Query(USERS, POSITIVES, Transition("fixed")), T_STAR)
    assert all_differ(base, public_keys(other))
    # Rules that meet at a t* have one law there, whoever the positive is.
    assert base == keys(Transition("score_aware", omega=2.0), T_STAR, positives=USERS)
    assert base == keys(Transition("theorem"), T_STAR, threshold=MU)


def test_what_exact_depends_on() -> None:
    base = keys(EXACT, threshold=MU)
    assert len(set(base)) == 6
    assert base == keys(EXACT, threshold=MU, positives=USERS)
    for other in (
        keys(EXACT, threshold=bumped(MU)),
        keys(EXACT, threshold=MU, users=bumped(USERS)),
        keys(Transition("exact", hardness=0.25), threshold=MU),
        keys(EXACT),
        keys(EXACT, threshold=torch.zeros(6)),
    ):
        assert all_differ(base, other)
    assert all_differ(keys(EXACT), keys(EXACT, threshold=torch.zeros(6)))


def test_what_mixed_depends_on() -> None:
    base = keys(MIXED)
    assert base == keys(MIXED, positives=USERS)
    assert all_differ(base, keys(MIXED, users=bumped(USERS)))
    assert all_differ(base, keys(EXACT))
    assert all_differ(base, keys(Transition("fixed"), torch.zeros(6, dtype=torch.int64)))


def test_a_row_alone_has_the_key_that_it_has_among_others() -> None:
    together = keys(EXACT, threshold=MU)
    for row in range(6):
        one = slice(row, row + 1)
        assert [together[row]] == keys(
            EXACT, users=USERS[one], positives=POSITIVES[one], threshold=MU[one]
        )


def test_rows_that_share_a_buffer_and_strided_ones_are_hashed_by_value() -> None:
    wide = torch.cat([USERS, POSITIVES], dim=1)
    assert keys(MIXED) == keys(MIXED, users=wide[:, : USERS.shape[1]])


@pytest.mark.parametrize("make", [public_keys, SecretHash()])
@pytest.mark.parametrize("rule", ["score_aware", "random"])
def test_200_000_random_rows_have_200_000_keys(
    rule: str, make: Callable[[Words], list[bytes]]
) -> None:
    users, positives = pairs(200_000, seed=3)
    query = Query(users, positives, Transition(rule))
    t_star = make_sampler().transition_point(query, torch.Generator().manual_seed(0))
    found = make(depends_on(SHA, query, t_star))
    assert len(set(found)) == 200_000
    assert {len(key) for key in found} == {KEY_BYTES}
    assert found == make(depends_on(SHA, query, t_star))


def test_the_secret_hash_is_what_its_formula_says() -> None:
    """In Python's own integers; zeros, ones and the largest word included."""
    words = np.array([[0, 0, 0], [1, 0, 0], [2**32 - 1] * 3, [7, 2**31, 3]], np.uint32)
    secret_hash = SecretHash()
    found = secret_hash(words)
    drawn = secret_hash._secrets(3).tolist()
    for row, key in zip(words.tolist(), found, strict=True):
        sums = [sum(a * x for a, x in zip(one, [*row, 1], strict=True)) for one in drawn]
        assert key == struct.pack("<4I", *((total % 2**64) >> 32 for total in sums))


def test_structured_rows_do_not_collide_more_often_than_chance() -> None:
    """Rows that differ in signs alone, or in one of few bits: 2^16 of them, by 32 bits of the key.

    2^31 pairs meet in one given word with probability 2^-32: half a collision in the mean, and more
    than 8 with probability 1e-9. The control: without its multipliers the hash fails at once.
    """
    bits = np.arange(2**16, dtype=np.uint32)
    signs = (bits[:, None] >> np.arange(16, dtype=np.uint32) & 1) << 31
    for words in (signs, bits[:, None] << 16, np.stack([bits, bits], axis=1)):
        found = SecretHash()(np.ascontiguousarray(words.astype(np.uint32)))
        for word in range(4):
            parts = [key[4 * word : 4 * word + 4] for key in found]
            assert len(set(parts)) > 2**16 - 9
    assert len(np.unique(signs.astype(np.uint64).sum(axis=1))) < 20


def test_two_processes_share_no_secret() -> None:
    words = depends_on(SHA, Query(USERS, POSITIVES, MIXED), None)
    assert all_differ(SecretHash()(words), SecretHash()(words))
