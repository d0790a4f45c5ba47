"""The load: a closed loop over bare sockets, so that what is measured is the server.

The request is made once and sent again; the answer is read to its last byte into one buffer. What
is left of the client is two system calls and the copy out of the kernel.
"""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from bench.serving.checkpoint import pairs
from bench.serving.contenders import Case, Contender
from bench.serving.processes import Running
from bench.serving.wires import Floats
from cli.bench import Driven, drive

Caller = AbstractContextManager[Callable[[], object]]
END = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """A request's bytes."""

    head: bytes
    body: bytes = b""

    @classmethod
    def to(cls, contender: Contender, case: Case, given: Floats | None = None) -> "Request":
        """The one that asks a contender for a case, by default with the pairs that all get."""
        assert contender.wire is not None
        body = contender.wire.encode(pairs(case.rows, case.dim) if given is None else given, case.n)
        kind = contender.wire.media_type
        return cls.post(contender.path, body, {"Content-Type": kind, "Accept": kind})

    @classmethod
    def post(cls, path: str, body: bytes, headers: Mapping[str, str]) -> "Request":
        """A POST."""
        return cls(_head("POST", path, {**headers, "Content-Length": str(len(body))}), body)

    @classmethod
    def get(cls, path: str) -> "Request":
        """A GET."""
        return cls(_head("GET", path, {}))


@dataclass(frozen=True)
class Answer:
    """An answer's bytes; the body is a view of the connection's buffer."""

    head: bytes
    body: memoryview

    @property
    def status(self) -> int:
        """200, 429, ..."""
        return int(self.head.split(b" ", 2)[1])

    def header(self, name: str) -> str | None:
        """The value of a header."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower().encode():
                return value.strip().decode("latin-1")
        return None


class Connection:
    """One kept-alive HTTP/1.1 connection that reuses its buffer."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 16)

    def call(self, request: Request) -> memoryview:
        """The whole answer, valid until the next call.

        Raises:
            RuntimeError: it is not 200.
            ConnectionError: the server hung up.
        """
        answer = self.exchange(request)
        if answer.status != 200:
            raise RuntimeError((answer.head + END + answer.body[:500]).decode())
        return answer.body

    def exchange(self, request: Request) -> Answer:
        """The answer, whatever its status; its body is valid until the next call.

        Raises:
            RuntimeError: it has no Content-Length.
            ConnectionError: the server hung up.
        """
        sent = self.socket.sendmsg([request.head, request.body])
        if (left := len(request.head) + len(request.body) - sent) > 0:
            self.socket.sendall(memoryview(request.body)[-left:])
        end = self._read(0)
        while (head := self.buffer.find(END, 0, end)) < 0:
            end = self._read(end)
        told = bytes(self.buffer[:head])
        start, size = head + len(END), _length(told)
        if start + size > len(self.buffer):
            self.buffer = self.buffer[:end] + bytes(start + size - end)  # views of the old one stay
        while end < start + size:
            end = self._read(end)
        return Answer(told, memoryview(self.buffer)[start : start + size])

    def _read(self, end: int) -> int:
        """More bytes from there on; where they end."""
        with memoryview(self.buffer) as view:
            read = self.socket.recv_into(view[end:])
        if not read:
            raise ConnectionError("the server hung up in the middle of an answer")
        return end + read


@contextlib.contextmanager
def connected(port: int) -> Iterator[Connection]:
    """A connection, closed at the end."""
    connection = Connection(port)
    try:
        yield connection
    finally:
        connection.socket.close()


def answer(running: Running, contender: Contender, case: Case, given: Floats) -> Floats:
    """What a contender says to these pairs, (B, n, d)."""
    assert contender.wire is not None
    with connected(running.port) as connection:
        body = connection.call(Request.to(contender, case, given))
        return contender.wire.decode(body, (case.rows, case.n, case.dim)).copy()


def measured(
    running: Running,
    contender: Contender,
    case: Case,
    concurrency: int,
    seconds: float,
    warm_up: int,
) -> dict[str, float]:
    """The figures of one round."""
    if contender.wire is None:
        return in_process(running, seconds).figures(case.rows, case.n)
    request = Request.to(contender, case)
    with connected(running.port) as connection:
        moved = len(request.body) + len(connection.call(request))
    clocks = {"server": running.cpu_seconds, "client": time.process_time}
    driven = drive(asking(running.port, request), concurrency, seconds, clocks, warm_up)
    figures = driven.figures(case.rows, case.n)
    figures["MiB/s"] = figures["calls/s"] * moved / 2**20
    return figures


def asking(port: int, request: Request) -> Callable[[], Caller]:
    """Callers that repeat this request, each on a connection of its own."""

    @contextlib.contextmanager
    def caller() -> Iterator[Callable[[], object]]:
        with connected(port) as connection:
            yield lambda: connection.call(request)

    return caller


def in_process(running: Running, seconds: float) -> Driven:
    """One round of a process that measures itself."""
    process = running.process
    assert process.stdin is not None
    assert process.stdout is not None
    print(seconds, file=process.stdin, flush=True)
    return Driven(**json.loads(process.stdout.readline()))


def polled(port: int, path: str, seconds: float, pause: float = 0.002) -> dict[str, float]:
    """Latency of a small GET, asked every `pause` seconds on a connection of its own."""
    request = Request.get(path)

    latencies = []
    with connected(port) as connection:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begin = time.perf_counter()
            connection.call(request)
            latencies.append(1e3 * (time.perf_counter() - begin))
            time.sleep(pause)
    p50, p99 = np.percentile(latencies, [50, 99])
    found = {"calls": len(latencies), "p50 ms": p50, "p99 ms": p99, "max ms": max(latencies)}
    return {name: float(value) for name, value in found.items()}


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + END


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise RuntimeError(f"an answer without Content-Length: {head[:200]!r}")
