"""Over real sockets: connections kept, connections lost, time running out."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from turnpoint_client import (
    AsyncClient,
    Client,
    ConnectError,
    DisconnectedError,
    Retries,
    TimedOutError,
    UnknownModelError,
)

from tests.client.fake import OCTETS, Answer, Fake, Request
from tests.client.loopback import Awaiting, asgi, body_of, hanging_up, serving, silent_port

U = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
SOON = Retries(base=0.001)

twins = pytest.mark.parametrize("twin", [Client, Awaiting])


@pytest.fixture
def ports() -> list[int]:
    return []


@pytest.fixture
def url(ports: list[int]) -> Iterator[str]:
    with serving(asgi(Fake(), ports)) as address:
        yield address


@twins
def test_one_connection_serves_many_calls(twin: Any, url: str, ports: list[int]) -> None:
    with twin(url) as client:
        for form in ("octet-stream", "safetensors", "json"):
            np.testing.assert_array_equal(client.negatives(U, U, format=form).negatives[:, 0], U)
        assert client.ready()
        assert client.model("demo").dim == 3
    assert len(ports) == 5
    assert len(set(ports)) == 1


@twins
def test_errors_leave_the_connection_in_use(twin: Any, url: str, ports: list[int]) -> None:
    with twin(url) as client:
        for _ in range(3):
            with pytest.raises(UnknownModelError):
                client.model("nobody")
    assert len(set(ports)) == 1


@twins
def test_a_connection_closed_by_the_server_is_replaced(twin: Any, ports: list[int]) -> None:
    def serve(request: Request) -> Answer:
        answer = Fake()(request)
        answer.headers["connection"] = "close"
        return answer

    with serving(asgi(serve, ports)) as url, twin(url, retries=0) as client:
        for _ in range(3):
            client.negatives(U, U)
    assert len(set(ports)) == 3


def echo(request: Request) -> Answer:
    """The users back as negatives."""
    shape = f"{len(request.body) // 512},1,64"
    headers = {
        "content-type": OCTETS,
        "x-negatives-shape": shape,
        "x-negatives-dtype": "float32",
        "x-model": "m",
        "x-model-version": "v",
        "x-seed": "0",
    }
    return Answer(200, headers, request.body[: len(request.body) // 2])


@twins
@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 4096])
def test_bodies_of_every_number_of_chunks(twin: Any, rows: int) -> None:
    rng = np.random.default_rng(rows)
    users, positives = rng.standard_normal((2, rows, 64), dtype=np.float32)
    with serving(asgi(echo, [])) as url, twin(url, retries=0) as client:
        answer = client.negatives(users, positives, returns="negatives")
    np.testing.assert_array_equal(answer.negatives[:, 0], users)


GOOD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: 24\r\n"
    b"x-negatives-shape: 2,1,3\r\nx-negatives-dtype: float32\r\n"
    b"x-model: m\r\nx-model-version: v\r\nx-seed: 0\r\n\r\n" + U.tobytes()
)


@twins
@pytest.mark.parametrize("cut", [0, 9, 60, len(GOOD) - 24, len(GOOD) - 1])
def test_a_hang_up_is_asked_again(twin: Any, cut: int) -> None:
    with hanging_up(GOOD[:cut], GOOD) as url, twin(url, retries=SOON) as client:
        answer = client.negatives(U, U, returns="negatives")
        assert client.stats.retries == 1
    np.testing.assert_array_equal(answer.negatives[:, 0], U)


@twins
@pytest.mark.parametrize("cut", [0, 60, len(GOOD) - 1])
def test_a_hang_up_to_the_end_is_said(twin: Any, cut: int) -> None:
    with (
        hanging_up(GOOD[:cut]) as url,
        twin(url, retries=0) as client,
        pytest.raises(DisconnectedError, match="before the answer was whole"),
    ):
        client.negatives(U, U, returns="negatives")


@twins
def test_nobody_listens(twin: Any) -> None:
    with twin(f"http://127.0.0.1:{silent_port()}", retries=SOON) as client:
        with pytest.raises(ConnectError, match="cannot be reached"):
            client.negatives(U, U)
        assert client.stats.retries == SOON.limit
        assert client.ready() is False


@twins
@pytest.mark.parametrize("options", [{"timeout": 0.1}, {"deadline": 0.1}], ids=str)
def test_time_runs_out(twin: Any, options: dict[str, float]) -> None:
    told: list[str | None] = []

    def serve(request: Request) -> Answer:
        told.append(request.headers.get("x-request-timeout-ms"))
        time.sleep(0.5)
        return Fake()(request)

    timeout = options.get("timeout", 30.0)
    with serving(asgi(serve, [])) as url, twin(url, timeout=timeout) as client:
        start = time.monotonic()
        with pytest.raises(TimedOutError):
            client.negatives(U, U, deadline=options.get("deadline"))
        assert time.monotonic() - start < 0.45
    assert len(told) == 1, "a read that timed out is not asked again"
    if "deadline" in options:
        assert told[0] is not None
        assert 1 <= int(told[0]) <= 100


async def test_a_cancelled_call_hangs_up() -> None:
    arrived, left = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await body_of(receive)
        arrived.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    with serving(app) as url:
        async with AsyncClient(url) as client:
            task = asyncio.create_task(client.negatives(U, U))
            assert await asyncio.to_thread(arrived.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(left.wait, 5)


async def test_many_at_once_each_get_their_own(url: str) -> None:
    async with AsyncClient(url) as client:
        calls = [client.negatives(U + k, U * k, n=2, seed=k) for k in range(50)]
        for k, answer in enumerate(await asyncio.gather(*calls)):
            np.testing.assert_array_equal(answer.negatives[:, 1], U * k + U + k)
            assert answer.seed == k
        assert client.stats.requests == 50


def test_threads_may_share_a_client(url: str) -> None:
    wrong: list[int] = []

    with Client(url) as client:

        def work(k: int) -> None:
            for _ in range(10):
                answer = client.negatives(U + k, U, n=2)
                if not np.array_equal(answer.negatives[:, 1], 2 * U + k):
                    wrong.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.stats.requests == 40
    assert not wrong
