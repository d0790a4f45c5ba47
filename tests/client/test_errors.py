"""From the service's refusals to the tree at the top of errors.py."""

import json
import pickle

import numpy as np
import pytest
import turnpoint_client.errors as errors
from turnpoint_client import ProblemError, TurnpointClientError

from tests.client.fake import PROBLEM, Answer, problem
from tests.client.harness import both, scripted

U = np.ones((2, 3), np.float32)

# The contract's table, word by word.
CONTRACT = {
    "malformed": (400, "MalformedError"),
    "unauthorized": (401, "UnauthorizedError"),
    "unknown_model": (404, "UnknownModelError"),
    "unknown_version": (404, "UnknownVersionError"),
    "unsupported_media_type": (415, "UnsupportedMediaTypeError"),
    "too_large": (413, "TooLargeError"),
    "dimension_mismatch": (422, "DimensionMismatchError"),
    "non_finite": (422, "NonFiniteError"),
    "empty_batch": (422, "EmptyBatchError"),
    "out_of_range": (422, "OutOfRangeError"),
    "overloaded": (429, "OverloadedError"),
    "not_ready": (503, "NotReadyError"),
    "deadline_exceeded": (504, "DeadlineExceededError"),
}


def refusal(answer: Answer) -> ProblemError:
    error = both(scripted(answer), lambda c: c.negatives(U, U), retries=0).error
    assert isinstance(error, ProblemError)
    return error


@pytest.mark.parametrize("code", CONTRACT)
def test_each_code_has_its_error(code: str) -> None:
    status, name = CONTRACT[code]
    answer = problem(status, code, {"retry-after": "2"}, detail="row 3 is NaN", request_id="r-9")
    error = refusal(answer)
    assert type(error).__name__ == name
    assert (error.status, error.code, error.detail) == (status, code, "row 3 is NaN")
    assert (error.title, error.request_id, error.retry_after) == (
        code.replace("_", " "),
        "r-9",
        2.0,
    )
    assert str(error) == f"{status} {code}: row 3 is NaN (request r-9)"


def test_no_error_is_without_a_code_and_no_code_without_an_error() -> None:
    assert set(CONTRACT) == set(errors.BY_CODE)
    leaves = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    for kind in leaves:
        assert kind.__name__ in (errors.__doc__ or "") or kind is TurnpointClientError


def test_a_deadline_missed_there_is_a_time_out_here() -> None:
    assert isinstance(refusal(problem(504, "deadline_exceeded")), TimeoutError)


def test_an_unknown_code_is_a_plain_problem() -> None:
    error = refusal(problem(409, "of_tomorrow"))
    assert type(error) is ProblemError
    assert error.code == "of_tomorrow"


def test_the_request_id_may_come_in_a_header_alone() -> None:
    assert refusal(problem(400, "malformed", {"x-request-id": "r-7"})).request_id == "r-7"
    assert refusal(problem(400, "malformed")).request_id is None


@pytest.mark.parametrize(
    ("status", "body", "name", "detail"),
    [
        (401, b"who are you?", "UnauthorizedError", "who are you?"),
        (413, b"<html>\n <b>too  large</b>", "TooLargeError", "<html> <b>too large</b>"),
        (415, b"", "UnsupportedMediaTypeError", ""),
        (429, b"slow down", "OverloadedError", "slow down"),
        (502, b"\xff\xfe" + b"x" * 5000, "UnavailableError", "\ufffd\ufffd" + "x" * 198),
        (503, b"", "UnavailableError", ""),
        (504, b"", "UnavailableError", ""),
        (418, b"", "ProblemError", ""),
        (599, b"", "ProblemError", ""),
    ],
)
def test_a_refusal_that_is_no_problem_document(
    status: int, body: bytes, name: str, detail: str
) -> None:
    error = refusal(Answer(status, {"content-type": "text/html"}, body))
    assert type(error).__name__ == name
    assert (error.code, error.detail) == (f"http_{status}", detail)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b"{}", b'{"detail": null}'])
def test_a_problem_document_that_is_none(body: bytes) -> None:
    error = refusal(Answer(400, {"content-type": PROBLEM}, body))
    assert (error.status, error.code, error.title) == (400, "http_400", "Bad Request")


def test_members_of_other_types_do_not_break_the_reader() -> None:
    body = json.dumps({"code": 3, "title": [], "detail": {"a": 1}, "request_id": 5}).encode()
    error = refusal(Answer(400, {"content-type": PROBLEM}, body))
    assert (error.code, error.detail, error.request_id) == ("3", "{'a': 1}", "5")


@pytest.mark.parametrize("kind", [*errors.BY_CODE.values(), ProblemError])
def test_problems_cross_process_borders(kind: type[ProblemError]) -> None:
    error = kind(429, "overloaded", "busy", "later", "r-1", retry_after=2.0)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert vars(again) == vars(error)
    assert str(again) == str(error) == "429 overloaded: later (request r-1)"


@pytest.mark.parametrize("kind", [errors.TimedOutError, errors.ConnectError, errors.ProtocolError])
def test_so_do_the_others(kind: type[TurnpointClientError]) -> None:
    assert str(pickle.loads(pickle.dumps(kind("what happened")))) == "what happened"
