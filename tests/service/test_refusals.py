"""Bad input: each a clear problem+json that names the mend, never a 500."""

import json
import socket
import struct
import time
from typing import Any

import httpx
import pytest
import torch

from tests.service.live import DIM, JSON, OCTET, SAFE, Live, as_json, octet, pairs, safe

USERS, POSITIVES = pairs(10)
GOOD = octet(USERS, POSITIVES)


def poisoned(value: float, row: int = 7, column: int = 3) -> torch.Tensor:
    users = USERS.clone()
    users[row, column] = value
    return users


def lying(**entries: Any) -> bytes:
    """A safetensors body with a header of our own making over 1280 bytes of data."""
    header = json.dumps(entries).encode()
    return struct.pack("<Q", len(header)) + header + GOOD


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [10, DIM], "data_offsets": [0, 640]} | changes


WHOLE = entry()
SECOND = entry(data_offsets=[640, 1280])
NULL_ROW = USERS.tolist()
NULL_ROW[7][3] = None
STRING_ROW = USERS.tolist()
STRING_ROW[2][1] = "0.5"
TRUTH_ROW = USERS.tolist()
TRUTH_ROW[2][1] = True
RAGGED = USERS.tolist()
RAGGED[4] = RAGGED[4][:-1]
NAN_JSON = json.dumps({"users": poisoned(float("nan")).tolist(), "positives": POSITIVES.tolist()})
B64 = {"shape": [10, DIM], "dtype": "float32", "data": "AAAA"}
BOTH = {"users": USERS, "positives": POSITIVES}
BOTH_SAFE = safe(**BOTH)

