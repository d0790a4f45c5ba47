"""Every method over a real socket, in every format, with everything that it takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from turnpoint_client import Client, OutOfRangeError

from core.samplers import METHODS, HasLaw, Query, Sampler, draw
from core.samplers.base import FEATURES
from core.transition import Transition
from tests.client.loopback import Awaiting
from tests.service.live import (
    JSON,
    OCTET,
    SAFE,
    Live,
    as_json,
    octet,
    pairs,
    running,
    safe,
    settings_for,
)
from tests.service.methods import CONFIGS, conditions, publish_each, sampler_of
from tests.service.test_negatives import BODIES, post, read

ROWS, N, SEED = 9, 3, 5
BESIDES = {"safetensors": (safe, SAFE), "json": (as_json, JSON)}
GENERATING = tuple(CONFIGS)
PROGRESS = "progress"
INPUTS = {method: sampler_of(method).inputs for method in METHODS}
CONDITIONS = ("threshold", "popularity", "item_features.text", PROGRESS)
LACKING = [(m, name) for m in METHODS for name in CONDITIONS if name not in INPUTS[m]]


@pytest.fixture(scope="module")
def samplers() -> dict[str, Sampler]:
    return {}


@pytest.fixture(scope="module")
def service(tmp_path_factory, samplers: dict[str, Sampler]) -> Iterator[Live]:
    """One service with a model of each method, called as the method is."""
    address: Path = tmp_path_factory.mktemp("registry")
    samplers |= publish_each(address)
    with running(settings_for(address)) as live:
        yield live


def told(sampler: Sampler) -> dict[str, Any]:
    """What is said in the query of everything that the sampler takes."""
    if isinstance(sampler, HasLaw):
        return {"transition": "exact"}
    return {"progress": 0.5} if "progress" in sampler.inputs else {}


def core_query(sampler: Sampler, arrays: dict[str, torch.Tensor]) -> Query:
    """The request in core's terms."""
    features = {
        name.removeprefix(FEATURES): arrays[name] for name in arrays if name.startswith(FEATURES)
    }
    asked = told(sampler)
    return Query(
        arrays["users"],
        arrays["positives"],
        sampler.transition.override("exact") if isinstance(sampler, HasLaw) else Transition(),
        arrays.get("threshold"),
        features,
        asked.get("progress"),
        arrays.get("popularity"),
    )


def whole(sampler: Sampler, rows: int = ROWS) -> dict[str, torch.Tensor]:
    users, positives = pairs(rows)
    return {"users": users, "positives": positives, **conditions(sampler, rows)}


def ask(
    service: Live, method: str, form: str, arrays: dict[str, torch.Tensor], **query: Any
) -> httpx.Response:
    encode, headers = BESIDES[form]
    given = in_form(arrays, form)
    scalars = {"model": method, "n": N, "seed": SEED, **query}
    text = "&".join(f"{name}={value}" for name, value in scalars.items())
    return post(service, text, encode(**given), headers)


def same(found: dict[str, torch.Tensor], name: str, expected: torch.Tensor) -> None:
    assert torch.equal(found[name].to(expected.dtype), expected), name


def test_each_method_is_tried_here() -> None:
    assert set(METHODS) == {"adar", *CONFIGS}


@pytest.mark.parametrize("form", BESIDES)
@pytest.mark.parametrize("method", METHODS)
def test_an_answer_is_what_core_draws(service, samplers, method: str, form: str) -> None:
    sampler = samplers[method]
    arrays = whole(sampler)
    found = read(ask(service, method, form, arrays, **told(sampler)))
    generator = torch.Generator().manual_seed(SEED)
    expected = draw(sampler, core_query(sampler, arrays), N, generator)
    same(found, "negatives", expected.negatives)
    same(found, "transition", expected.transition)
    assert ("weights" in found) == (expected.weights is not None)
    if expected.weights is not None:
        same(found, "weights", expected.weights)


