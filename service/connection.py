"""What a connection may do while there is no request yet, or no longer: pure defence.

uvicorn's parser takes a head of any size, for any time, and reads what follows a refusal for ever;
an answer that nobody reads stays in memory. Here each has a bound: in bytes, in headers and in
seconds. What is refused gets the same problem+json as everything else.
"""

import asyncio
import http
import uuid
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core.errors import (
    HeadTooLargeError,
    MalformedError,
    RequestError,
    RequestTimeoutError,
    UrlTooLongError,
)
from service.limits import stamp
from service.metrics import NO_ROUTE, Metrics
from service.problems import problem
from service.settings import ServerSettings

# What may come before the application runs and can answer: uvicorn stops reading at 64 KiB that it
# has not taken, and one read from the socket brings up to 256 KiB.
UNSEEN_BYTES = 320 * 1024


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 connection, bounded.

    Args:
        limits: of the head, and the two time-outs.
        metrics: told of what is refused here, which no application sees.
    """

    def __init__(self, *args: Any, limits: ServerSettings, metrics: Metrics, **more: Any) -> None:
        super().__init__(*args, **more)
        self.limits = limits
        self.metrics = metrics
        self._in_head = False
        self._messages = 0
        self._raw_bytes = 0  # of the message that is being read, with all framing
        self._refusal: RequestError | None = None
        self._reading = _Alarm(self.loop, self._too_slow)
        self._writing = _Alarm(self.loop, self._unread)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller who says nothing is not waited for, either."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """No timer outlives its connection."""
        self._reading.clear()
        self._writing.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; count what came for the message that was being read already."""
        before = self._messages
        super().data_received(data)
        if self._messages == before:
            self._raw_bytes += len(data)
        if self._in_head and self._raw_bytes > self.limits.max_head_bytes:
            self._refuse(self._head_too_large())
        elif self._raw_bytes > 2 * self.limits.max_body_bytes + UNSEEN_BYTES:
            self.transport.abort()  # trailers, bytes in many chunks, or what follows a refusal
        self._watch()

    def on_message_begin(self) -> None:
        """A new head, with time of its own."""
        super().on_message_begin()
        self._in_head, self._raw_bytes = True, 0
        self._messages += 1
        self._reading.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers are left out."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, though it came at once."""
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.url) > self.limits.max_url_bytes:
            self._refusal = UrlTooLongError(
                f"the URL has {len(self.url)} bytes, at most {self.limits.max_url_bytes}: "
                "send arrays in the body"
            )
        elif len(self.headers) > self.limits.max_headers or size > self.limits.max_head_bytes:
            self._refusal = self._head_too_large()
        if self._refusal is not None:
            raise self._refusal  # the parser stops, and answers with `send_400_response`
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """What the parser could not read, or was stopped at, as a problem document."""
        self._refuse(
            self._refusal
            or MalformedError("this is no HTTP request: send HTTP/1.1, as in RFC 9112")
        )

    def pause_writing(self) -> None:
        """The caller reads slowly: it has the time of a body."""
        super().pause_writing()
        self._writing.set(self.limits.body_timeout_seconds)

    def resume_writing(self) -> None:
        """It read."""
        self._writing.clear()
        super().resume_writing()

    def _watch(self) -> None:
        """Have a timer run whenever it is the caller's turn to send."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._reading.clear()
        elif not self.transport.is_closing():
            in_body = cycle is not None and cycle.more_body and not self._in_head
            limits = self.limits
            self._reading.set(
                limits.body_timeout_seconds if in_body else limits.head_timeout_seconds
            )

    def _too_slow(self) -> None:
        if self._in_head:
            self._refuse(
                RequestTimeoutError(
                    f"the head of the request did not arrive within "
                    f"{self.limits.head_timeout_seconds:g} s: send it at once"
                )
            )
        self.transport.close()

    def _unread(self) -> None:
        self.transport.abort()  # close() would wait for the reader

    def _head_too_large(self) -> HeadTooLargeError:
        return HeadTooLargeError(
            f"at most {self.limits.max_headers} headers and {self.limits.max_head_bytes} bytes of "
            "URL and headers are read: send fewer"
        )

    def _refuse(self, error: RequestError) -> None:
        """Answer with a problem and hang up."""
        if self.transport.is_closing():
            return
        request_id = uuid.uuid4().hex
        answer = problem(error, request_id)
        answer.headers["Connection"] = "close"
        stamp(answer.raw_headers, request_id)
        phrase = http.HTTPStatus(answer.status_code).phrase
        lines = [f"HTTP/1.1 {answer.status_code} {phrase}".encode()]
        lines += [name + b": " + value for name, value in answer.raw_headers]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()
        self.metrics.requests.labels(NO_ROUTE, str(answer.status_code)).inc()


class _Alarm:
    """Rings once, unless it is cleared before."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Ring after so many seconds; what is set already stays as it is."""
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._ring)

    def clear(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