# name: query, body, headers, status, code, words of the detail
CASES: dict[str, tuple[str, bytes, dict[str, str], int, str, list[str]]] = {
    # lengths and dimensions
    "octet wrong length": ("", GOOD[:-4], OCTET, 422, "dimension_mismatch", ["1276", "128"]),
    "octet one byte": ("", b"x", OCTET, 422, "dimension_mismatch", ["1 bytes"]),
    "safe wrong d": (
        "",
        safe(users=USERS[:, :8].clone(), positives=POSITIVES[:, :8].clone()),
        SAFE,
        422,
        "dimension_mismatch",
        ["users", "[10, 8]", "[10, 16]"],
    ),
    "json wrong d": (
        "",
        as_json(users=[[1.0, 2.0]], positives=[[1.0, 2.0]]),
        JSON,
        422,
        "dimension_mismatch",
        ["[1, 2]", "[1, 16]"],
    ),
    "unequal rows": (
        "",
        safe(users=USERS, positives=POSITIVES[:9].clone()),
        SAFE,
        422,
        "dimension_mismatch",
        ["positives", "[9, 16]"],
    ),
    "threshold of other length": (
        "transition=exact",
        safe(**BOTH, threshold=torch.zeros(9)),
        SAFE,
        422,
        "dimension_mismatch",
        ["threshold", "[9]", "[10]"],
    ),
    "three axes": (
        "",
        safe(users=USERS.view(10, DIM, 1), positives=POSITIVES),
        SAFE,
        422,
        "dimension_mismatch",
        ["[10, 16, 1]"],
    ),
    "ids of other length": (
        "",
        as_json(**BOTH, user_ids=[1, 2]),
        JSON,
        422,
        "dimension_mismatch",
        ["user_ids"],
    ),
    "json ragged": (
        "",
        as_json(users=RAGGED, positives=POSITIVES),
        JSON,
        422,
        "dimension_mismatch",
        ["users row 4", "15", "16"],
    ),
    # not finite
    "octet nan": (
        "",
        octet(poisoned(float("nan")), POSITIVES),
        OCTET,
        422,
        "non_finite",
        ["users row 7 holds nan in column 3"],
    ),
    "safe nan": (
        "",
        safe(users=USERS, positives=poisoned(float("nan"))),
        SAFE,
        422,
        "non_finite",
        ["positives row 7 holds nan in column 3"],
    ),
    "safe inf": (
        "",
        safe(users=poisoned(float("-inf")), positives=POSITIVES),
        SAFE,
        422,
        "non_finite",
        ["users row 7 holds -inf in column 3"],
    ),
    "inf times zero": (
        "",
        octet(poisoned(float("inf")), torch.zeros(10, DIM)),
        OCTET,
        422,
        "non_finite",
        ["users row 7 holds inf in column 3"],
    ),
    "json null": (
        "",
        as_json(users=NULL_ROW, positives=POSITIVES),
        JSON,
        422,
        "non_finite",
        ["users row 7 holds null in column 3"],
    ),
    "json NaN": (
        "",
        NAN_JSON.encode(),
        JSON,
        422,
        "non_finite",
        ["users row 7 holds nan in column 3"],
    ),
    "json beyond float32": (
        "",
        as_json(users=poisoned(1.0).double().mul(1e300), positives=POSITIVES),
        JSON,
        422,
        "non_finite",
        ["users row 0 holds"],
    ),
    "score overflows": (
        "",
        octet(poisoned(1e30), poisoned(1e30)),
        OCTET,
        422,
        "non_finite",
        ["row 7", "score overflows"],
    ),
    "law overflows": (
        "",
        octet(poisoned(3e38), POSITIVES * 0),
        OCTET,
        422,
        "non_finite",
        ["row 7", "law overflows"],
    ),
    "threshold nan": (
        "transition=exact",
        safe(**BOTH, threshold=torch.full((10,), float("nan"))),
        SAFE,
        422,
        "non_finite",
        ["threshold row 0 holds nan"],
    ),
    # empty
    "octet empty": ("", b"", OCTET, 422, "empty_batch", []),
    "safe empty": (
        "",
        safe(users=torch.zeros(0, DIM), positives=torch.zeros(0, DIM)),
        SAFE,
        422,
        "empty_batch",
        ["users"],
    ),
    "json empty": ("", as_json(users=[], positives=[]), JSON, 422, "empty_batch", ["users"]),
    # parameters
    "n 0": ("n=0", GOOD, OCTET, 422, "out_of_range", ["n = 0", "[1, 256]"]),
    "n 257": ("n=257", GOOD, OCTET, 422, "out_of_range", ["n = 257"]),
    "n word": ("n=many", GOOD, OCTET, 400, "malformed", ["n = 'many'", "whole number"]),
    "n fraction": ("n=2.5", GOOD, OCTET, 400, "malformed", ["n = '2.5'"]),
    "n twice": ("n=2&n=3", GOOD, OCTET, 400, "malformed", ["n", "twice"]),
    "n string in json": (
        "",
        as_json(**BOTH, n="8"),
        JSON,
        400,
        "malformed",
        ["n must be a whole number, not a string"],
    ),
    "n truth in json": ("", as_json(**BOTH, n=True), JSON, 400, "malformed", ["truth value"]),
    "n 257 in json": ("", as_json(**BOTH, n=257), JSON, 422, "out_of_range", ["n = 257"]),
    "n in both": ("n=2", as_json(**BOTH, n=2), JSON, 400, "malformed", ["query", "body"]),
    "unknown rule": ("transition=best", GOOD, OCTET, 422, "out_of_range", ["best", "exact"]),
    "unknown query": ("count=3", GOOD, OCTET, 422, "out_of_range", ["count", "known", "hardness"]),
    "unknown field": ("", as_json(**BOTH, count=3), JSON, 422, "out_of_range", ["count"]),
    "unknown tensor": ("", safe(**BOTH, items=USERS), SAFE, 422, "out_of_range", ["items"]),
    "hardness 2": (
        "transition=exact&hardness=2",
        GOOD,
        OCTET,
        422,
        "out_of_range",
        ["hardness = 2.0", "[0, 1]"],
    ),
    "omega nan": ("omega=nan", GOOD, OCTET, 422, "out_of_range", ["omega = nan"]),
    "omega 0": ("omega=0", GOOD, OCTET, 422, "out_of_range", ["omega = 0.0"]),
    "parameter of another rule": (
        "transition=theorem&k=2",
        GOOD,
        OCTET,
        422,
        "out_of_range",
        ["k is no parameter"],
    ),
    "margin of another rule": (
        "transition=fixed&relative_margin=0.1",
        GOOD,
        OCTET,
        422,
        "out_of_range",
        ["exact, theorem"],
    ),
    "margin 2": (
        "transition=exact&relative_margin=2",
        GOOD,
        OCTET,
        422,
        "out_of_range",
        ["relative_margin"],
    ),
    "seed -1": ("seed=-1", GOOD, OCTET, 422, "out_of_range", ["seed = -1"]),
    "seed 2**63": (f"seed={2**63}", GOOD, OCTET, 422, "out_of_range", ["seed"]),
    "returns nothing": ("", as_json(**BOTH, returns=[]), JSON, 422, "out_of_range", ["returns"]),
    "returns unknown": ("returns=loss", GOOD, OCTET, 422, "out_of_range", ["loss"]),
    "returns no list": ("", as_json(**BOTH, returns="scores"), JSON, 400, "malformed", ["list"]),
    "dtype unknown": ("dtype=int8", GOOD, OCTET, 422, "out_of_range", ["int8"]),
    "dtype in json": (
        "dtype=float16",
        as_json(**BOTH),
        JSON,
        422,
        "out_of_range",
        ["float16", "x-safetensors"],
    ),
    # models
    "unknown model": ("model=nobody", GOOD, OCTET, 404, "unknown_model", ["nobody", "demo"]),
    "unknown version": ("version=v1", GOOD, OCTET, 404, "unknown_version", ["v1"]),
    "climbing version": (
        "version=../../etc/passwd",
        GOOD,
        OCTET,
        404,
        "unknown_version",
        ["letters, digits"],
    ),
    # formats
    "no content type": ("", GOOD, {}, 415, "unsupported_media_type", ["octet-stream"]),
    "curl's default type": (
        "",
        GOOD,
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "unsupported_media_type",
        ["x-www-form-urlencoded", "octet-stream"],
    ),
    "compressed": (
        "",
        GOOD,
        OCTET | {"Content-Encoding": "gzip"},
        415,
        "unsupported_media_type",
        ["Content-Encoding"],
    ),
    "accept text": (
        "",
        GOOD,
        OCTET | {"Accept": "text/html"},
        406,
        "unsupported_media_type",
        ["text/html", "x-safetensors"],
    ),
    "octet cannot hold the law": (
        "returns=distribution",
        GOOD,
        OCTET,
        406,
        "unsupported_media_type",
        ["negatives alone", "x-safetensors"],
    ),
    "json list": ("", b"[1]", JSON, 400, "malformed", ["object"]),
    "json cut": ("", as_json(**BOTH)[:-5], JSON, 400, "malformed", ["no JSON"]),
    "json empty body": ("", b"", JSON, 400, "malformed", ["no JSON"]),
    "json deep": ("", b"[" * 50_000, JSON, 400, "malformed", []),
    "json deep NaN": ("", b'{"NaN":' * 50_000, JSON, 400, "malformed", []),
    "json strings": (
        "",
        as_json(users=STRING_ROW, positives=POSITIVES),
        JSON,
        400,
        "malformed",
        ["users row 2 holds a string in column 1"],
    ),
    "json truth": (
        "",
        as_json(users=TRUTH_ROW, positives=POSITIVES),
        JSON,
        400,
        "malformed",
        ["truth value"],
    ),
    "json flat": ("", as_json(users=[1.0], positives=[1.0]), JSON, 400, "malformed", ["row 0"]),
    "json word": ("", as_json(users="me", positives=[1.0]), JSON, 400, "malformed", ["users"]),
    "json no positives": ("", as_json(users=USERS), JSON, 400, "malformed", ["positives"]),
    "json huge integer": (
        "",
        b'{"users": [[1'
        + b"0" * 400
        + b", 1" * 14
        + b', NaN]], "positives": [[1'
        + b", 1" * 15
        + b"]]}",
        JSON,
        422,
        "non_finite",
        ["users row 0 holds inf in column 0"],
    ),
    "json ids objects": ("", as_json(**BOTH, user_ids=[{}]), JSON, 400, "malformed", ["row 0"]),
    "base64 too short": (
        "",
        as_json(users=B64, positives=POSITIVES),
        JSON,
        400,
        "malformed",
        ["users.data has 3 bytes", "640"],
    ),
    "base64 no base64": (
        "",
        as_json(users=B64 | {"data": "%%%"}, positives=POSITIVES),
        JSON,
        400,
        "malformed",
        ["base64"],
    ),
    "base64 dtype": (
        "",
        as_json(users=B64 | {"dtype": "float64"}, positives=POSITIVES),
        JSON,
        400,
        "malformed",
        ["float64", "bfloat16"],
    ),
    "base64 shape": (
        "",
        as_json(users=B64 | {"shape": [2**40, 2**40]}, positives=POSITIVES),
        JSON,
        400,
        "malformed",
        ["shape"],
    ),
    "base64 more": (
        "",
        as_json(users=B64 | {"order": "F"}, positives=POSITIVES),
        JSON,
        400,
        "malformed",
        ["exactly"],
    ),
    # safetensors
    "safe truncated": ("", BOTH_SAFE[:-10], SAFE, 400, "malformed", ["truncated"]),
    "safe header cut": ("", BOTH_SAFE[:40], SAFE, 400, "malformed", ["truncated"]),
    "safe seven bytes": ("", b"1234567", SAFE, 400, "malformed", ["truncated"]),
    "safe left over": ("", BOTH_SAFE + b"0000", SAFE, 400, "malformed", ["4 bytes", "left"]),
    "safe huge header": (
        "",
        struct.pack("<Q", 2**63) + GOOD,
        SAFE,
        400,
        "malformed",
        ["header claims"],
    ),
    "safe no positives": ("", safe(users=USERS), SAFE, 400, "malformed", ["positives"]),
    "safe f64": (
        "",
        safe(users=USERS.double(), positives=POSITIVES),
        SAFE,
        400,
        "malformed",
        ["F64", "F32"],
    ),
    "safe i64 users": (
        "",
        safe(users=USERS.long(), positives=POSITIVES),
        SAFE,
        400,
        "malformed",
        ["users", "I64", "F32"],
    ),
    "safe float ids": (
        "",
        safe(**BOTH, user_ids=torch.zeros(10)),
        SAFE,
        400,
        "malformed",
        ["user_ids", "I64"],
    ),
    "safe lying shape": (
        "",
        lying(users=entry(shape=[20, DIM]), positives=SECOND),
        SAFE,
        400,
        "malformed",
        ["users"],
    ),
    "safe overlap": ("", lying(users=WHOLE, positives=WHOLE), SAFE, 400, "malformed", ["640"]),
    "safe beyond": (
        "",
        lying(users=WHOLE, positives=entry(shape=[20, DIM], data_offsets=[640, 1920])),
        SAFE,
        400,
        "malformed",
        ["truncated"],
    ),
    "safe negative": (
        "",
        lying(users=entry(shape=[-10, -DIM]), positives=SECOND),
        SAFE,
        400,
        "malformed",
        ["impossible"],
    ),
    "safe odd entry": ("", lying(users=[1], positives=SECOND), SAFE, 400, "malformed", ["users"]),
    "safe scalar": (
        "",
        safe(users=torch.tensor(1.0), positives=POSITIVES),
        SAFE,
        422,
        "empty_batch",
        ["users"],
    ),
    # headers
    "deadline word": (
        "",
        GOOD,
        OCTET | {"X-Request-Timeout-Ms": "soon"},
        400,
        "malformed",
        ["milliseconds"],
    ),
    "deadline 0": ("", GOOD, OCTET | {"X-Request-Timeout-Ms": "0"}, 400, "malformed", []),
    # too much
    "response too large": (
        "n=256",
        octet(*pairs(20_000)),
        OCTET,
        413,
        "too_large",
        ["n = 256", "returns=distribution"],
    ),
    "scores of too many negatives": (  # 20 MB of scores, from 330 MB of negatives
        "n=256&returns=scores",
        safe(**dict(zip(("users", "positives"), pairs(20_000), strict=True))),
        SAFE,
        413,
        "too_large",
        ["n = 256", "smaller n"],
    ),
    "json rows": (
        "",
        as_json(users=torch.zeros(4097, 1), positives=torch.zeros(4097, 1)),
        JSON,
        413,
        "too_large",
        ["4097", "4096", "octet-stream", "x-safetensors"],
    ),
    "rows": ("", octet(*pairs(65_537)), OCTET, 413, "too_large", ["65537", "65536"]),
}


