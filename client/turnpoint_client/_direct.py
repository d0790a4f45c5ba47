"""Plain HTTP/1.1 to one address at the cost of the bytes: httpx transports over bare sockets.

What httpx's own transports do with a large body costs more than to move it. These do less: whole
answers in one buffer, HTTP/1.1 without TLS, one service and no proxy; for all else httpx's own are
used. Time-outs, limits and errors are as httpx has them.
"""

import asyncio
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx

from ._exchange import Exchange

CONNECTIONS = 100  # at once; a further call waits for its turn, at most the time-out `pool`
EXPIRY = 5.0  # seconds a connection is kept idle; somebody on the way may forget it without a word

Address = tuple[str, int]
Limits = Mapping[str, float | None]


@contextmanager
def _step(late: type[httpx.TimeoutException], failed: type[httpx.NetworkError]) -> Iterator[None]:
    """A network step, its errors in the terms of httpx."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:
        raise failed(str(error)) from error


def _limits(request: httpx.Request) -> Limits:
    limits: Limits = request.extensions["timeout"]
    return limits


class _Idle:
    """Connections between two calls, the last used first; threads may share it."""

    def __init__(self) -> None:
        self._kept: deque[tuple[float, socket.socket]] = deque()
        self._closed = False

    def take(self) -> socket.socket | None:
        """One that is still good, if there is any; the others are closed."""
        while True:
            try:
                since, connection = self._kept.pop()
            except IndexError:
                return None
            if since > time.monotonic() - EXPIRY and _silent(connection):
                return connection
            connection.close()

    def keep(self, connection: socket.socket) -> None:
        """Keeps it for the next call, and closes what nobody has come back to."""
        self._kept.append((time.monotonic(), connection))
        self._drop(before=math.inf if self._closed else time.monotonic() - EXPIRY)

    def close(self) -> None:
        """Closes all of them, and those that are still to come back."""
        self._closed = True
        self._drop(before=math.inf)

    def _drop(self, before: float) -> None:
        with suppress(IndexError):  # none is left, or another thread took the last
            while self._kept[0][0] <= before:
                self._kept.popleft()[1].close()


def _silent(connection: socket.socket) -> bool:
    """Whether nothing came since the last answer: what does is a farewell."""
    connection.settimeout(0)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


class Direct(httpx.BaseTransport):
    """For `Client`.

    Args:
        address: host and port that every request goes to.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle = _Idle()
        self._turns = threading.Semaphore(CONNECTIONS)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request and receives the whole answer."""
        limits = _limits(request)
        if not self._turns.acquire(timeout=limits["pool"]):
            raise httpx.PoolTimeout(f"all {CONNECTIONS} connections are in use")
        try:
            exchange = Exchange(request)
            connection = self._idle.take() or self._connect(limits["connect"])
            try:
                return self._carry(exchange, connection, limits)
            finally:
                if exchange.response is not None and exchange.reusable:
                    self._idle.keep(connection)
                else:
                    connection.close()
        finally:
            self._turns.release()

    def _connect(self, limit: float | None) -> socket.socket:
        with _step(httpx.ConnectTimeout, httpx.ConnectError):
            connection = socket.create_connection(self._address, limit)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _carry(
        self, exchange: Exchange, connection: socket.socket, limits: Limits
    ) -> httpx.Response:
        connection.settimeout(limits["write"])
        # A service that refuses a body may answer and hang up before it has read it.
        with suppress(httpx.WriteError), _step(httpx.WriteTimeout, httpx.WriteError):
            for part in exchange.parts():
                connection.sendall(part)
        connection.settimeout(limits["read"])
        with _step(httpx.ReadTimeout, httpx.ReadError):
            while exchange.response is None:
                exchange.received(connection.recv_into(exchange.buffer()))
        return exchange.response

    def close(self) -> None:
        """Closes the connections."""
        self._idle.close()


class AsyncDirect(httpx.AsyncBaseTransport):
    """For `AsyncClient`, on asyncio: `Direct`, awaited."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle = _Idle()
        self._turns = asyncio.Semaphore(CONNECTIONS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends the request and receives the whole answer."""
        limits = _limits(request)
        try:
            async with asyncio.timeout(limits["pool"]):
                await self._turns.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout(f"all {CONNECTIONS} connections are in use") from None
        try:
            exchange = Exchange(request)
            connection = self._idle.take() or await self._connect(limits["connect"])
            try:
                return await self._carry(exchange, connection, limits)
            finally:
                if exchange.response is not None and exchange.reusable:
                    self._idle.keep(connection)
                else:
                    connection.close()
        finally:
            self._turns.release()

    async def _connect(self, limit: float | None) -> socket.socket:
        with _step(httpx.ConnectTimeout, httpx.ConnectError):
            async with asyncio.timeout(limit):
                connection = await _connected(self._address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    async def _carry(
        self, exchange: Exchange, connection: socket.socket, limits: Limits
    ) -> httpx.Response:
        loop = asyncio.get_running_loop()
        with suppress(httpx.WriteError), _step(httpx.WriteTimeout, httpx.WriteError):
            for part in exchange.parts():
                async with asyncio.timeout(limits["write"]):
                    await loop.sock_sendall(connection, part)
        with _step(httpx.ReadTimeout, httpx.ReadError):
            while exchange.response is None:
                async with asyncio.timeout(limits["read"]):
                    count = await loop.sock_recv_into(connection, exchange.buffer())
                exchange.received(count)
        return exchange.response

    async def aclose(self) -> None:
        """Closes the connections."""
        self._idle.close()


async def _connected(address: Address) -> socket.socket:
    """`socket.create_connection`, awaited: the first of the host's addresses that takes it."""
    loop = asyncio.get_running_loop()
    trouble = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _, found in await loop.getaddrinfo(
        *address, type=socket.SOCK_STREAM
    ):
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, found)
        except OSError as error:
            connection.close()
            trouble = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise trouble
