"""From an answer that is no success to the error that says so."""

import math
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from ._reply import Reply
from .errors import BY_CODE, BY_STATUS, ProblemError, ProtocolError, TurnpointClientError

QUOTED = 200  # characters of a foreign error page worth repeating


def retry_after(headers: httpx.Headers) -> float | None:
    """Seconds asked for by `Retry-After` (RFC 9110, 10.2.3), never negative; None if unreadable.

    A date is measured from the answer's own `Date` if it has one: the clocks need not agree.
    """
    asked = headers.get("retry-after", "").strip()
    try:
        seconds = float(asked)
    except ValueError:
        try:
            until = parsedate_to_datetime(asked).timestamp()
            now = (
                parsedate_to_datetime(headers["date"]).timestamp()
                if "date" in headers
                else time.time()
            )
        except ValueError:
            return None
        seconds = until - now
    return max(0.0, seconds) if math.isfinite(seconds) else None


def error_of(reply: Reply) -> TurnpointClientError:
    """The error that a reply with a status other than 2xx stands for."""
    if reply.status < 400:
        where = reply.headers.get("location")
        led = f" to {where}; use the final address as the client's url" if where else ""
        return ProtocolError(f"expected an answer, got status {reply.status}{led}")
    problem = _problem_document(reply)
    if "code" in problem:
        code = str(problem["code"])
        kind = BY_CODE.get(code, ProblemError)
    else:
        code = f"http_{reply.status}"
        kind = BY_STATUS.get(reply.status, ProblemError)
    request_id = problem.get("request_id") or reply.headers.get("x-request-id")
    return kind(
        reply.status,
        code,
        str(problem.get("title") or httpx.codes.get_reason_phrase(reply.status)),
        str(problem.get("detail") or ""),
        request_id=str(request_id) if request_id else None,
        retry_after=retry_after(reply.headers),
    )


def _problem_document(reply: Reply) -> dict[str, Any]:
    """The members of a problem document (RFC 9457), or a page's first words as its detail."""
    if reply.media_type in {"application/problem+json", "application/json"}:
        try:
            document = reply.document()
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return document
    page = " ".join(bytes(reply.body[: 4 * QUOTED]).decode("utf-8", "replace").split())
    return {"detail": page[:QUOTED]}
