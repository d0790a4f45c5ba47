"""What comes back is what the mathematics says, in every format, alone or beside others."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import safetensors.torch
import torch
from scipy import stats

from tests.service.live import (
    DIM,
    JSON,
    OCTET,
    SAFE,
    Live,
    as_json,
    expected,
    floats,
    octet,
    pairs,
    safe,
)

BODIES = {
    "octet-stream": lambda u, p: (octet(u, p), OCTET),
    "safetensors": lambda u, p: (safe(users=u, positives=p), SAFE),
    "json": lambda u, p: (as_json(users=u, positives=p), JSON),
}


def read(response: httpx.Response) -> dict[str, torch.Tensor]:
    """Any answer's tensors."""
    assert response.status_code == 200, response.text[:300]
    kind = response.headers["content-type"]
    if kind == "application/octet-stream":
        shape = map(int, response.headers["x-negatives-shape"].split(","))
        return {"negatives": floats(response.content, *shape)}
    if kind == "application/x-safetensors":
        return safetensors.torch.load(response.content)
    told = {"model", "version", "seed"}
    return {
        name: torch.tensor(value, dtype=torch.int64 if name == "transition" else torch.float64)
        for name, value in response.json().items()
        if name not in told
    }


def post(live: Live, query: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(f"{live.url}/negatives?{query}", content=body, headers=headers, timeout=30)


def standardized(live: Live, seed: int) -> np.ndarray:
    """256 draws for each of 32 rows, minus the mean and divided by the std that came with them.

    131 072 numbers that must be N(0, 1). At level 1e-4 Kolmogorov-Smirnov rejects beyond
    2.23 / sqrt(131072) = 0.0062; a std that is 10 % off moves the distribution function by 0.023,
    a mean that is 0.05 std off by 0.020, and chance adds about 0.002: the power is 1 for practical
    purposes.
    """
    body = safe(**dict(zip(("users", "positives"), pairs(32, seed=seed), strict=True)))
    query = f"n=256&returns=negatives&returns=distribution&seed={seed}"
    found = read(post(live, query, body, SAFE))
    centred = found["negatives"] - found["mean"].unsqueeze(1)
    return (centred / found["std"].unsqueeze(1)).numpy().ravel()


@pytest.mark.parametrize("seed", range(5))
def test_draws_have_the_law_that_is_returned(live_service: Live, seed: int) -> None:
    z = standardized(live_service, seed)
    assert stats.kstest(z, "norm").pvalue > 1e-4
    # Negative controls: the same test sees a wrong std and a wrong mean.
    assert stats.kstest(z / 1.1, "norm").pvalue < 1e-4
    assert stats.kstest(z * 1.1, "norm").pvalue < 1e-4
    assert stats.kstest(z + 0.05, "norm").pvalue < 1e-4


@pytest.mark.parametrize(("omega", "k"), [(1.0, 1.0), (0.3, 2.5)])
def test_score_aware_transition_is_eq_11_to_the_integer(
    live_service: Live, omega: float, k: float
) -> None:
    users, positives = pairs(4096, seed=3)
    query = f"transition=score_aware&omega={omega}&k={k}&returns=transition"
    found = read(post(live_service, query, safe(users=users, positives=positives), SAFE))
    score = (users.numpy().astype(np.float64) * positives.numpy().astype(np.float64)).sum(1)
    exact = 50 / (1 + np.exp(-omega * np.exp(k * score)))
    clear = np.abs(exact % 1 - 0.5) > 1e-4  # scores are float32: leave out what lies on an edge
    assert clear.mean() > 0.99
    assert len(set(np.rint(exact))) > 10  # of the 25 values there are
    assert (found["transition"].numpy()[clear] == np.rint(exact)[clear]).all()


@pytest.mark.parametrize("rule", ["score_aware", "calibrated", "theorem", "exact", "random"])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_the_answer_is_that_of_core_bit_by_bit(live_service: Live, rule: str, rows: int) -> None:
    users, positives = pairs(rows, seed=rows)
    answer = post(live_service, f"n=3&seed=11&transition={rule}", octet(users, positives), OCTET)
    version = answer.headers["x-model-version"]
    right = expected(live_service.address, version, users, positives, seed=11, n=3, rule=rule)
    assert torch.equal(read(answer)["negatives"], right)
    assert answer.headers["x-negatives-shape"] == f"{rows},3,{DIM}"
    assert answer.headers["x-negatives-dtype"] == "float32"
    assert answer.headers["x-seed"] == "11"


def test_same_seed_same_answer_beside_other_requests(live_service: Live) -> None:
    users, positives = pairs(64)
    body = octet(users, positives)
    alone = {seed: post(live_service, f"n=4&seed={seed}", body, OCTET).content for seed in range(8)}
    assert len(set(alone.values())) == 8

    def ask(index: int) -> bool:
        if index % 2:  # other sizes, rules and formats in between
            noise = safe(**dict(zip(("users", "positives"), pairs(index + 1), strict=True)))
            return post(live_service, "transition=random&n=9", noise, SAFE).status_code == 200
        seed = index // 2 % 8
        return post(live_service, f"n=4&seed={seed}", body, OCTET).content == alone[seed]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(96)))