@pytest.mark.parametrize("form", BESIDES)
def test_a_catalogue_says_which_items_its_negatives_are(service, samplers, form: str) -> None:
    sampler = samplers["catalogue"]
    arrays = whole(sampler)
    found = read(ask(service, "catalogue", form, arrays, returns="items"))
    assert list(found) == ["items"]
    generator = torch.Generator().manual_seed(SEED)
    same(found, "items", draw(sampler, core_query(sampler, arrays), N, generator).items)
    if form == "safetensors":
        assert found["items"].dtype == torch.int64


@pytest.mark.parametrize("method", ["adar", "dmns"])
def test_items_where_there_is_no_catalogue(service, method: str) -> None:
    body, headers = BODIES["safetensors"](*pairs(2))
    answer = post(service, f"model={method}&returns=items", body, headers)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(
        f"method '{method}' has no items: it holds no catalogue of items; returns can be negatives"
    )


@pytest.mark.parametrize("form", BODIES)
@pytest.mark.parametrize("method", METHODS)
def test_without_conditions_every_format_gives_the_same(service, samplers, method, form) -> None:
    users, positives = pairs(ROWS)
    body, headers = BODIES[form](users, positives)
    found = read(post(service, f"model={method}&n={N}&seed={SEED}", body, headers))
    generator = torch.Generator().manual_seed(SEED)
    query = Query(users, positives, getattr(samplers[method], "transition", Transition()))
    same(found, "negatives", draw(samplers[method], query, N, generator).negatives)


@pytest.mark.parametrize("method", METHODS)
def test_everything_that_a_method_takes_matters(service, samplers, method: str) -> None:
    sampler = samplers[method]
    arrays, rule = (
        whole(sampler),
        {name: v for name, v in told(sampler).items() if name != PROGRESS},
    )
    answer = read(ask(service, method, "safetensors", arrays, **rule))["negatives"]
    for name in conditions(sampler, ROWS):
        less = {other: arrays[other] for other in arrays if other != name}
        without = read(ask(service, method, "safetensors", less, **rule))["negatives"]
        assert not torch.equal(answer, without), name
    if PROGRESS in sampler.inputs:
        early = read(ask(service, method, "safetensors", arrays, progress=0))["negatives"]
        assert not torch.equal(answer, early)


@pytest.mark.parametrize("method", METHODS)
def test_models_says_what_a_method_takes_and_gives(service, samplers, method: str) -> None:
    sampler = samplers[method]
    shown = httpx.get(f"{service.url}/models/{method}").json()
    assert shown["method"] == method
    assert shown["inputs"] == list(sampler.inputs)
    assert shown["features"] == dict(getattr(sampler, "features", {}))
    assert shown["strata"] == getattr(sampler, "strata", 0)
    assert shown["items"] == getattr(sampler, "num_items", 0)
    own = ["distribution"] * isinstance(sampler, HasLaw) + ["items"] * (method == "catalogue")
    assert sorted(shown["returns"]) == sorted(["negatives", "transition", "scores", *own])


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_those_of_the_negatives(service, samplers, method: str) -> None:
    arrays = whole(samplers[method])
    users, positives = arrays["users"], arrays["positives"]
    url = f"model={method}&n={N}&returns=scores&returns=negatives"
    found = read(post(service, url, safe(users=users, positives=positives), SAFE))
    expected = torch.einsum("bd,bnd->bn", users, found["negatives"])
    torch.testing.assert_close(found["scores"], expected)


@pytest.mark.parametrize("method", GENERATING)
@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("returns=distribution", "has no distribution: its negatives have no law in closed form; "
         "returns can be negatives, transition, scores"),
        ("transition=exact", "takes no transition; this model's inputs: users, positives"),
        ("hardness=0.5", "takes no hardness; this model's inputs: users, positives"),
        ("relative_margin=0.1", "takes no relative_margin; this model's inputs: users"),
    ],
)  # fmt: skip
def test_what_a_method_without_a_law_does_not_have(service, method, query, detail) -> None:
    body, headers = BODIES["safetensors"](*pairs(2))
    answer = post(service, f"model={method}&{query}", body, headers)
    assert answer.status_code == 422
    assert answer.json()["code"] == "out_of_range"
    assert answer.json()["detail"].startswith(f"method '{method}' {detail}")


