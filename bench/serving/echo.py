"""(e) Half of the floor: the same bytes moved, by the least that one can ask of uvicorn.

The body goes into one buffer and the answer comes from one; both are there already, so no page is
touched for the first time.
"""

import argparse
from collections.abc import Iterable

import uvicorn
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope


class Echo:
    """An ASGI application that answers `size` bytes, with these headers besides its own."""

    def __init__(self, size: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.answer = memoryview(bytearray(size))
        self.body = bytearray()
        self.headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", str(size).encode()),
            *((name.encode(), value.encode()) for name, value in headers),
        ]

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Read it all, answer at once."""
        assert scope["type"] == "http"
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        if len(self.body) < int(lengths[0]):
            self.body = bytearray(int(lengths[0]))
        body, end, more = memoryview(self.body), 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            chunk = message["body"]
            body[end : end + len(chunk)] = chunk
            end, more = end + len(chunk), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.answer, "more_body": False})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--header", nargs=2, action="append", default=[], help="name, value")
    args = parser.parse_args()
    echo = Echo(args.size, args.header)
    uvicorn.run(echo, port=args.port, log_level="warning", access_log=False, lifespan="off")
