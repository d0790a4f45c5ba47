"""One request and its answer over HTTP/1.1; no IO, so both clients share it.

h11 writes and reads the heads, and reads bodies of no known length. It would copy each byte of a
body three times; where the length is known nothing is left to parse, so that body goes past it,
from the kernel into the one buffer that the arrays of the answer will lie in.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import cast

import h11
import httpx
import numpy as np

HEAD = 1 << 16  # bytes of a read while nobody knows how many there are, and of the longest head
ROOM = 1 << 30  # bytes set aside on the word of a header; beyond that memory grows as they arrive


@contextmanager
def _in_httpx_terms() -> Iterator[None]:
    try:
        yield
    except h11.LocalProtocolError as error:
        raise httpx.LocalProtocolError(str(error)) from error
    except h11.RemoteProtocolError as error:
        raise httpx.RemoteProtocolError(str(error)) from error


class _Handed(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A whole body, given away: httpx's response is a cycle and would keep it until collected."""

    def __init__(self, body: memoryview) -> None:
        self._body = [body]

    def __iter__(self) -> Iterator[bytes]:
        while self._body:
            yield cast("bytes", self._body.pop())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for body in self:
            yield body


class Exchange:
    """Says what to send and where to receive, until the answer is whole.

    Args:
        request: with a stream that can be iterated over without awaiting.

    Attributes:
        response: the answer once it is whole, its body in one chunk; None before.
    """

    def __init__(self, request: httpx.Request) -> None:
        self.response: httpx.Response | None = None
        self._request = request
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD)
        self._head: h11.Response | None = None
        self._read = memoryview(bytearray(HEAD))
        self._grown = bytearray()
        self._body: memoryview | None = None  # of known length, `_end` bytes of which are there
        self._end = 0
        self._surplus = False

    def parts(self) -> Iterator[bytes]:
        """What to send, in order; the chunks of the body are the stream's own, not copies.

        Raises:
            httpx.LocalProtocolError: a header that must not be sent, or a body of another length.
        """
        request, target = self._request, self._request.url.raw_path
        with _in_httpx_terms():
            head = h11.Request(method=request.method, target=target, headers=request.headers.raw)
            body = (h11.Data(data=chunk) for chunk in cast("Iterable[bytes]", request.stream))
            for event in chain([head], body, [h11.EndOfMessage()]):
                yield from self._connection.send_with_data_passthrough(event) or ()

    def buffer(self) -> memoryview:
        """Where the next bytes are to go, as many as come."""
        return self._read if self._body is None else self._body[self._end :]

    def received(self, count: int) -> None:
        """Takes note of the next bytes in the buffer; none when the other side hung up.

        Raises:
            httpx.RemoteProtocolError: it hung up too early, or what it sent is no HTTP.
        """
        if self._body is not None:
            self._place(count)
        elif count == 0 and self._head is None:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        else:
            with _in_httpx_terms():
                self._connection.receive_data(bytes(self._read[:count]))
                self._parse()

    @property
    def reusable(self) -> bool:
        """Whether the connection can carry another request, once the answer is whole."""
        # h11 is not DONE here if a side wants to close, or if the request was not sent to its end.
        return self._connection.our_state is h11.DONE and not self._surplus

    def _place(self, count: int) -> None:
        assert self._body is not None  # noqa: S101
        if count == 0:
            told = f"received {self._end} bytes, expected {len(self._body)}"
            raise httpx.RemoteProtocolError(f"the other side hung up in mid-answer ({told})")
        self._end += count
        if self._end == len(self._body):
            self._finish(self._body)

    def _parse(self) -> None:
        """All that h11 can make of the bytes so far."""
        while self.response is None:
            event = self._connection.next_event()
            if isinstance(event, h11.Response):
                self._head = event
                if (length := self._length(event)) is not None:
                    self._go_past(length)
                    return
            elif isinstance(event, h11.Data):
                self._grown += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._surplus = bool(self._connection.trailing_data[0])
                self._finish(memoryview(self._grown))
            elif event is h11.NEED_DATA:
                return

    def _length(self, head: h11.Response) -> int | None:
        """Bytes of the body, if it is one to receive without h11; else None."""
        headers = dict(head.headers)
        plain = head.status_code == 200 and self._request.method in {"GET", "POST"}
        if not plain or b"transfer-encoding" in headers or b"content-length" not in headers:
            return None
        length = int(headers[b"content-length"])
        return length if 0 < length <= ROOM else None

    def _go_past(self, length: int) -> None:
        """Sets the body's memory aside and moves there what came together with the head."""
        came, _ = self._connection.trailing_data
        self._surplus = len(came) > length
        self._body = np.empty(length, np.uint8).data  # a bytearray would be zeroed first
        count = min(len(came), length)
        self._body[:count] = came[:count]
        self._end = count
        if count == length:
            self._finish(self._body)

    def _finish(self, body: memoryview) -> None:
        assert self._head is not None  # noqa: S101
        self.response = httpx.Response(
            self._head.status_code,
            headers=self._head.headers.raw_items(),
            stream=_Handed(body),
            extensions={
                "http_version": b"HTTP/" + self._head.http_version,
                "reason_phrase": self._head.reason,
            },
        )