def check(response: httpx.Response, status: int, code: str, words: list[str]) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert problem.keys() == {"type", "title", "status", "detail", "code", "request_id"}
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    for word in words:
        assert word in problem["detail"], problem["detail"]


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_clearly(live_service: Live, name: str) -> None:
    query, body, headers, status, code, words = CASES[name]
    with httpx.Client(base_url=live_service.url, timeout=30) as client:
        if not headers:
            client.headers.pop("content-type", None)
        check(
            client.post(f"/negatives?{query}", content=body, headers=headers), status, code, words
        )
        # The same connection, or a new one, still gets answers.
        again = client.post("/negatives", content=GOOD, headers=OCTET)
        assert again.status_code == 200


def test_what_the_framework_refuses_is_a_problem_too(live_service: Live) -> None:
    check(httpx.get(f"{live_service.url}/nothing"), 404, "not_found", [])
    check(httpx.get(f"{live_service.url}/negatives/"), 404, "not_found", [])
    refused = httpx.get(f"{live_service.url}/negatives")
    check(refused, 405, "method_not_allowed", [])
    assert refused.headers["allow"] == "POST"
    check(httpx.get(f"{live_service.url}/models/nobody"), 404, "unknown_model", ["demo"])


def test_a_gigabyte_is_refused_by_its_length_unread(live_service: Live) -> None:
    with socket.create_connection(live_service.host, timeout=5) as raw:
        began = time.monotonic()
        raw.sendall(
            b"POST /negatives HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
            b"Content-Length: 1073741824\r\n\r\n"
        )
        answer = b""
        while chunk := raw.recv(65536):  # ends since the service closes the connection
            answer += chunk
    assert time.monotonic() - began < 2
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"code":"too_large"' in answer
    assert b"67108864" in answer


