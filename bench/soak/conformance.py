"""The OpenAPI document as a source of requests and a judge of answers, by schemathesis."""

import json
import urllib.request
from collections import Counter
from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi import checks

from bench.soak.refusals import judge

SAFETENSORS = "application/x-safetensors"
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]

schemathesis.openapi.media_type(SAFETENSORS, st.binary(max_size=500))


@schemathesis.serializer(SAFETENSORS)
def as_it_is(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Bytes; what a negative case has in their place, as text."""
    return value if isinstance(value, bytes) else str(value).encode()


def document_of(url: str) -> dict[str, Any]:
    """What the service says of itself."""
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def conformance(
    url: str, examples: int, document: dict[str, Any] | None = None
) -> tuple[int, Counter[str]]:
    """Ask for every operation as the document allows, and as it does not.

    Args:
        url: of the service.
        examples: for each operation, valid ones and others.
        document: default: the service's own.

    Returns:
        How many requests were made, and what was wrong with the answers, by message.
    """
    schema = schemathesis.openapi.from_dict(document or document_of(url))
    asked, broken = 0, Counter[str]()
    for operation in schema.get_all_operations():
        for mode in schemathesis.GenerationMode:
            cases = operation.ok().as_strategy(generation_mode=mode)

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=cases)
            def ask(case: schemathesis.Case) -> None:
                nonlocal asked
                asked += 1
                broken.update(wrong_with(case, case.call(base_url=url)))

            with suppress(Unsatisfiable):  # an operation without parameters has no invalid request
                ask()
    return asked, broken


def wrong_with(case: schemathesis.Case, answer: schemathesis.Response) -> list[str]:
    """What an answer has against the document, or against `refusals.judge`."""
    media_type = answer.headers.get("content-type", [""])[0]
    found = [judge(answer.status_code, media_type, answer.content)]
    try:
        case.validate_response(answer, checks=CHECKS)
    except FailureGroup as group:
        found += [told(failure) for failure in group.exceptions]
    except Failure as failure:
        found.append(told(failure))
    return [f"{case.operation.label}: {why}" for why in found if why]


def told(failure: BaseException) -> str:
    """One line."""
    return f"{type(failure).__name__}: {' '.join(str(failure).split())[:200]}"
