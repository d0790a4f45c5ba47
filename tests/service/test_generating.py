"""The model thread with samplers that have no law: what is together, what is sound, whose noise."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from core.errors import DimensionMismatchError, MalformedError, NonFiniteError, OutOfRangeError
from core.noise import Noise
from core.samplers import Query
from service.batching import kind
from service.codecs import Inputs, checked, from_json
from service.compute import compute
from service.job import Job
from service.offer import Offer
from service.params import Params
from service.staging import HostMemory
from tests.service.jobs import free
from tests.service.live import as_json, pairs
from tests.service.methods import CONFIGS, conditions, sampler_of
from tests.service.telltale import AUDIO, IMAGE, STRATA, Telltale

TELLTALE = Telltale()
OFFER = Offer.of(TELLTALE)
EVERYTHING = ("negatives", "transition", "scores")


def inputs(rows: int, seed: int = 0, **changes: Any) -> Inputs:
    users, positives = pairs(rows, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    features = {
        "audio": torch.randn(rows, AUDIO, generator=rng),
        "image": torch.randn(rows, IMAGE, generator=rng),
    }
    strata = torch.randint(STRATA, (rows,), generator=rng)
    plain = {"users": users, "positives": positives, "popularity": strata}
    return Inputs(**({**plain, "item_features": features} | changes))


def asking(rows: int, seed: int, given: Inputs | None = None, **params: Any) -> Job:
    """A job for the telltale whose seed the service drew."""
    return free(
        sampler=TELLTALE,
        inputs=given or inputs(rows, seed),
        params=Params(**({"n": 2, "progress": 0.5} | params)),
        wanted=EVERYTHING,
        seed=seed,
    )


def landed(jobs: Sequence[Job]) -> list[Any]:
    return list(compute(jobs, HostMemory()).land())


def test_each_row_gets_its_own_conditions_and_each_job_its_own_noise() -> None:
    jobs = [asking(rows, seed=rows) for rows in (1, 7, 3)]
    assert len({kind(one) for one in jobs}) == 1
    for one, merged in zip(jobs, landed(jobs), strict=True):
        given = one.inputs
        generator = torch.Generator().manual_seed(one.seed)
        alone = TELLTALE.generate(
            Query(
                given.users,
                given.positives,
                item_features=given.item_features,
                progress=0.5,
                popularity=given.popularity,
            ),
            2,
            Noise([generator], [given.rows]),
        )
        assert torch.equal(merged["negatives"], alone.negatives)
        assert torch.equal(merged["weights"], alone.weights)
        assert torch.equal(merged["negatives"][:, 1, 3], given.popularity.float())
        scores = torch.einsum("bd,bnd->bn", given.users, alone.negatives)
        torch.testing.assert_close(merged["scores"], scores)


def test_what_is_not_given_is_not_there() -> None:
    (answer,) = landed([asking(3, 0, inputs(3, popularity=None, item_features={}), progress=None)])
    assert (answer["negatives"][..., 1:5] == -1).all()


@pytest.mark.parametrize(
    "other",
    [
        {"n": 3},
        {"progress": 0.6},
        {"progress": None},
        {"given": inputs(4, popularity=None)},
        {"given": inputs(4, item_features={})},
        {"given": inputs(4, item_features={"image": torch.zeros(4, IMAGE)})},
    ],
)
def test_jobs_that_cannot_share_a_chain_are_kept_apart(other: dict[str, Any]) -> None:
    assert kind(asking(4, 0)) == kind(asking(5, 1))
    assert kind(asking(4, 0)) != kind(asking(4, 1, **other))


@pytest.mark.parametrize("method", CONFIGS)
def test_a_merged_answer_is_that_of_the_request_alone(method: str) -> None:
    sampler = sampler_of(method)
    jobs = []
    for rows in (1, 7, 64):
        users, positives = pairs(rows, seed=rows)
        found = conditions(sampler, rows, rows)
        given = checked({"users": users, "positives": positives, **found}, Offer.of(sampler), 100)
        params = Params(n=3, progress=0.7 if "progress" in sampler.inputs else None)
        jobs.append(
            free(sampler=sampler, inputs=given, params=params, wanted=EVERYTHING, seed=rows)
        )
    assert len({kind(one) for one in jobs}) == 1
    for one, merged in zip(jobs, landed(jobs), strict=True):
        (alone,) = landed([one])
        assert torch.equal(merged["transition"], alone["transition"])
        torch.testing.assert_close(merged["negatives"], alone["negatives"], rtol=1e-4, atol=1e-4)
    other = free(sampler=sampler, inputs=given, params=params, wanted=EVERYTHING, seed=1)
    (elsewhere,) = landed([other])
    # The negative control: another seed's noise is far beyond that tolerance.
    assert (elsewhere["negatives"] - alone["negatives"]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("value", "told"), [(torch.nan, "holds nan in column 2"), (torch.inf, "holds inf in column 2")]
)
def test_a_feature_that_is_not_finite_is_named_and_harms_nobody_else(value, told) -> None:
    broken = inputs(4)
    broken.item_features["audio"][1, 2] = value
    sound, refused, after = landed([asking(2, 1), asking(4, 2, broken), asking(3, 3)])
    assert isinstance(refused, NonFiniteError)
    assert str(refused) == f"item_features.audio row 1 {told}; every number must be finite"
    for answer, one in ((sound, asking(2, 1)), (after, asking(3, 3))):
        assert torch.equal(answer["negatives"], landed([one])[0]["negatives"])


def test_features_whose_sum_overflows_are_refused() -> None:
    broken = inputs(2)
    broken.item_features["image"][1] = 3e38
    (refused,) = landed([asking(2, 0, broken)])
    assert isinstance(refused, NonFiniteError)
    assert str(refused).startswith(
        "item_features row 1 is finite, but overflows float32 in its sum"
    )


def test_users_are_judged_before_features() -> None:
    broken = inputs(3)
    broken.users[2, 0], broken.item_features["image"][0, 0] = torch.nan, torch.nan
    (refused,) = landed([asking(3, 0, broken)])
    assert str(refused).startswith("users row 2 holds nan in column 0")


@pytest.mark.parametrize(
    ("changes", "kind_of", "message"),
    [
        ({"item_features.image": torch.zeros(2, 4)}, DimensionMismatchError,
         "item_features.image has shape [2, 4]; it must be [2, 5]"),
        ({"item_features.image": torch.zeros(3, IMAGE)}, DimensionMismatchError, "be [2, 5]"),
        ({"item_features.image": torch.zeros(2)}, DimensionMismatchError, "shape [2]; it must"),
        ({"item_features.audio": torch.zeros(2, AUDIO, dtype=torch.int64)}, MalformedError,
         "item_features.audio has dtype I64; send F32, F16 or BF16"),
        ({"popularity": torch.zeros(2)}, MalformedError, "popularity has dtype F32; send I64"),
        ({"popularity": torch.tensor([0, STRATA])}, OutOfRangeError,
         "popularity row 1 is 4; this model has strata 0 (the least popular) to 3"),
        ({"popularity": torch.tensor([-1, 0])}, OutOfRangeError, "popularity row 0 is -1"),
        ({"popularity": torch.zeros(2, 1, dtype=torch.int64)}, DimensionMismatchError, "be [2]"),
        ({"item_features.text": torch.zeros(2, 4)}, OutOfRangeError,
         "unknown tensor 'item_features.text'; known: users, positives, progress, popularity, "
         "item_features.audio, item_features.image, user_ids"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_the_model(changes, kind_of, message: str) -> None:
    arrays = dict(zip(("users", "positives"), pairs(2), strict=True)) | changes
    with pytest.raises(kind_of) as caught:
        checked(arrays, OFFER, 100)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"item_features": [1]}, "item_features must be an object with an array for each modality"),
        ({"item_features": {"x" * 65: [[1]]}}, "by a name of at most 64 characters"),
        ({"item_features": {"image": "x"}}, "item_features.image must be a list or an object"),
        ({"item_features": {"image": [["x"]]}}, "item_features.image row 0 holds a string"),
        ({"popularity": [1.5]}, "popularity row 0 must be a whole number of 64 bits"),
        ({"popularity": [True]}, "popularity row 0 must be a whole number"),
        ({"popularity": [2**63]}, "popularity row 0 must be a whole number"),
    ],
)
def test_json_that_cannot_be_read(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedError) as caught:
        from_json(bytearray(as_json(**fields)), 100)
    assert message in str(caught.value)


def test_json_in_every_way_of_writing_it() -> None:
    import base64

    image = torch.randn(2, IMAGE)
    packed = base64.b64encode(image.numpy().tobytes()).decode()
    as_object = {"shape": [2, IMAGE], "dtype": "float32", "data": packed}
    strata = base64.b64encode(torch.tensor([1, 3]).numpy().tobytes()).decode()
    for features, popularity in (
        ({"image": image.tolist(), "audio": None}, [1, 3]),
        ({"image": as_object}, {"shape": [2], "dtype": "int64", "data": strata}),
    ):
        body = as_json(item_features=features, popularity=popularity)
        arrays, fields = from_json(bytearray(body), 100)
        assert not fields
        assert torch.equal(arrays["item_features.image"], image)
        assert arrays["popularity"].tolist() == [1, 3]
        assert arrays.keys() == {"item_features.image", "popularity"}
    assert from_json(bytearray(as_json(item_features=None)), 100) == ({}, {})
