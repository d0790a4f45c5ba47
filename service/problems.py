"""Errors on the wire: RFC 9457 problem+json, made in one place.

`STATUS` gives each class of `core.errors` its status and title; a subclass without an entry has its
parent's. Whatever else escapes a route is a 500 `internal` that tells the log everything and the
caller nothing but the request's id.
"""

import logging
import math

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import errors

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:turnpoint:error:"  # one heading each in docs/errors.md
log = logging.getLogger("turnpoint.service")


class NotAcceptableError(errors.UnsupportedMediaTypeError):
    """An Accept header that names none of the formats, or one that cannot hold the answer."""


STATUS: dict[type[errors.TurnpointError], tuple[int, str]] = {
    errors.TurnpointError: (500, "Internal error"),
    errors.ConfigError: (500, "The service is misconfigured"),
    errors.DataError: (500, "The service cannot read its data"),
    errors.PairsError: (500, "The entry of the stream cannot be used"),
    errors.CheckpointError: (500, "The checkpoint cannot be used"),
    errors.CheckpointMissingError: (500, "The checkpoint is missing"),
    errors.CheckpointCorruptError: (500, "The checkpoint is corrupt"),
    errors.CheckpointRefusedError: (500, "The checkpoint was refused"),
    errors.RequestError: (400, "The request cannot be answered"),
    errors.UnauthorizedError: (401, "Unauthorized"),
    errors.ForbiddenError: (403, "Forbidden"),
    errors.MalformedError: (400, "Malformed request"),
    errors.UnsupportedMediaTypeError: (415, "Unsupported media type"),
    NotAcceptableError: (406, "Not acceptable"),
    errors.TooLargeError: (413, "Too large"),
    errors.HeadTooLargeError: (431, "Head too large"),
    errors.UrlTooLongError: (414, "URL too long"),
    errors.RequestTimeoutError: (408, "Request timeout"),
    errors.DimensionMismatchError: (422, "Dimension mismatch"),
    errors.NonFiniteError: (422, "Not finite"),
    errors.EmptyBatchError: (422, "Empty batch"),
    errors.OutOfRangeError: (422, "Out of range"),
    errors.UnknownModelError: (404, "Unknown model"),
    errors.UnknownVersionError: (404, "Unknown version"),
    errors.UnavailableError: (503, "Unavailable"),
    errors.OverloadedError: (429, "Overloaded"),
    errors.RateLimitedError: (429, "Rate limited"),
    errors.NotReadyError: (503, "Not ready"),
    errors.DeadlineExceededError: (504, "Deadline exceeded"),
}
# The rest of the request is not read, so the connection cannot be used again.
UNREAD = frozenset({408, 413, 414, 431})
# What the framework itself refuses, by status.
FRAMEWORK = {
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
}


def status_of(error: errors.TurnpointError) -> tuple[int, str]:
    """Status and title of an error, its own or its nearest ancestor's."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: Exception, request_id: str) -> Response:
    """The answer that tells a caller of an error."""
    headers: dict[str, str] = {}
    match error:
        case errors.TurnpointError():
            status, title = status_of(error)
            code, detail = error.code, str(error)
            if isinstance(error, errors.UnavailableError) and status in {429, 503}:
                headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        case HTTPException():
            status, detail = error.status_code, str(error.detail)
            code, title = FRAMEWORK.get(status, ("bad_request", "The request cannot be answered"))
            headers.update(error.headers or {})
        case RequestValidationError():
            status, code, title = 400, "malformed", "Malformed request"
            detail = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
            )
        case _:
            status, code, title = 500, "internal", "Internal error"
            detail = "the service failed; its log has the cause under this request_id"
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="turnpoint"'
    if status in UNREAD:
        headers["Connection"] = "close"
    document = {
        "type": TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    return Response(orjson.dumps(document), status, headers, MEDIA_TYPE)


async def handler(request: Request, error: Exception) -> Response:
    """The one exception handler of the application."""
    request.state.error = error
    return problem(error, request.state.request_id)


HANDLED: tuple[type[Exception], ...] = (
    errors.TurnpointError,
    HTTPException,
    RequestValidationError,
)


class Boundary:
    """Pure ASGI: what no handler knows becomes a 500 here, logged with its trace."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; answer for what escapes, unless an answer has begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            known = isinstance(error, HANDLED)
            request_id = scope["state"]["request_id"]
            if not known:
                log.exception("request %s failed", request_id)
            if begun:
                raise
            scope["state"]["error"] = error
            await problem(error, request_id)(scope, receive, send)
