"""Strangers at the socket: heads without end, drops of bytes, readers who do not read."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.service.live import OCTET, Live, octet, pairs

GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /negatives HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
HEAD_SECONDS = 0.3
BODY_SECONDS = 0.6
LONG = 8.0  # much more than any bound, and less than any default


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    from tests.service.live import publish, running, settings_for

    address = tmp_path_factory.mktemp("registry")
    publish(address)
    server = {
        "head_timeout_seconds": HEAD_SECONDS,
        "body_timeout_seconds": BODY_SECONDS,
        "max_body_bytes": 1_000_000,
    }
    with running(settings_for(address, server=server)) as live:
        yield live


@contextmanager
def connected(live: Live) -> Iterator[socket.socket]:
    with socket.create_connection(live.host, timeout=LONG) as raw:
        yield raw


def to_the_end(raw: socket.socket) -> bytes:
    """Everything until the service hangs up."""
    answer = b""
    try:
        while chunk := raw.recv(65536):
            answer += chunk
    except ConnectionResetError:
        pass
    return answer


def one_answer(raw: socket.socket) -> bytes:
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += raw.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    (length,) = [
        int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"content-length: ")
    ]
    while len(body) < length:
        body += raw.recv(65536)
    return head + b"\r\n\r\n" + body


def check(answer: bytes, status: int, code: str) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert (problem["status"], problem["code"]) == (status, code)
    lines = {line.partition(b": ")[0].lower(): line for line in head.split(b"\r\n")[1:]}
    assert lines[b"content-type"].endswith(b"application/problem+json")
    assert lines[b"connection"].endswith(b"close")
    assert lines[b"x-request-id"].endswith(problem["request_id"].encode())
    assert b"x-content-type-options" in lines


END = b" HTTP/1.1\r\nHost: a\r\n\r\n"
MANY = b"".join(b"X-%d: a\r\n" % number for number in range(200))
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HEADS: dict[str, tuple[bytes, int, str]] = {
    "a long URL": (b"GET /livez?" + b"a" * 9000 + END, 414, "too_large"),
    "many headers": (GET + MANY + b"\r\n", 431, "too_large"),
    "a long header": (GET + b"X: " + b"a" * 70_000 + b"\r\n\r\n", 431, "too_large"),
    "a long name": (GET + b"X" * 70_000 + b": a\r\n\r\n", 431, "too_large"),
    "no HTTP": (b"\x16\x03\x01 hello\r\n\r\n", 400, "malformed"),
    "a bad length": (GET + b"Content-Length: -1\r\n\r\n", 400, "malformed"),
    "two lengths": (GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "malformed"),
    "smuggling": (POST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 400, "malformed"),
    "a folded header": (GET + b"X: a\r\n b\x00\r\n\r\n", 400, "malformed"),
    "no path": (b"CONNECT a:80" + END, 400, "malformed"),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_too_much_or_none(guarded: Live, name: str) -> None:
    head, status, code = HEADS[name]
    with connected(guarded) as raw:
        raw.sendall(head)
        check(to_the_end(raw), status, code)


@pytest.mark.parametrize("start", [b"GET /livez?", GET + b"X: ", GET])
def test_a_head_without_end_is_not_kept(guarded: Live, start: bytes) -> None:
    """However it is cut, no more is read than the limit and a buffer or two."""
    sent = 0
    with connected(guarded) as raw:
        raw.sendall(start)
        try:
            while sent < 50_000_000:
                sent += raw.send(b"X-Y: a\r\n" * 1000 if start == GET else b"a" * 8000)
        except OSError:
            pass
    assert sent < 20_000_000


def test_headers_at_the_limit_are_fine(guarded: Live) -> None:
    with connected(guarded) as raw:
        raw.sendall(GET + b"".join(b"X-%d: %s\r\n" % (n, b"a" * 600) for n in range(98)) + b"\r\n")
        assert one_answer(raw).startswith(b"HTTP/1.1 200")


def test_a_head_in_drops_is_cut_off(guarded: Live) -> None:
    with connected(guarded) as raw:
        raw.sendall(GET)
        began = time.monotonic()
        raw.settimeout(0.02)
        answer = b""
        while time.monotonic() < began + LONG and not answer:
            try:
                raw.sendall(b"X: a\r\n")
                answer = raw.recv(65536)
            except TimeoutError:
                continue
        check(answer, 408, "request_timeout")
    assert HEAD_SECONDS * 0.9 < time.monotonic() - began < LONG


@pytest.mark.parametrize("said", [b"", b"\r\n"])
def test_who_says_nothing_is_not_waited_for(guarded: Live, said: bytes) -> None:
    with connected(guarded) as raw:
        raw.sendall(said)
        assert to_the_end(raw) == b""


def test_after_an_answer_there_is_time_again(guarded: Live) -> None:
    """Keep-alive is not the time of a head: an idle connection stays, a begun head does not."""
    with connected(guarded) as raw:
        for _ in range(3):
            raw.sendall(GET + b"\r\n")
            assert one_answer(raw).startswith(b"HTTP/1.1 200")
            time.sleep(1.5 * HEAD_SECONDS)
        raw.sendall(GET)
        check(to_the_end(raw), 408, "request_timeout")


def test_a_body_in_drops_is_cut_off(guarded: Live) -> None:
    with connected(guarded) as raw:
        raw.sendall(POST + b"Content-Length: 1280\r\n\r\n" + bytes(10))
        began = time.monotonic()
        check(to_the_end(raw), 408, "request_timeout")
    assert BODY_SECONDS * 0.9 < time.monotonic() - began < LONG


def drip(raw: socket.socket, drops: bytes) -> float:
    """Seconds for which the service lets somebody send."""
    began = time.monotonic()
    try:
        while time.monotonic() < began + LONG:
            raw.sendall(drops)
            time.sleep(0.02)
    except OSError:
        pass
    return time.monotonic() - began


def test_what_follows_a_refusal_is_not_read_for_ever(guarded: Live) -> None:
    with connected(guarded) as raw:
        raw.sendall(b"GET /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n")
        assert one_answer(raw).startswith(b"HTTP/1.1 404")
        assert drip(raw, b"a") < LONG


def test_trailers_without_end_are_not_read(guarded: Live) -> None:
    with connected(guarded) as raw:
        raw.sendall(POST + CHUNKED + b"\r\n0\r\nX: ")
        sent = 0
        try:
            while sent < 50_000_000:
                sent += raw.send(b"a" * 8000)
        except OSError:
            pass
    assert sent < 20_000_000


def test_trailers_are_left_out(guarded: Live) -> None:
    body = octet(*pairs(2))
    with connected(guarded) as raw:
        chunk = b"%x\r\n%s\r\n" % (len(body), body)
        raw.sendall(POST + CHUNKED + b"\r\n" + chunk + b"0\r\nX-Late: 1\r\n\r\n")
        assert one_answer(raw).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_all_answered(guarded: Live) -> None:
    body = octet(*pairs(2000))
    ask = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connected(guarded) as raw:
        raw.sendall(ask * 4 + GET + b"Connection: close\r\n\r\n")
        answer = to_the_end(raw)
    assert answer.count(b"HTTP/1.1 200 OK") == 5


def test_a_reader_who_does_not_read_is_hung_up_on(
    start: Callable[..., Live], registry: Path
) -> None:
    live = start(registry, server={"body_timeout_seconds": BODY_SECONDS})
    body = octet(*pairs(8192))
    ask = b"POST /negatives?n=64 HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n"
    whole = 64 * len(body) // 2
    with connected(live) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.sendall(ask + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(6 * BODY_SECONDS)
        assert 0 < len(to_the_end(raw)) < whole
    patient = httpx.post(f"{live.url}/negatives?n=64", content=body, headers=OCTET)
    assert len(patient.content) == whole


def test_refusals_at_the_socket_are_counted_and_open_no_series(guarded: Live) -> None:
    def series() -> dict[Any, float]:
        page = httpx.get(f"{guarded.url}/metrics").text
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
        }

    def flood(index: int) -> None:
        heads = [head for head, _, _ in HEADS.values()]
        heads.append(GET + b"X-%d: a\r\nConnection: close\r\n\r\n" % index)
        heads.append(b"GET /.env%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % index)
        heads.append(b"BREW /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % index)
        for head in heads:
            with connected(guarded) as raw:
                raw.sendall(head)
                to_the_end(raw)

    flood(0)
    series()
    before = series()
    for index in range(1, 6):
        flood(index)
    after = series()
    assert after.keys() == before.keys()
    key = ("turnpoint_requests_total", ("code", "431"), ("route", "other"))
    assert after[key] == before[key] + 3 * 5


def test_a_flood_does_not_slow_others_down_to_a_halt(guarded: Live) -> None:
    """A hundred open heads, and the next caller is answered."""
    held = [socket.create_connection(guarded.host) for _ in range(100)]
    try:
        for raw in held:
            raw.sendall(GET)
        answer = httpx.post(f"{guarded.url}/negatives", content=octet(*pairs(5)), headers=OCTET)
        assert answer.status_code == 200
    finally:
        for raw in held:
            raw.close()