@pytest.mark.parametrize("form", BESIDES)
@pytest.mark.parametrize(("method", "name"), [pair for pair in LACKING if pair[1] != PROGRESS])
def test_an_array_that_a_method_does_not_take(service, method, form, name) -> None:
    value = torch.zeros(ROWS, dtype=torch.int64 if name == "popularity" else torch.float32)
    given = value[:, None] if "." in name else value
    arrays = dict(zip(("users", "positives"), pairs(ROWS), strict=True)) | {name: given}
    answer = ask(service, method, form, arrays)
    assert answer.status_code == 422
    known = ", ".join((*INPUTS[method], "user_ids"))
    assert answer.json()["detail"] == f"unknown tensor {name!r}; known: {known}"


@pytest.mark.parametrize("method", [method for method, name in LACKING if name == PROGRESS])
def test_progress_where_nothing_is_scheduled(service, method: str) -> None:
    answer = post(service, f"model={method}&progress=0.5", octet(*pairs(2)), OCTET)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"method '{method}' takes no progress")


@pytest.mark.parametrize("value", ["-0.1", "1.01", "nan"])
def test_progress_lies_between_nothing_and_all(service, value: str) -> None:
    answer = post(service, f"progress={value}&model=gdnsm", octet(*pairs(2)), OCTET)
    assert answer.status_code == 422
    assert "lie in [0, 1]" in answer.json()["detail"]


@pytest.mark.parametrize("twin", [Client, Awaiting])
@pytest.mark.parametrize("method", METHODS)
def test_the_client_takes_and_gives_the_same(service, samplers, method: str, twin) -> None:
    sampler = samplers[method]
    arrays = whole(sampler)
    query = core_query(sampler, arrays)
    given = {k: arrays[k] for k in ("threshold", "popularity") if k in arrays}
    features = {name: table.numpy() for name, table in query.item_features.items()}
    options = {"model": method, "seed": SEED, **told(sampler), **given}
    generator = torch.Generator().manual_seed(SEED)
    expected = draw(sampler, query, N, generator)
    with twin(service.url) as client:
        for form in ("safetensors", "json"):
            answer = client.negatives(
                arrays["users"],
                arrays["positives"],
                n=N,
                item_features=features or None,
                format=form,
                **options,
            )
            assert torch.equal(answer.negatives, expected.negatives)
            assert (answer.weights is None) == (expected.weights is None)
            if expected.weights is not None:
                assert torch.equal(answer.weights, expected.weights)
            if expected.items is not None:
                both = ("negatives", "items")
                answer = client.negatives(
                    arrays["users"], arrays["positives"], n=N, returns=both, format=form, **options
                )
                assert torch.equal(answer.items, expected.items)
        shown = client.model(method)
        assert (dict(shown.features), shown.strata, shown.items) == (
            dict(getattr(sampler, "features", {})),
            getattr(sampler, "strata", 0),
            getattr(sampler, "num_items", 0),
        )
        if not isinstance(sampler, HasLaw):
            with pytest.raises(OutOfRangeError, match="has no distribution"):
                client.distribution(arrays["users"], arrays["positives"], model=method)
        asked = (arrays["users"], arrays["positives"])
        if expected.items is None:
            with pytest.raises(OutOfRangeError, match="has no items"):
                client.items(*asked, model=method)
        else:
            named = client.items(*asked, n=N, **options)
            assert torch.equal(named.items, expected.items)


def in_form(arrays: dict[str, torch.Tensor], form: str) -> dict[str, Any]:
    """`item_features.NAME` as JSON has it."""
    if form != "json":
        return arrays
    features = {
        name.removeprefix(FEATURES): table.tolist()
        for name, table in arrays.items()
        if name.startswith(FEATURES)
    }
    plain = {name: table for name, table in arrays.items() if not name.startswith(FEATURES)}
    return {**plain, "item_features": features} if features else plain