def test_without_a_seed_answers_differ_and_the_seed_told_repeats_them(live_service: Live) -> None:
    users, positives = pairs(4)
    first, second = (post(live_service, "", octet(users, positives), OCTET) for _ in range(2))
    assert first.content != second.content
    seed = first.headers["x-seed"]
    assert 0 <= int(seed) < 2**53
    again = post(live_service, f"seed={seed}", octet(users, positives), OCTET)
    assert again.content == first.content


def test_the_formats_give_the_same_numbers(live_service: Live) -> None:
    users, positives = pairs(33, seed=5)
    asked = "n=3&seed=2&returns=negatives&returns=transition&returns=distribution&returns=scores"
    answers = {}
    for name, make in BODIES.items():
        body, headers = make(users, positives)
        for accept in ("application/x-safetensors", "application/json"):
            response = post(live_service, asked, body, headers | {"Accept": accept})
            answers[name, accept] = read(response)
    reference = answers["octet-stream", "application/x-safetensors"]
    assert sorted(reference) == ["mean", "negatives", "scores", "std", "transition"]
    for found in answers.values():
        for name, tensor in reference.items():
            # A decimal that stands for a float32 gives back that float32.
            assert torch.equal(found[name].to(tensor.dtype), tensor), name
    bare = post(live_service, "n=3&seed=2", octet(users, positives), OCTET)
    assert torch.equal(read(bare)["negatives"], reference["negatives"])
    score = torch.einsum("bd,bnd->bn", users, reference["negatives"])
    assert torch.allclose(score, reference["scores"], atol=1e-5)


def test_json_arrays_may_be_base64(live_service: Live) -> None:
    import base64

    users, positives = pairs(5)
    plain = post(live_service, "seed=1", as_json(users=users, positives=positives), JSON).json()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        cast = users.to(dtype)
        encoded = {
            "shape": [5, DIM],
            "dtype": str(dtype).removeprefix("torch."),
            "data": base64.b64encode(cast.view(torch.uint8).numpy().tobytes()).decode(),
        }
        body = as_json(users=encoded, positives=positives, seed=1)
        found = post(live_service, "", body, JSON).json()
        if dtype == torch.float32:
            assert found == plain
        else:
            same = as_json(users=cast.float(), positives=positives, seed=1)
            assert found == post(live_service, "", same, JSON).json()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_the_rounded_float32(live_service: Live, dtype: str) -> None:
    users, positives = pairs(6)
    body = safe(users=users, positives=positives)
    full = read(post(live_service, "n=2&seed=3&returns=scores&returns=negatives", body, SAFE))
    half = read(
        post(live_service, f"n=2&seed=3&returns=scores&returns=negatives&dtype={dtype}", body, SAFE)
    )
    for name in ("negatives", "scores"):
        assert torch.equal(half[name], full[name].to(getattr(torch, dtype)))
    bare = post(live_service, f"n=2&seed=3&dtype={dtype}", octet(users, positives), OCTET)
    assert bare.headers["x-negatives-dtype"] == dtype
    raw = torch.frombuffer(bytearray(bare.content), dtype=getattr(torch, dtype))
    assert torch.equal(raw, half["negatives"].flatten())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs(live_service: Live, dtype: torch.dtype) -> None:
    users, positives = (array.to(dtype) for array in pairs(6))
    found = post(live_service, "seed=3", safe(users=users, positives=positives), SAFE)
    same = post(
        live_service, "seed=3", safe(users=users.float(), positives=positives.float()), SAFE
    )
    assert found.content == same.content