def test_a_chunked_body_is_cut_at_the_limit(start: Any, registry: Any) -> None:
    live = start(registry, server={"max_body_bytes": 100_000})
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 50_000_000:
            sent += 10_000
            yield bytes(10_000)

    check(
        httpx.post(f"{live.url}/negatives", content=endless(), headers=OCTET, timeout=10),
        413,
        "too_large",
        ["at most 100000"],
    )
    assert sent < 50_000_000


def test_a_chunked_body_of_many_times_the_limit_that_comes_at_once_is_answered(
    start: Any, registry: Any
) -> None:
    live = start(registry, server={"max_body_bytes": 10_000})
    with socket.create_connection(live.host, timeout=10) as raw:
        raw.sendall(
            b"POST /negatives HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        time.sleep(0.1)  # the service waits for the body
        raw.sendall(b"%x\r\n" % 60_000 + bytes(60_000))
        assert raw.recv(65536).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("name", ["n 0", "no content type", "accept text"])
def test_a_large_body_refused_unread_leaves_the_connection_usable(
    live_service: Live, name: str
) -> None:
    query, _, headers, status, code, words = CASES[name]
    with httpx.Client(base_url=live_service.url, timeout=10) as client:
        for _ in range(3):
            refused = client.post(f"/negatives?{query}", content=bytes(8_000_000), headers=headers)
            check(refused, status, code, words)
            assert client.post("/negatives", content=GOOD, headers=OCTET).status_code == 200
