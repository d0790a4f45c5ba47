"""What goes over the wire and back, against a second, independent reading of the contract."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from turnpoint_client import Client, Negatives, ProtocolError, TurnpointClientError

from tests.client.fake import JSON, OCTETS, SAFETENSORS, Answer, Fake, Request, write_safetensors
from tests.client.harness import both, mock, scripted

U = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
P = np.array([[7, 8, 9], [1, 0, -1]], np.float32)
FORMATS = ["octet-stream", "safetensors", "json"]
MEDIA = dict(zip(FORMATS, [OCTETS, SAFETENSORS, JSON], strict=True))

# integers that every dtype of the wire holds exactly, so that equality is the test
exact = st.integers(-8, 8).map(float)


@st.composite
def batches(draw: Any) -> tuple[Any, Any]:
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 6)))
    arrays = hnp.arrays(np.float32, shape, elements=exact)
    return draw(arrays), draw(arrays)


def expected(users: Any, positives: Any, n: int) -> Any:
    return positives[:, None] + np.arange(n)[None, :, None] * users[:, None]


@settings(max_examples=25, deadline=None)
@given(batches(), st.integers(1, 4), st.sampled_from(FORMATS), st.booleans())
def test_a_round_trip_keeps_every_number(
    batch: tuple[Any, Any], n: int, form: str, packed: bool
) -> None:
    users, positives = batch
    fakes: list[Fake] = []

    def start() -> Fake:
        fakes.append(Fake(users.shape[1], packed))
        return fakes[-1]

    answer = both(start, lambda c: c.negatives(users, positives, n=n, format=form)).result
    np.testing.assert_array_equal(answer.negatives, expected(users, positives, n))
    assert answer.negatives.dtype == np.float32
    for fake in fakes:
        assert fake.seen[0]["users"] == users.tolist()
        assert fake.seen[0]["positives"] == positives.tolist()
    if form != "octet-stream":
        assert answer.transition.tolist() == list(range(len(users)))
        assert answer.transition.dtype == np.int64


@pytest.mark.parametrize("form", ["safetensors", "json"])
@pytest.mark.parametrize("packed", [False, True])
def test_everything_asked_for_comes_back(form: str, packed: bool) -> None:
    returns = ("negatives", "transition", "distribution", "scores")
    answer = both(
        lambda: Fake(packed_json=packed),
        lambda c: c.negatives(U, P, n=2, returns=returns, format=form),
    ).result
    np.testing.assert_array_equal(answer.mean, P)
    np.testing.assert_array_equal(answer.std, np.abs(U))
    np.testing.assert_array_equal(answer.scores, np.einsum("bd,bnd->bn", U, expected(U, P, 2)))
    assert (answer.model, answer.version, answer.seed, answer.request_id) == (
        "demo",
        "v2",
        7,
        "r-1",
    )
    assert answer.timings == {"decode": 0.25, "queue": 1.0, "sample": 2.5}
    assert "array" not in repr(answer)


def test_what_was_not_asked_for_is_none() -> None:
    answer = both(Fake, lambda c: c.negatives(U, P, returns="negatives")).result
    assert [answer.transition, answer.mean, answer.std, answer.scores] == [None] * 4


@pytest.mark.parametrize("form", FORMATS)
def test_the_formats_say_the_same(form: str) -> None:
    fakes: list[Fake] = []

    def start() -> Fake:
        fakes.append(Fake())
        return fakes[-1]

    options = {
        "transition": "calibrated",
        "omega": 0.1,
        "k": 2,
        "hardness": np.float32(0.25),
        "relative_margin": 0.05,
        "absolute_margin": None,
        "seed": np.int64(2**62),
        "progress": 0.5,
        "version": "v 1&2",
    }
    both(start, lambda c: c.negatives(U, P, n=3, returns="negatives", format=form, **options))
    asked = fakes[0].seen[0]
    assert {name: asked[name] for name in asked if name not in {"users", "positives"}} == {
        "n": "3",
        "returns": ["negatives"],
        "transition": "calibrated",
        "omega": "0.1",
        "k": "2.0",
        "hardness": "0.25",
        "relative_margin": "0.05",
        "seed": str(2**62),
        "progress": "0.5",
        "version": "v 1&2",
    }


@pytest.mark.parametrize("form", ["safetensors", "json"])
def test_arrays_beside_the_pair(form: str) -> None:
    fakes: list[Fake] = []

    def start() -> Fake:
        fakes.append(Fake())
        return fakes[-1]

    text = np.array([[1.0, 2.0], [3.0, 4.0]])
    both(
        start,
        lambda c: c.negatives(
            U, P, threshold=[0.5, 1], item_features={"text": text}, user_ids=[5, 6], format=form
        ),
    )
    asked = fakes[0].seen[0]
    assert asked["threshold"] == [0.5, 1.0]
    assert asked["item_features.text"] == text.tolist()
    assert asked["user_ids"] == [5, 6]


def test_user_ids_may_be_strings_in_json() -> None:
    sent = both(Fake, lambda c: c.negatives(U, P, user_ids=["a", "b"], format="json")).sent
    assert json.loads(sent[0].body)["user_ids"] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "media"),
    [
        ({"returns": "negatives"}, OCTETS),
        ({"returns": ["negatives"], "seed": 1, "omega": 2.0}, OCTETS),
        ({}, SAFETENSORS),
        ({"format": "octet-stream"}, OCTETS),
        ({"returns": "negatives", "threshold": [1, 2]}, SAFETENSORS),
        ({"returns": ["negatives", "scores"]}, SAFETENSORS),
    ],
)
def test_the_fastest_format_that_carries_the_call(options: dict[str, Any], media: str) -> None:
    (sent,) = both(Fake, lambda c: c.negatives(U, P, **options)).sent
    assert sent.headers["content-type"] == sent.headers["accept"] == media


def test_the_fast_path_is_the_bytes_of_the_arrays() -> None:
    (sent,) = both(Fake, lambda c: c.negatives(U, P, returns="negatives")).sent
    assert sent.body == U.tobytes() + P.tobytes()
    assert sent.headers["content-length"] == str(len(sent.body))
    assert "transfer-encoding" not in sent.headers


def test_headers_of_every_request() -> None:
    options: dict[str, Any] = {"api_key": "k3y", "headers": {"X-Team": "rec"}, "model": "demo"}
    outcome = both(Fake, lambda c: c.negatives(U, P), lambda c: c.models(), **options)
    for sent in outcome.sent:
        assert sent.headers["authorization"] == "Bearer k3y"
        assert sent.headers["x-team"] == "rec"
        assert sent.headers["host"] == "tp"
        assert sent.headers["accept-encoding"] == "identity"
        assert sent.headers["user-agent"].startswith("turnpoint-client/")
    assert outcome.sent[0].query["model"] == ["demo"]
    assert "content-type" not in outcome.sent[1].headers


def test_a_call_may_name_another_model() -> None:
    (sent,) = both(Fake, lambda c: c.negatives(U, P, model="b"), model="a").sent
    assert sent.query["model"] == ["b"]


def test_a_distribution_is_drawn_from_here() -> None:
    outcome = both(Fake, lambda c: c.distribution(U, P, transition="exact", seed=3))
    assert outcome.sent[0].query["returns"] == ["distribution", "transition"]
    assert "n" not in outcome.sent[0].query
    law = outcome.result
    assert (law.version, law.seed, law.transition.tolist()) == ("v2", 3, [0, 1])
    drawn = law.draw(20_000, 0)
    assert drawn.shape == (2, 20_000, 3)
    assert drawn.dtype == np.float32
    # 20 000 draws: standard errors are 0.007 std for a mean, 0.5 % for a deviation
    bound = 0.03
    assert np.all(np.abs(drawn.mean(1) - law.mean) < bound * law.std)
    assert np.all(np.abs(drawn.std(1) / law.std - 1) < bound)
    assert np.all(np.abs((1.05 * drawn).std(1) / law.std - 1) > bound), "the test sees 5 %"
    np.testing.assert_array_equal(law.draw(2, 5), law.draw(2, np.random.default_rng(5)))
    assert not np.array_equal(law.draw(), law.draw())


@pytest.mark.parametrize("form", ["safetensors", "json"])
@pytest.mark.parametrize("packed", [False, True])
def test_items_come_without_their_vectors(form: str, packed: bool) -> None:
    outcome = both(
        lambda: Fake(packed_json=packed), lambda c: c.items(U, P, n=3, format=form, seed=3)
    )
    (sent,) = outcome.sent
    if form == "safetensors":
        assert (sent.query["returns"], sent.query["n"]) == (["items"], ["3"])
    answer = outcome.result
    assert answer.items.dtype == np.int64
    assert answer.items.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (answer.model, answer.version, answer.seed) == ("demo", "v2", 3)
    assert "array" not in repr(answer)


def test_items_that_are_no_integers_are_no_answer() -> None:
    def floats(request: Request) -> Answer:
        arrays = {"items": ("F32", [2, 1], bytes(8))}
        told = {"model": "demo", "version": "v2", "seed": "7"}
        return Answer(200, {"content-type": SAFETENSORS}, write_safetensors(arrays, told))

    error = both(lambda: floats, lambda c: c.items(U, P)).error
    assert isinstance(error, ProtocolError)
    assert "items came as float32" in str(error)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("returns", ["negatives", ("negatives", "distribution")])
def test_half_precision(dtype: str, returns: Any) -> None:
    answer = both(Fake, lambda c: c.negatives(U, P, n=2, dtype=dtype, returns=returns)).result
    # numpy has no bfloat16: it is widened, which is exact
    assert answer.negatives.dtype == (np.float16 if dtype == "float16" else np.float32)
    np.testing.assert_array_equal(answer.negatives, expected(U, P, 2))


@pytest.mark.parametrize("form", FORMATS)
def test_answers_can_be_written_to(form: str) -> None:
    answer = both(Fake, lambda c: c.negatives(U, P, format=form)).result
    answer.negatives[:] = 0
    assert not answer.negatives.any()


def test_models() -> None:
    listed, one, nobody = both(
        Fake, lambda c: c.models(), lambda c: c.model("demo"), lambda c: c.model("a/b ?")
    ).results
    assert listed == [one]
    assert (one.name, one.live, one.dim, one.versions[0].version) == ("demo", "v2", 3, "v2")
    assert nobody.code == "unknown_model"


def test_names_are_quoted() -> None:
    outcome = both(Fake, lambda c: c.model("a/b ?%"))
    assert outcome.requests[0][1] == "http://tp/models/a%2Fb%20%3F%25"


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        (Answer(200, {}, b""), True),
        (Answer(503, {}, b""), False),
        (Answer(404, {}, b""), TurnpointClientError),
    ],
)
def test_ready(answer: Answer, ready: Any) -> None:
    outcome = both(scripted(answer), lambda c: c.ready())
    assert outcome.result is ready if isinstance(ready, bool) else isinstance(outcome.result, ready)


def asked(**changes: Any) -> Answer:
    """A good octet-stream answer to (U, P), n = 1, with changes; None takes a header away."""
    good = Fake().answer(
        {"users": U.tolist(), "positives": P.tolist(), "returns": ["negatives"]}, OCTETS
    )
    body = changes.pop("body", good.body)
    headers = good.headers | {name.replace("_", "-"): value for name, value in changes.items()}
    return Answer(200, {name: value for name, value in headers.items() if value is not None}, body)


def safetensors(header: bytes) -> Answer:
    return asked(content_type=SAFETENSORS, body=len(header).to_bytes(8, "little") + header)


def tensor(dtype: str, shape: list[int], size: int) -> Answer:
    body = write_safetensors({"negatives": (dtype, shape, bytes(size))}, {})
    return asked(content_type=SAFETENSORS, body=body)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (asked(content_type="text/html"), "text/html"),
        (asked(content_type=None), "of no type"),
        (asked(x_negatives_shape=None), "x-negatives-shape"),
        (asked(x_negatives_shape="2,x,3"), "invalid literal"),
        (asked(x_negatives_shape="2,2,3"), "takes 48 bytes, but 24 came"),
        (asked(x_negatives_shape="-2,-1,3"), "24 came"),
        (asked(x_negatives_shape="1,2,3"), r"came as \[1, 2, 3\], expected \[2, 1, 3\]"),
        (asked(x_negatives_dtype="complex64"), "complex64"),
        (asked(x_negatives_dtype="int64", body=bytes(48)), "came as int64"),
        (asked(x_model_version=None), "does not say its version"),
        (asked(x_seed="soon"), "'soon', no integer"),
        (asked(body=b""), "but 0 came"),
        (asked(content_type=JSON, body=b"{"), "no valid application/json"),
        (asked(content_type=JSON, body=b"[]"), "no valid application/json"),
        (asked(content_type=JSON, body=b"{}"), "lacks"),
        (asked(content_type=JSON, body=b'{"negatives": [[1], [2, 3]]}'), "no valid"),
        (asked(content_type=JSON, body=b'{"negatives": {"data": "!"}}'), "no valid"),
        (asked(content_type=SAFETENSORS, body=b"\xff" * 9), "a header of"),
        (asked(content_type=SAFETENSORS, body=b""), "no valid"),
        (safetensors(b"{}"), "lacks"),
        (safetensors(b"[]"), "no valid"),
        (safetensors(b'{"negatives": {"dtype": "F32"}}'), "no valid"),
        (tensor("F32", [2, 1, 3], 20), "takes 24 bytes, but 20 came"),
        (tensor("I8", [2, 1, 3], 6), "came as I8"),
        (tensor("F32", [2, 3, 1], 24), "expected"),
        (tensor("F32", [[2], 1, 3], 24), "no valid"),  # type: ignore[list-item]
        (Answer(307, {"location": "https://tp/x"}, b""), "status 307 to https://tp/x"),
    ],
)
def test_an_answer_that_does_not_fit_the_contract(answer: Answer, message: str) -> None:
    outcome = both(scripted(answer), lambda c: c.negatives(U, P, returns="negatives"))
    assert type(outcome.error) is ProtocolError
    with pytest.raises(ProtocolError, match=message):
        raise outcome.error


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([OCTETS, SAFETENSORS, JSON]))
def test_no_bytes_break_the_readers(body: bytes, media: str) -> None:
    start = scripted(asked(content_type=media, body=body))
    result = both(start, lambda c: c.negatives(U, P, returns="negatives")).result
    assert isinstance(result, ProtocolError | Negatives)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=4),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "negatives"]), x)
        ),
        max_leaves=12,
    )
)
def test_no_header_breaks_the_reader(header: Any) -> None:
    start = scripted(safetensors(json.dumps({"negatives": header}).encode()))
    error = both(start, lambda c: c.negatives(U, P, returns="negatives")).error
    assert isinstance(error, ProtocolError)


@pytest.mark.parametrize("body", [b"x", b"[]", b"{}", b'{"models": [{}]}', b'{"models": [3]}'])
def test_a_list_of_models_that_is_none(body: bytes) -> None:
    start = scripted(Answer(200, {"content-type": JSON}, body))
    assert isinstance(both(start, lambda c: c.models()).error, ProtocolError)


@pytest.mark.parametrize("url", ["http://tp/api", "http://tp/api/"])
def test_a_service_behind_a_path(url: str) -> None:
    paths = []

    def serve(request: Request) -> Answer:
        paths.append(request.path)
        return Fake()(Request("GET", "/models", {}, {}, b""))

    with Client(url, transport=mock(serve, [])) as client:
        client.models()
    assert paths == ["/api/models"]
