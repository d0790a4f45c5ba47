"""The transports that the clients use by default: what httpx's own would say, byte by byte."""

import asyncio
import gc
import gzip
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import httpx
import numpy as np
import pytest
import uvloop
from turnpoint_client import (
    AsyncClient,
    Client,
    ConnectError,
    DisconnectedError,
    ProtocolError,
    TimedOutError,
    TooLargeError,
    TurnpointClientError,
    _direct,
)

from tests.client.fake import PROBLEM, Answer, Fake, Request
from tests.client.harness import alike
from tests.client.loopback import Awaiting, asgi, read_request, serving, silent_port, speaking
from tests.client.test_loopback import GOOD, U, echo

Raw = partial(Client, retries=0)
AwaitedRaw = partial(Awaiting, retries=0)
UvRaw = partial(AwaitedRaw, loop_factory=uvloop.new_event_loop)
HEAD, BODY = GOOD[: -U.nbytes], GOOD[-U.nbytes :]
UNFRAMED = HEAD.replace(b"content-length: 24\r\n", b"")

twins = pytest.mark.parametrize("twin", [Raw, AwaitedRaw, UvRaw], ids=["sync", "async", "uvloop"])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def ask(client: Any, **options: Any) -> Any:
    return client.negatives(U, U, returns="negatives", **options)


