"""Arbitrary bytes are refused, never a 500, and the service goes on."""

import json
import struct
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.soak import refusals
from core.errors import RequestError
from service import codecs
from service.offer import Offer
from tests.service.live import DIM, JSON, OCTET, SAFE, Live, as_json, octet, pairs, safe

USERS, POSITIVES = pairs(3)
# The service's own threads may use `random` while a value is drawn here.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the .random. module")

VALID = {
    "application/octet-stream": octet(USERS, POSITIVES),
    "application/x-safetensors": safe(users=USERS, positives=POSITIVES),
    "application/json": as_json(users=USERS, positives=POSITIVES, n=2),
}
OFFER = Offer(
    method="everything",
    dim=DIM,
    inputs=("users", "positives", "threshold", "popularity", "item_features.image"),
    features={"image": DIM},
    strata=3,
)
HEADERS = {"octet": OCTET, "safe": SAFE, "json": JSON}
KINDS = list(zip(HEADERS, VALID.values(), strict=True))
QUICK = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)


@st.composite
def mutated(draw: st.DrawFn, body: bytes) -> bytes:
    """A valid body, damaged in a few places, cut, or with something in between."""
    raw = bytearray(body)
    for _ in range(draw(st.integers(0, 4))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del raw[draw(st.integers(0, len(raw))) :]
    if draw(st.booleans()):
        at = draw(st.integers(0, len(raw)))
        raw[at:at] = draw(st.binary(max_size=40))
    return bytes(raw)


NUMBERS = st.one_of(
    st.floats(), st.integers(-(2**70), 2**70), st.none(), st.booleans(), st.text(max_size=3)
)
ANYTHING = st.recursive(
    NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
ROWS = st.lists(st.lists(st.floats(width=32), min_size=DIM, max_size=DIM), max_size=3)
BASE64 = st.fixed_dictionaries(
    {
        "shape": st.lists(st.integers(-2, 2**65), max_size=5),
        "dtype": st.sampled_from(["float32", "float16", "bfloat16", "int64", "x"]),
        "data": st.text("AB=+/", max_size=16),
    }
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "users": ROWS | BASE64 | ANYTHING,
        "positives": ROWS | BASE64 | ANYTHING,
        "threshold": st.lists(NUMBERS, max_size=3) | ANYTHING,
        "popularity": st.lists(st.integers(-1, 4), max_size=3) | BASE64 | ANYTHING,
        "item_features": st.dictionaries(
            st.sampled_from(["image", "x"]) | st.text(max_size=3), ROWS | BASE64 | ANYTHING
        )
        | ANYTHING,
        "progress": NUMBERS,
        "user_ids": st.lists(st.text() | st.integers(), max_size=3) | ANYTHING,
        "n": st.integers(-1, 300) | ANYTHING,
        "omega": NUMBERS,
        "k": NUMBERS,
        "hardness": NUMBERS,
        "relative_margin": NUMBERS,
        "absolute_margin": NUMBERS,
        "transition": st.sampled_from(["exact", "theorem", "calibrated", "mixed"]) | NUMBERS,
        "returns": st.lists(st.sampled_from(["negatives", "scores", "distribution", "x"])),
        "seed": st.integers() | NUMBERS,
        "model": st.text(max_size=5) | NUMBERS,
        "version": st.text(max_size=5) | NUMBERS,
        "dtype": st.text(max_size=5),
    },
).map(lambda document: json.dumps(document).encode())


@st.composite
def lying(draw: st.DrawFn) -> bytes:
    """A safetensors body whose header says what it likes."""
    size = st.integers(-1, 200) | st.integers(2**31, 2**70)
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "F64", "BOOL"]) | ANYTHING,
            "shape": st.lists(size, max_size=3) | ANYTHING,
            "data_offsets": st.lists(size, min_size=2, max_size=2) | ANYTHING,
        }
    )
    names = st.sampled_from(
        ["users", "positives", "threshold", "popularity", "user_ids", "__metadata__", "x"]
    ) | st.sampled_from(["item_features.image", "item_features."])
    header = json.dumps(draw(st.dictionaries(names, entry | ANYTHING, max_size=4))).encode()
    length = draw(st.just(len(header)) | st.integers(0, 2**64 - 1))
    return struct.pack("<Q", length) + header + draw(st.binary(max_size=400))


