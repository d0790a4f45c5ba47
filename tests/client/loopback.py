"""Servers on real sockets, and the asynchronous client behind the blocking one's face."""

import asyncio
import inspect
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO

import uvicorn
from turnpoint_client import AsyncClient

from tests.client.fake import Answer, Request

Message = dict[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any
]


class Awaiting:
    """An `AsyncClient` on an event loop of its own, called as if it blocked."""

    def __init__(
        self,
        *args: Any,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        **options: Any,
    ) -> None:
        self._runner = asyncio.Runner(loop_factory=loop_factory)
        self._client = AsyncClient(*args, **options)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        async def call(*args: Any, **options: Any) -> Any:
            result = found(*args, **options)
            return await result if inspect.isawaitable(result) else result

        return lambda *args, **options: self._runner.run(call(*args, **options))

    def __enter__(self) -> "Awaiting":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


async def body_of(receive: Callable[[], Awaitable[Message]]) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def asgi(service: Callable[[Request], Answer], ports: list[int]) -> App:
    """A service as an ASGI application that notes from which port each request came."""

    async def app(scope: Message, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        ports.append(scope["client"][1])
        request = Request.of(
            scope["method"],
            scope["path"],
            scope["query_string"].decode(),
            headers,
            await body_of(receive),
        )
        answer = service(request)
        sent = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        sent.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": sent})
        await send({"type": "http.response.body", "body": answer.body})

    return app


@contextmanager
def serving(app: App) -> Iterator[str]:
    """uvicorn in a thread; gives its address."""
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_level="critical", ws="none", http="h11", loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


Pieces = Sequence[bytes]


@contextmanager
def speaking(*connections: Sequence[Pieces], linger: float = 0.0) -> Iterator[str]:
    """Says for each connection what it answers to one request after the other, byte for byte.

    An answer is sent piece by piece, each seen for itself by the other side. After the last one it
    waits `linger` seconds and hangs up.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for answers in connections:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with connection, connection.makefile("rb") as stream:
                    for pieces in answers:
                        read_request(stream)
                        for piece in pieces:
                            connection.sendall(piece)
                            time.sleep(0.01 * (len(pieces) > 1))
                    time.sleep(linger)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


def read_request(stream: BinaryIO) -> bytes:
    """The body of the next request."""
    length = 0
    while (line := stream.readline().strip()) != b"":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return stream.read(length)


def hanging_up(*replies: bytes) -> AbstractContextManager[str]:
    """Reads a request per connection, answers with the next bytes, whole or not, and hangs up."""
    return speaking(*([[reply]] for reply in replies))


def silent_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
