"""Every argument that cannot work is refused here, by name, before anything is sent."""

from typing import Any

import numpy as np
import pytest
import torch
from turnpoint_client import Client, InvalidInputError, NonFiniteError, Retries

from tests.client.fake import Fake, problem
from tests.client.harness import both, scripted

U = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((U[0], U), {}, r"users has shape \[3\]; pass \[B, d\]"),
        ((U, U[None]), {}, r"positives has shape \[1, 2, 3\]"),
        ((U, U[:1]), {}, r"users is \[2, 3\] and positives \[1, 3\]"),
        ((U[:0], U[:0]), {}, "empty"),
        ((U[:, :0], U[:, :0]), {}, "empty"),
        ((U > 0, U), {}, "users has dtype bool"),
        ((U, U.astype(str)), {}, "positives has dtype <U"),
        ((U * 1j, U), {}, "complex"),
        (([[1, 2], [3]], U), {}, "users cannot be read as an array"),
        ((torch.ones(2, 3), U), {}, "Tensor and ndarray; pass two of one kind"),
        ((torch.ones(2, 3).to_sparse(), torch.ones(2, 3)), {}, "users cannot be read"),
        ((U, U), {"n": 0}, "n is 0"),
        ((U, U), {"n": 1.5}, "n is 1.5; pass an integer"),
        ((U, U), {"omega": "much"}, "omega is 'much'"),
        ((U, U), {"hardness": float("nan")}, "hardness is nan"),
        ((U, U), {"seed": 0.5}, "seed is 0.5"),
        ((U, U), {"transition": 3}, "transition is 3"),
        ((U, U), {"model": ""}, "model is ''"),
        ((U, U), {"dtype": "float64"}, "dtype is 'float64'; pass one of float32"),
        ((U, U), {"format": "csv"}, "format is 'csv'; pass one of octet-stream"),
        ((U, U), {"returns": ("negatives", "score")}, "returns has 'score'; known are"),
        ((U, U), {"returns": "transition"}, "call distribution"),
        ((U, U), {"returns": "items"}, r"for their items alone items\(\)"),
        ((U, U), {"threshold": [1]}, "threshold has 1 rows, users has 2"),
        ((U, U), {"threshold": 1.0}, r"threshold has shape \[\]; pass \[B\]"),
        ((U, U), {"item_features": {"text": [[1.0]]}}, "item_features.text has 1 rows"),
        ((U, U), {"item_features": {"text": [1, 2]}}, r"item_features\['text'\] has shape"),
        ((U, U), {"user_ids": [0.5, 1]}, "user_ids has .* float64"),
        ((U, U), {"user_ids": ["a", "b"]}, "number them, or pass format='json'"),
        ((U, U), {"format": "octet-stream", "threshold": [1, 2]}, "carries no threshold"),
        ((U, U), {"format": "octet-stream", "returns": ["negatives", "scores"]}, "carries no ret"),
        ((U, U), {"format": "json", "dtype": "float16"}, "json answers in float32"),
        ((U, U), {"deadline": 0}, "deadline is 0.0; pass more than 0 seconds"),
    ],
)
def test_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    outcome = both(Fake, lambda c: c.negatives(*arguments, **options))
    assert outcome.requests == []
    assert isinstance(outcome.error, ValueError)
    with pytest.raises(InvalidInputError, match=message):
        raise outcome.error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n is 0; pass at least 1"),
        ({"format": "octet-stream"}, "carries no returns=\\['items'\\]"),
    ],
)
def test_items_refused(options: dict[str, Any], message: str) -> None:
    outcome = both(Fake, lambda c: c.items(U, U, **options))
    assert outcome.requests == []
    with pytest.raises(InvalidInputError, match=message):
        raise outcome.error


def test_an_unknown_option_is_a_type_error_as_anywhere_in_python() -> None:
    with Client("http://tp") as client, pytest.raises(TypeError, match="'omgea'; see Options"):
        client.negatives(U, U, omgea=1.0)  # type: ignore[call-arg]
    with Client("http://tp") as client, pytest.raises(TypeError, match="'n'"):
        client.distribution(U, U, n=2)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "url", ["localhost:8000", "tp", "", "ftp://tp", "http://", "http://tp?x=1", 3]
)
def test_a_url_that_is_none(url: Any) -> None:
    with pytest.raises(InvalidInputError, match="url"):
        Client(url)


@pytest.mark.parametrize("key", ["", "k\n", "a b", "ключ"])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(InvalidInputError, match="api_key") as refused:
        Client("http://tp", api_key=key)
    assert not key.strip() or key not in str(refused.value)


def test_a_key_is_never_shown() -> None:
    with Client("http://tp", api_key="s3cret") as client:
        assert repr(client) == "Client(url='http://tp', model=None)"


def test_a_policy_that_cannot_be() -> None:
    with pytest.raises(InvalidInputError, match="negative"):
        Retries(limit=-1)


@pytest.mark.parametrize(
    "users",
    [
        U.astype(np.float64),
        U.astype(np.float16),
        U.astype(np.int64),
        U.astype(">f4"),
        np.asfortranarray(U),
        np.repeat(U, 2, axis=1)[:, ::2],
        U.tolist(),
    ],
    ids=str,
)
def test_anything_with_numbers_is_sent_as_float32(users: Any) -> None:
    (sent,) = both(Fake, lambda c: c.negatives(users, U, returns="negatives")).sent
    assert sent.body == 2 * U.tobytes()


def test_float32_is_sent_without_a_copy() -> None:
    from turnpoint_client._arrays import floats

    assert np.shares_memory(floats("users", U, ndim=2), U)
    tensor = torch.ones(2, 3)
    assert np.shares_memory(floats("users", tensor, ndim=2), tensor.numpy())


def test_numbers_beyond_float32_are_left_to_the_service_to_refuse() -> None:
    huge = U * np.float64(1e300)
    start = scripted(problem(422, "non_finite"))
    outcome = both(start, lambda c: c.negatives(huge, U, returns="negatives"))
    assert np.isinf(np.frombuffer(outcome.sent[0].body[: U.nbytes], np.float32)).all()
    assert isinstance(outcome.error, NonFiniteError)


@pytest.mark.parametrize("n", [0, -1])
def test_a_draw_of_none(n: int) -> None:
    law = both(Fake, lambda c: c.distribution(U, U)).result
    with pytest.raises(InvalidInputError, match="n is"):
        law.draw(n)
    with pytest.raises(InvalidInputError, match="pass a seed or a numpy"):
        law.draw(1, torch.Generator())
