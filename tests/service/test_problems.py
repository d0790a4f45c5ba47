"""Every error of the tree has a status, a title, a code and a line in docs/errors.md."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.exceptions import RequestValidationError

from core import errors
from service import problems

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "service", "trainer", "cli")
PAGE = (ROOT / "docs" / "errors.md").read_text()


def tree(root: type[errors.TurnpointError]) -> list[type[errors.TurnpointError]]:
    return [root] + [kind for child in root.__subclasses__() for kind in tree(child)]


ALL = tree(errors.TurnpointError)


def test_the_whole_tree_is_looked_at() -> None:
    assert len(ALL) >= 20
    assert errors.DeadlineExceededError in ALL
    shared = {kind for kind in ALL if "code" not in vars(kind)}  # has its parent's
    assert len({kind.code for kind in ALL}) == len(ALL) - len(shared)
    assert {problems.STATUS[kind][0] for kind in shared} == {406, 414, 429, 431}


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_mapped_and_documented(kind: type[errors.TurnpointError]) -> None:
    assert kind in problems.STATUS, "give it a status of its own"
    status, title = problems.STATUS[kind]
    answer = problems.problem(kind("what, the value, the mend"), "id-1")
    document = json.loads(bytes(answer.body))
    assert answer.status_code == status
    assert answer.media_type == "application/problem+json"
    assert document == {
        "type": f"urn:turnpoint:error:{kind.code}",
        "title": title,
        "status": status,
        "detail": "what, the value, the mend",
        "code": kind.code,
        "request_id": "id-1",
    }
    row = re.search(rf"^\| `{kind.code}` \| {status} \| .{{5,}} \| .{{5,}} \|$", PAGE, re.MULTILINE)
    assert row, f"docs/errors.md has no line for {kind.code} with status {status}"


def messages() -> Iterator[tuple[str, str]]:
    """Where an error of the tree is made, and the literal words of its message."""
    names = {kind.__name__ for kind in ALL}
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=str(text)), *_]):
                    words = text
                case ast.Call(func=ast.Name(id=name), args=[ast.JoinedStr(values=parts), *_]):
                    words = "".join(str(p.value) for p in parts if isinstance(p, ast.Constant))
                case _:
                    continue
            if name in names and " " in words:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", words


def test_every_message_has_a_second_half_that_names_the_mend() -> None:
    """What was wrong, then after a colon or the like what would be right; or what it must be."""
    told = list(messages())
    assert len(told) > 120
    mend = re.compile(r"[:;,(.] |must |needs ")
    assert [where for where, words in told if not mend.search(words)] == []


def test_every_documented_code_exists() -> None:
    codes = {kind.code for kind in ALL} | {code for code, _ in problems.FRAMEWORK.values()}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == codes


def test_an_error_of_tomorrow_has_its_parents_status() -> None:
    class TomorrowError(errors.NonFiniteError):
        pass

    try:
        assert problems.status_of(TomorrowError("x")) == (422, "Not finite")
    finally:
        del TomorrowError


@pytest.mark.parametrize(
    ("kind", "seconds", "header"),
    [
        (errors.OverloadedError, 0.02, "1"),
        (errors.OverloadedError, 7.2, "8"),
        (errors.NotReadyError, 2.0, "2"),
        (errors.DeadlineExceededError, 2.0, None),
    ],
)
def test_retry_after(
    kind: type[errors.UnavailableError], seconds: float, header: str | None
) -> None:
    assert problems.problem(kind("x", seconds), "id").headers.get("retry-after") == header


def test_validation_by_the_framework_is_malformed() -> None:
    error = RequestValidationError([{"loc": ("query", "n"), "msg": "bad", "input": "SECRET"}])
    answer = problems.problem(error, "id")
    document = json.loads(bytes(answer.body))
    assert (document["code"], document["status"]) == ("malformed", 400)
    assert "query.n: bad" in document["detail"]
    assert "SECRET" not in document["detail"]
