"""What a request may be: its id, its size, and its body in one buffer. Pure ASGI.

What its head may be is decided earlier, in `service.connection`.
"""

import asyncio
import re
import uuid

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import MalformedError, RequestTimeoutError, TooLargeError
from service import logs

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
POLICY = b"content-security-policy"
NOTHING = b"default-src 'none'; frame-ancestors 'none'"
# On every answer: it is what it says it is, no cache keeps it, no page shows it in a frame.
SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class RequestId:
    """Takes the caller's X-Request-ID if it is sane, else makes one: for the answer and the log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put `request_id` into the request's state; stamp it and `SAFE_HEADERS` on the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                stamp(message["headers"], request_id)
            await send(message)

        token = logs.request_id.set(request_id)
        try:
            await self.app(scope, receive, stamped)
        finally:
            logs.request_id.reset(token)


def stamp(headers: list[tuple[bytes, bytes]], request_id: str) -> None:
    """Add the id and `SAFE_HEADERS` to an answer's headers, and a policy where it has none."""
    headers.append((b"x-request-id", request_id.encode()))
    headers.extend(SAFE_HEADERS)
    if not any(name == POLICY for name, _ in headers):
        headers.append((POLICY, NOTHING))


class BodyLimit:
    """Refuses a body by its Content-Length, unread; counts a chunked one while it is read."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with a counting `receive`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if (declared_length(Headers(scope=scope)) or 0) > self.max_bytes:
            raise self._too_large(f"{declared_length(Headers(scope=scope))} bytes announced")
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.max_bytes:
                raise self._too_large(f"{read} bytes read so far")
            return message

        await self.app(scope, counted, send)

    def _too_large(self, what: str) -> TooLargeError:
        return TooLargeError(f"{what}; at most {self.max_bytes}: send fewer rows per request")


def declared_length(headers: Headers) -> int | None:
    """The Content-Length, None where there is none.

    Raises:
        MalformedError: it is no number.
    """
    given = headers.get("content-length")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit()):
        raise MalformedError("Content-Length must be a whole number of bytes")
    return int(given[:20])


async def read_body(request: Request, seconds: float) -> bytearray:
    """The whole body in one buffer, of its final size from the start where the length is known.

    Raises:
        ClientDisconnect: the caller hung up before the end.
        RequestTimeoutError: the end did not come in time.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _received(request)
    except TimeoutError as error:
        raise RequestTimeoutError(
            f"the body did not arrive within {seconds:g} s: send fewer rows per request, or have "
            "TURNPOINT_SERVER__BODY_TIMEOUT_SECONDS raised"
        ) from error


async def _received(request: Request) -> bytearray:
    buffer = bytearray(declared_length(request.headers) or 0)
    end, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        if end + len(chunk) <= len(buffer):
            memoryview(buffer)[end : end + len(chunk)] = chunk
        else:
            buffer[end:] = chunk
        end += len(chunk)
        more = message.get("more_body", False)
    del buffer[end:]
    return buffer