def bodies(kind: str, valid: bytes) -> st.SearchStrategy[bytes]:
    shaped = {"json": DOCUMENTS, "safe": lying()}.get(kind, st.binary(max_size=4 * DIM * 8))
    return st.one_of(st.binary(max_size=300), mutated(valid), shaped)


def decoded(kind: str, body: bytes) -> codecs.Inputs:
    raw = bytearray(body)
    if kind == "octet":
        arrays: dict[str, Any] = codecs.from_octet_stream(raw, DIM)
    elif kind == "safe":
        arrays = codecs.from_safetensors(raw)
    else:
        arrays, _ = codecs.from_json(raw, 100)
    return codecs.checked(arrays, OFFER, 100)


def decodes_or_refuses(kind: str, body: bytes) -> None:
    try:
        inputs = decoded(kind, body)
    except RequestError as refused:
        assert len(str(refused)) < 500
        return
    assert inputs.users.shape == inputs.positives.shape == (inputs.rows, DIM)
    assert inputs.rows >= 1


@pytest.mark.parametrize(("kind", "valid"), KINDS)
@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_decoders_answer_or_refuse(kind: str, valid: bytes, data: st.DataObject) -> None:
    decodes_or_refuses(kind, data.draw(bodies(kind, valid)))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "valid"), KINDS)
@settings(deadline=None, max_examples=20_000)
@given(data=st.data())
def test_decoders_answer_or_refuse_at_length(kind: str, valid: bytes, data: st.DataObject) -> None:
    decodes_or_refuses(kind, data.draw(bodies(kind, valid)))


@pytest.mark.parametrize(("kind", "valid"), KINDS)
@QUICK
@given(data=st.data())
def test_the_service_answers_or_refuses(
    live_service: Live, http: httpx.Client, kind: str, valid: bytes, data: st.DataObject
) -> None:
    body = data.draw(bodies(kind, valid))
    answer = http.post(f"{live_service.url}/negatives", content=body, headers=HEADERS[kind])
    judge(answer)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


@QUICK
@given(
    query=st.lists(
        st.tuples(
            st.sampled_from(["n", "k", "omega", "seed", "returns", "transition", "dtype"]) | TEXT,
            TEXT | st.integers().map(str) | st.floats().map(str),
        ),
        max_size=4,
    )
)
def test_any_query_is_answered_or_refused(
    live_service: Live, http: httpx.Client, query: list[tuple[str, str]]
) -> None:
    body = VALID["application/octet-stream"]
    url = f"{live_service.url}/negatives"
    judge(http.post(url, params=query, content=body, headers=OCTET))


@QUICK
@given(
    name=st.sampled_from(
        ["accept", "content-type", "x-request-timeout-ms", "x-request-id", "content-encoding"]
    ),
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40),
)
def test_any_header_is_answered_or_refused(
    live_service: Live, http: httpx.Client, name: str, value: str
) -> None:
    body = VALID["application/octet-stream"]
    judge(http.post(f"{live_service.url}/negatives", content=body, headers=OCTET | {name: value}))


@QUICK
@given(
    head=st.sampled_from(list(HEADERS.values())),
    chunks=st.lists(st.binary(max_size=4 * DIM * 4), max_size=5),
)
def test_any_chunked_body_is_answered_or_refused(
    live_service: Live, http: httpx.Client, head: dict[str, str], chunks: list[bytes]
) -> None:
    judge(http.post(f"{live_service.url}/negatives", content=iter(chunks), headers=head))


def judge(answer: httpx.Response) -> None:
    media_type = answer.headers.get("content-type")
    assert refusals.judge(answer.status_code, media_type, answer.content) == ""
    if answer.status_code == 200:
        assert answer.headers["x-model"] == "demo"


@pytest.fixture
def http() -> Any:
    with httpx.Client(timeout=30) as client:
        yield client
