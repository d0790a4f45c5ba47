"""What a request may be: its id, its size, and its body in one buffer. Pure ASGI."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import MalformedError, TooLargeError

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Takes the caller's X-Request-ID if it is sane, else makes one; every answer carries it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put `request_id` into the request's state and the header on the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        await self.app(scope, receive, named)


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
        raise MalformedError("Content-Length is no whole number")
    return int(given[:20])


async def read_body(request: Request) -> bytearray:
    """The whole body in one buffer, of its final size from the start where the length is known.

    Raises:
        ClientDisconnect: the caller hung up before the end.
    """
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