def test_margins_are_thresholds_from_the_positive_score(live_service: Live) -> None:
    users, positives = pairs(50, seed=9)
    score = (users * positives).sum(-1)
    given = score - 0.3

    def steps(query: str, **more: torch.Tensor) -> list[int]:
        body = safe(users=users, positives=positives, **more)
        full = f"transition=exact&returns=transition&{query}"
        return read(post(live_service, full, body, SAFE))["transition"].tolist()

    relative = steps("", threshold=0.8 * score)
    absolute = steps("", threshold=score - 0.5)
    assert steps("relative_margin=0.2") == relative
    assert steps("absolute_margin=0.5") == absolute
    assert relative != absolute
    # The smallest holds.
    smallest = torch.minimum(torch.minimum(0.8 * score, score - 0.5), given)
    both = steps("relative_margin=0.2&absolute_margin=0.5", threshold=given)
    assert both == steps("", threshold=smallest)
    assert both not in (relative, absolute)


def test_user_ids_change_nothing(live_service: Live) -> None:
    users, positives = pairs(3)
    body = {"users": users, "positives": positives}
    plain = post(live_service, "seed=3", safe(**body), SAFE)
    ids = torch.tensor([4, 5, 6])
    assert post(live_service, "seed=3", safe(**body, user_ids=ids), SAFE).content == plain.content
    listed = as_json(**body, user_ids=["a", 5, "c"], seed=3)
    assert post(live_service, "", listed, JSON).json()["seed"] == 3


def test_every_answer_says_who_made_it(live_service: Live) -> None:
    users, positives = pairs(3)
    for make in BODIES.values():
        body, headers = make(users, positives)
        answer = post(live_service, "seed=3", body, headers | {"X-Request-ID": "step-17"})
        assert answer.headers["x-request-id"] == "step-17"
        assert answer.headers["x-model"] == "demo"
        assert answer.headers["x-seed"] == "3"
        timings = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
        assert list(timings) == ["decode", "queue", "sample", "encode"]
        assert all(float(value) >= 0 for value in timings.values())
    document = post(live_service, "seed=3", *BODIES["json"](users, positives)).json()
    assert document["model"] == "demo"
    assert document["version"] == answer.headers["x-model-version"]
    assert document["seed"] == 3
    assert {"negatives", "transition"} <= document.keys()
    tensors = post(live_service, "seed=3", *BODIES["safetensors"](users, positives)).content
    length = int.from_bytes(tensors[:8], "little")
    import json

    told = json.loads(tensors[8 : 8 + length])["__metadata__"]
    assert told == {"model": "demo", "version": document["version"], "seed": "3"}


def test_no_header_grows_with_the_batch(live_service: Live) -> None:
    sizes = []
    for rows in (10, 4000):
        body, headers = BODIES["octet-stream"](*pairs(rows))
        answer = post(live_service, "seed=3", body, headers | {"X-Request-ID": "a"})
        sizes.append(len(str(answer.headers)))
    assert abs(sizes[0] - sizes[1]) < 20


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/octet-stream"),
        ("application/json", "application/json"),
        ("application/json;q=0.1, application/x-safetensors", "application/x-safetensors"),
        ("application/json;q=0.5, */*;q=0.4", "application/json"),
        ("text/html, application/*;q=0.2", "application/octet-stream"),
    ],
)
def test_accept_is_followed(live_service: Live, accept: str, kind: str) -> None:
    body, headers = BODIES["octet-stream"](*pairs(2))
    answer = post(live_service, "", body, headers | {"Accept": accept})
    assert answer.headers["content-type"] == kind


def test_t_equals_one_and_n_equals_one(start: object, tmp_path: object) -> None:
    from tests.service.live import publish

    for denoiser in ("film", "moment"):
        publish(str(tmp_path), model=denoiser, num_steps=1, denoiser=denoiser)
    live = start(tmp_path)  # type: ignore[operator]
    users, positives = pairs(1)
    for denoiser in ("film", "moment"):
        for rule in ("score_aware", "theorem", "exact", "random", "fixed", "mixed"):
            query = f"model={denoiser}&transition={rule}&seed=0"
            answer = post(live, query, octet(users, positives), OCTET)
            right = expected(
                live.address,
                answer.headers["x-model-version"],
                users,
                positives,
                seed=0,
                model=denoiser,
                rule=rule,
            )
            assert torch.equal(read(answer)["negatives"], right)
