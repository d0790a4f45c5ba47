"""Request ids, and a body in one buffer."""

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request

from service.limits import read_body
from tests.service.live import OCTET, octet, pairs


@pytest.mark.parametrize("given", ["abc", "A-1.b_c:d", "x" * 128])
async def test_a_sane_id_is_kept(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/livez", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\tb", "<script>", "é"])
async def test_another_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    first = await client.get("/nothing", headers={"X-Request-ID": given.encode()})
    second = await client.get("/nothing", headers={"X-Request-ID": given.encode()})
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2
    assert given not in ids
    assert first.json()["request_id"] == first.headers["x-request-id"]


def request_of(chunks: list[bytes], length: int | None, *, cut: bool = False) -> Request:
    messages: list[dict[str, object]] = [
        {"type": "http.request", "body": chunk, "more_body": cut or index + 1 < len(chunks)}
        for index, chunk in enumerate(chunks)
    ]

    async def receive() -> dict[str, object]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return Request({"type": "http", "headers": headers}, receive)


@pytest.mark.parametrize("length", [None, 9, 20, 3])
async def test_the_body_is_what_was_sent(length: int | None) -> None:
    # 20 and 3 are lies that a real server does not pass on; they must not corrupt what is read.
    body = await read_body(request_of([b"abc", b"", b"defghi"], length), 5)
    assert bytes(body) == b"abcdefghi"


async def test_hanging_up_while_sending() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body(request_of([b"abc"], 9, cut=True), 5)


@pytest.mark.parametrize("length", ["-1", "1e3", "x", "٣"])
async def test_a_length_that_is_no_number(app: FastAPI, length: str) -> None:
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/negatives",
        "query_string": b"",
        "headers": [(b"content-length", length.encode())],
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 400


async def test_a_body_in_many_pieces_is_answered_alike(client: httpx.AsyncClient) -> None:
    body = octet(*pairs(300))

    async def pieces() -> object:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    whole = await client.post("/negatives?seed=1", content=body, headers=OCTET)
    cut = await client.post("/negatives?seed=1", content=pieces(), headers=OCTET)
    assert cut.content == whole.content
    assert len(whole.content) == len(body) // 2