def chunked(*chunks: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
    return UNFRAMED[:-2] + b"transfer-encoding: chunked\r\n\r\n" + body


REPLIES = {
    "whole": GOOD,
    "chunked": chunked(BODY[:7], BODY[7:]),
    "chunked, cut": chunked(BODY[:7], BODY[7:])[:-3],
    "to the end": UNFRAMED + BODY,
    "http/1.0": GOOD.replace(b"1.1", b"1.0"),
    "after early words": b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + GOOD,
    "asked to continue": b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n" + GOOD,
    "too much": GOOD + b"more",
    "gzip": UNFRAMED[:-2]
    + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(gzip.compress(BODY))
    + gzip.compress(BODY),
    "no gzip": GOOD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n", 1),
    "two lengths": GOOD.replace(b"length: 24", b"length: 24\r\ncontent-length: 25"),
    "length and chunks": chunked(BODY).replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n", 1),
    "no length": GOOD.replace(b"length: 24", b"length: many"),
    "beyond memory": GOOD.replace(b"length: 24", b"length: 99999999999999999999"),
    "no body": HEAD.replace(b"length: 24", b"length: 0"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "refused": b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nwhy",
    "moved": b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n",
    "nothing": b"",
    "half a head": HEAD[:40],
    "half a body": GOOD[:-9],
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a long head": GOOD.replace(b"x-seed", b"x-noise: " + b"n" * 40_000 + b"\r\nx-seed"),
    "an endless head": HEAD[:-2] + b"x-noise: " + b"n" * 300_000,
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_what_is_said_means_what_it_means_to_httpx(reply: bytes) -> None:
    def outcome(twin: Any, **options: Any) -> Any:
        with speaking([[reply]]) as url, twin(url, **options) as client:
            try:
                return ask(client)
            except TurnpointClientError as error:
                return type(error), type(error.__cause__)

    expected = outcome(Raw, transport=httpx.HTTPTransport())
    for twin in (Raw, AwaitedRaw, UvRaw):
        assert alike(outcome(twin), expected), expected


@twins
@pytest.mark.parametrize("cut", [1, 30, len(HEAD) - 1, len(HEAD), len(HEAD) + 1, len(GOOD) - 1])
def test_an_answer_may_come_in_pieces(twin: Any, cut: int) -> None:
    with speaking([[GOOD[:cut], GOOD[cut:]]]) as url, twin(url) as client:
        np.testing.assert_array_equal(ask(client).negatives[:, 0], U)


@pytest.fixture(scope="module")
def echoing() -> Iterator[str]:
    with serving(asgi(echo, [])) as url:
        yield url


@twins
@pytest.mark.parametrize("own", [True, False], ids=["direct", "httpx"])
def test_a_large_body_arrives_whole_and_can_be_written_to(
    twin: Any, own: bool, echoing: str
) -> None:
    kind = httpx.HTTPTransport if twin is Raw else httpx.AsyncHTTPTransport
    users = np.random.default_rng(0).standard_normal((40_000, 64), dtype=np.float32)
    with twin(echoing, transport=None if own else kind()) as client:
        for _ in range(2):
            negatives = client.negatives(users, users, returns="negatives").negatives
            np.testing.assert_array_equal(negatives[:, 0], users)
            negatives += 1


@twins
def test_the_memory_of_an_answer_is_free_once_nobody_holds_it(twin: Any, echoing: str) -> None:
    users = np.ones((4096, 64), np.float32)
    with twin(echoing) as client:
        gc.collect()
        gc.disable()  # cycles would stay
        try:
            negatives = client.negatives(users, users, returns="negatives").negatives
            while isinstance(negatives.base, np.ndarray):
                negatives = negatives.base
            memory = weakref.ref(negatives.base.obj)
            assert memory() is not None
            del negatives
            assert memory() is None
        finally:
            gc.enable()


@twins
@pytest.mark.parametrize(
    "reply", [GOOD, chunked(BODY[:5], BODY[5:]), REPLIES["refused"]], ids=["length", "chunks", "no"]
)
def test_a_connection_goes_on_after_a_whole_answer(twin: Any, reply: bytes) -> None:
    with speaking([[reply], [reply], [GOOD]]) as url, twin(url) as client:
        for _ in range(2):
            if b"200 OK" in reply:
                ask(client)
            else:
                with pytest.raises(TurnpointClientError):
                    ask(client)
        np.testing.assert_array_equal(ask(client).negatives[:, 0], U)


@twins
@pytest.mark.parametrize(
    "reply",
    [
        GOOD + b"HTTP/1.1 200 OK\r\n\r\n",
        chunked(BODY) + b"more",
        GOOD.replace(b"\r\n", b"\r\nconnection: close\r\n", 1),
    ],
    ids=["another answer", "more", "farewell"],
)
def test_a_connection_that_cannot_go_on_is_replaced(twin: Any, reply: bytes) -> None:
    with speaking([[reply]], [[GOOD]], linger=0.1) as url, twin(url) as client:
        for _ in range(2):
            np.testing.assert_array_equal(ask(client).negatives[:, 0], U)


@twins
def test_a_connection_closed_while_idle_is_replaced_unnoticed(twin: Any) -> None:
    with speaking([[GOOD]], [[GOOD]]) as url, twin(url) as client:
        ask(client)
        time.sleep(0.1)  # until the farewell is here
        ask(client)
        assert client.stats.retries == 0


@twins
def test_a_connection_idle_for_too_long_is_not_trusted(
    twin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []
    with serving(asgi(Fake(), ports)) as url, twin(url) as client:
        ask(client)
        ask(client)
        monkeypatch.setattr(_direct, "EXPIRY", 0.0)
        ask(client)
    assert ports[0] == ports[1] != ports[2]


@twins
def test_a_refusal_before_the_body_is_read_is_heard(twin: Any) -> None:
    refusal = b'{"code": "too_large"}'
    lines = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-type: %b\r\n"
    users = np.ones((1 << 17, 64), np.float32)

    def run(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(lines % PROBLEM.encode() + b"\r\n" + refusal)

    with listening(run) as url, twin(url) as client, pytest.raises(TooLargeError):
        client.negatives(users, users)


@contextmanager
def listening(run: Any) -> Iterator[str]:
    """`run(listener)` in a thread; gives the address."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        thread = threading.Thread(target=run, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


# Large, so that what is not bounded by the one limit shows.
PATIENT = httpx.Timeout(20.0)


def limited(**limits: float) -> httpx.Timeout:
    return httpx.Timeout(**(PATIENT.as_dict() | limits))


def late(call: Any, kind: type[httpx.TimeoutException]) -> None:
    """It ends soon, by this time-out."""
    start = time.monotonic()
    with pytest.raises(TimedOutError) as caught:
        call()
    assert isinstance(caught.value.__cause__, kind)
    assert time.monotonic() - start < 5


@twins
def test_nobody_takes_the_connection(twin: Any) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        for _ in range(4):  # more than wait in the queue of a listener that accepts nobody
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        client = stack.enter_context(
            twin(f"http://127.0.0.1:{address[1]}", timeout=limited(connect=0.2))
        )
        late(lambda: ask(client), httpx.ConnectTimeout)


@twins
def test_nobody_reads_the_request(twin: Any) -> None:
    users = np.ones((1 << 17, 64), np.float32)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        twin(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=limited(write=0.2)) as client,
    ):
        late(lambda: client.negatives(users, users), httpx.WriteTimeout)


@twins
@pytest.mark.parametrize("cut", [0, 30, len(HEAD), len(GOOD) - 1])
def test_an_answer_stops(twin: Any, cut: int) -> None:
    with (
        speaking([[GOOD[:cut]]], linger=0.5) as url,
        twin(url, timeout=limited(read=0.1)) as client,
    ):
        late(lambda: ask(client), httpx.ReadTimeout)


def slow(request: Request) -> Answer:
    time.sleep(0.3)
    return Fake()(request)


def test_a_call_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_direct, "CONNECTIONS", 1)
    with serving(asgi(slow, [])) as url, Raw(url, timeout=limited(pool=0.1)) as client:
        first = threading.Thread(target=ask, args=(client,))
        first.start()
        time.sleep(0.05)
        late(lambda: ask(client), httpx.PoolTimeout)
        first.join()
        ask(client)


async def test_an_awaited_call_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_direct, "CONNECTIONS", 1)
    with serving(asgi(slow, [])) as url:
        async with AsyncClient(url, timeout=limited(pool=0.1), retries=0) as client:
            first = asyncio.create_task(ask(client))
            await asyncio.sleep(0.05)
            with pytest.raises(TimedOutError) as caught:
                await ask(client)
            assert isinstance(caught.value.__cause__, httpx.PoolTimeout)
            await first
            await ask(client)


@twins
def test_a_header_that_cannot_be_sent(twin: Any, echoing: str) -> None:
    with (
        twin(echoing, headers={"x-note": "two\nlines"}) as client,
        pytest.raises(ProtocolError, match="LocalProtocolError"),
    ):
        ask(client)


def test_a_connection_that_comes_back_to_a_closed_client_is_closed() -> None:
    asked, closed, gone = threading.Event(), threading.Event(), threading.Event()

    def run(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            read_request(stream)
            asked.set()
            closed.wait(5)
            connection.sendall(GOOD)
            if stream.read(1) == b"":
                gone.set()

    with listening(run) as url:
        with Raw(url) as client:
            caller = threading.Thread(target=ask, args=(client,))
            caller.start()
            assert asked.wait(5)
        closed.set()
        caller.join()
        assert gone.wait(2)


@twins
def test_an_address_with_tls_is_never_spoken_to_without(twin: Any) -> None:
    with (
        listening(refuse) as url,
        twin(url.replace("http:", "https:"), timeout=limited(connect=2.0)) as client,
        pytest.raises(ConnectError, match="SSL"),
    ):
        ask(client)


def refuse(listener: socket.socket) -> None:
    """What a server of plain HTTP says to a TLS greeting."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(REPLIES["refused"])


@twins
def test_a_proxy_of_the_environment_is_used(
    twin: Any, monkeypatch: pytest.MonkeyPatch, ports: list[int]
) -> None:
    with serving(asgi(lambda _: Answer(200, {}, b"ready"), ports)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        with twin("http://service.invalid") as client:
            assert client.ready()
    assert len(ports) == 1


@twins
def test_no_proxy_for_those_who_need_none(twin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{silent_port()}")
    with speaking([[GOOD]]) as url:
        with twin(url) as client, pytest.raises(TurnpointClientError):
            ask(client)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with twin(url) as client:
            ask(client)


@pytest.fixture
def ports() -> list[int]:
    return []


def test_a_disconnect_says_how_far_it_came() -> None:
    with (
        speaking([[GOOD[:-9]]]) as url,
        Raw(url) as client,
        pytest.raises(DisconnectedError, match="received 15 bytes, expected 24"),
    ):
        ask(client)
