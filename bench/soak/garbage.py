"""Malformed requests by the hundred thousand, each from a seed: a small grammar of nonsense.

The tests throw hypothesis and schemathesis at the service, which think about each example; this
does not, and so makes thousands a second.
"""

import base64
import json
import random
import struct
import urllib.parse
from collections.abc import Callable

import numpy as np

from bench.serving.checkpoint import pairs
from bench.serving.load import Request
from bench.serving.wires import LISTS, RAW, SAFETENSORS
from service.params import SPECS

ROWS = 3
WIRES = (RAW, SAFETENSORS, LISTS)
HARD = (
    "0",
    "-1",
    "256",
    "257",
    "1e999",
    "nan",
    "-inf",
    "2.5",
    "",
    "%00",
    "true",
    "[]",
    "é",
    "9" * 30,
)
VALUES = (
    None,
    True,
    -1,
    0,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\0",
    [],
    {},
    [[]],
    [1],
)
HEADERS = (
    "Accept",
    "Accept-Encoding",
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Expect",
    "If-None-Match",
    "Origin",
    "Range",
    "X-Forwarded-For",
    "X-HTTP-Method-Override",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
)


class Garbage:
    """An endless supply.

    Args:
        seed: the same one gives the same requests.
        dim: d of the model that is asked; what is valid is sent damaged.
    """

    def __init__(self, seed: int, dim: int) -> None:
        self.random, self.dim = random.Random(seed), dim
        self.valid = [(wire.media_type, wire.encode(pairs(ROWS, dim), 1)) for wire in WIRES]
        self.kinds: dict[str, Callable[[], Request]] = {
            "damaged": self._damaged,
            "not finite": self._not_finite,
            "lying tensors": self._lying_tensors,
            "odd document": self._odd_document,
            "odd query": self._odd_query,
            "odd headers": self._odd_headers,
            "elsewhere": self._elsewhere,
            "deep": self._deep,
        }

    def next(self) -> tuple[str, Request]:
        """A kind and a request of it, well-formed as HTTP."""
        name = self.random.choice(list(self.kinds))
        return name, self.kinds[name]()

    def no_http(self) -> bytes:
        """Bytes for a server's port that are no HTTP, or nearly."""
        pick = self.random
        head = b"POST /negatives HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return pick.choice(
            (
                pick.randbytes(pick.randrange(1, 200)),
                b"GET " + b"/" * pick.randrange(1, 9000) + b" HTTP/9.9\r\n\r\n",
                head + b"Content-Length: -5\r\n\r\n{}",
                head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
                head
                + b"Transfer-Encoding: chunked\r\n\r\n%s\r\n{}" % pick.randbytes(4).hex().encode(),
                head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
                head + pick.randbytes(30) + b"\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00" + pick.randbytes(60),  # TLS
                b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * pick.randrange(500) + b"\r\n",
            )
        )

    def _post(self, body: bytes, media_type: str, query: str = "", **more: str) -> Request:
        return Request.post(f"/negatives{query}", body, {"Content-Type": media_type, **more})

    def _damaged(self) -> Request:
        """A valid body, altered in a few places, cut, or with something in between."""
        pick = self.random
        media_type, valid = pick.choice(self.valid)
        body = bytearray(valid)
        for _ in range(pick.randrange(4)):
            body[pick.randrange(len(body))] = pick.randrange(256)
        if pick.random() < 0.5:
            del body[pick.randrange(len(body)) :]
        if pick.random() < 0.5:
            at = pick.randrange(len(body) + 1)
            body[at:at] = pick.randbytes(pick.randrange(40))
        return self._post(bytes(body), media_type)

    def _not_finite(self) -> Request:
        """A number that is none, or one that is too large."""
        given = pairs(ROWS, self.dim)
        given.flat[self.random.randrange(given.size)] = self.random.choice(
            (np.nan, np.inf, -np.inf, 3e38)
        )
        wire = self.random.choice(WIRES)
        return self._post(wire.encode(given, 1), wire.media_type)

    def _lying_tensors(self) -> Request:
        """A safetensors header that claims what is not there."""
        pick = self.random
        size = lambda: pick.choice((0, 1, ROWS, self.dim, -1, 2**31, 2**63, 2**70))  # noqa: E731
        entries = {
            pick.choice(("users", "positives", "threshold", "user_ids", "x")): {
                "dtype": pick.choice(("F32", "F16", "BF16", "I64", "F64", "BOOL", "?", None)),
                "shape": [size() for _ in range(pick.randrange(4))],
                "data_offsets": [size() for _ in range(pick.choice((2, 2, 2, 1, 3)))],
            }
            for _ in range(pick.randrange(4))
        }
        header = json.dumps(entries).encode()
        length = pick.choice((len(header), 0, 2**40, 2**64 - 1))
        body = struct.pack("<Q", length) + header + pick.randbytes(pick.randrange(200))
        return self._post(body, SAFETENSORS.media_type)

    def _odd_document(self) -> Request:
        """A JSON object with some fields of the wrong kind."""
        pick = self.random
        users, positives = pairs(ROWS, self.dim).tolist()
        fields: dict[str, object] = {"users": users, "positives": positives}
        names = ["users", "positives", "threshold", "user_ids", "unknown", *SPECS]
        for name in pick.sample(names, pick.randrange(1, 4)):
            encoded = {
                "shape": [pick.choice(VALUES), self.dim],
                "dtype": pick.choice(("float32", "float16", "x")),
                "data": base64.b64encode(pick.randbytes(pick.randrange(99))).decode(),
            }
            fields[name] = pick.choice(
                (*VALUES, encoded, [[pick.choice(VALUES)] * self.dim] * ROWS)
            )
        return self._post(json.dumps(fields).encode(), LISTS.media_type)

    def _odd_query(self) -> Request:
        pick = self.random
        names = [pick.choice([*SPECS, "unknown", "N", "\0"]) for _ in range(pick.randrange(1, 4))]
        told = "&".join(f"{urllib.parse.quote(name)}={quoted(pick.choice(HARD))}" for name in names)
        media_type, body = pick.choice(self.valid)
        return self._post(body, media_type, f"?{told}")

    def _odd_headers(self) -> Request:
        pick = self.random
        media_type, body = pick.choice(self.valid)
        printable = [chr(code) for code in range(33, 127)]
        odd = {
            pick.choice(HEADERS): "".join(pick.choices(printable, k=pick.randrange(60)))
            for _ in range(pick.randrange(1, 5))
        }
        odd.pop("Expect", None)
        return self._post(body, media_type, **odd)

    def _elsewhere(self) -> Request:
        """Another path, another method."""
        pick = self.random
        method = pick.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"))
        path = pick.choice(
            ("/", "/models/", "/models/../", "/negatives/", "/livez", "/docs/", "//")
        )
        path += quoted("".join(pick.choices("abc./%\\~é\0 ", k=pick.randrange(30))))
        request = Request.post(path, b"", {})
        return Request(method.encode() + request.head.removeprefix(b"POST"))

    def _deep(self) -> Request:
        """JSON in JSON in JSON."""
        depth = self.random.choice((10, 1000, 50_000))
        inner = b"[" * depth + b"]" * self.random.choice((0, depth))
        return self._post(b'{"users":' + inner + b"}", LISTS.media_type)


def quoted(text: str) -> str:
    """For a URL."""
    return urllib.parse.quote(text, safe="%/")
