"""Whether an answer to nonsense is one that the documentation allows."""

import json

from core.errors import TurnpointError
from service.problems import FRAMEWORK, MEDIA_TYPE

FIELDS = {"type", "title", "status", "detail", "code", "request_id"}


def codes(root: type[TurnpointError] = TurnpointError) -> set[str]:
    """The codes of the error tree from there down."""
    return {root.code}.union(*(codes(child) for child in root.__subclasses__()))


KNOWN = (codes() - {"internal"}) | {code for code, _ in FRAMEWORK.values()}


def judge(status: int, media_type: str | None, body: bytes) -> str:
    """What is wrong with an answer; empty if nothing is.

    Nonsense is at times harmless and then answered; else it is refused as the caller's fault, or
    because the caller gave it no time.
    """
    if 200 <= status < 300:
        return ""
    if not (400 <= status < 500 or status == 504):
        return f"status {status}: {body[:200]!r}"
    if media_type != MEDIA_TYPE:
        return f"status {status} as {media_type}: {body[:200]!r}"
    document = json.loads(body)
    if set(document) != FIELDS or document["status"] != status:
        return f"status {status} with fields {sorted(document)}"
    return "" if document["code"] in KNOWN else f"unknown code {document['code']!r}"
