"""A service small enough to check by eye: the contract, written a second time and without numpy.

Negative j of row b is positives[b] + j users[b]; mean = positives, std = |users|, t* = b.
"""

import base64
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs

OCTETS = "application/octet-stream"
SAFETENSORS = "application/x-safetensors"
JSON = "application/json"
PROBLEM = "application/problem+json"
INTEGERS = ("transition", "items")

Row = list[float]


@dataclass
class Request:
    """A request as the service sees it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @classmethod
    def of(
        cls, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> "Request":
        lowered = {name.lower(): value for name, value in headers.items()}
        return cls(method, path, parse_qs(query), lowered, body)


@dataclass
class Answer:
    """What it sends back."""

    status: int
    headers: dict[str, str]
    body: bytes


def pack(dtype: str, values: list[float]) -> bytes:
    if (
        dtype == "bfloat16"
    ):  # a float32 without its lower half; exact for the small integers used here
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    letter = {"float32": "f", "float16": "e", "int64": "q"}[dtype]
    return struct.pack(f"<{len(values)}{letter}", *values)


def unpack(body: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(body) // 4}f", body))


def rows(flat: list[float], width: int) -> list[Row]:
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def read_safetensors(body: bytes) -> tuple[dict[str, tuple[str, list[int], bytes]], dict[str, str]]:
    (length,) = struct.unpack("<Q", body[:8])
    header = json.loads(body[8 : 8 + length])
    told = header.pop("__metadata__", {})
    tensors = body[8 + length :]
    return {
        name: (entry["dtype"], entry["shape"], tensors[slice(*entry["data_offsets"])])
        for name, entry in header.items()
    }, told


def write_safetensors(
    arrays: Mapping[str, tuple[str, list[int], bytes]], told: dict[str, str]
) -> bytes:
    header: dict[str, Any] = {"__metadata__": told}
    body = b""
    for name, (dtype, shape, data) in arrays.items():
        header[name] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def problem(status: int, code: str, headers: Mapping[str, str] = {}, **members: Any) -> Answer:
    document = {
        "status": status,
        "code": code,
        "title": code.replace("_", " "),
        "detail": "as told",
    }
    body = json.dumps(document | members).encode()
    return Answer(status, {"content-type": PROBLEM, **headers}, body)


def flatten(value: Any) -> list[float]:
    return (
        [number for part in value for number in flatten(part)]
        if isinstance(value, list)
        else [value]
    )


def shape_of(value: Any) -> list[int]:
    return [len(value), *shape_of(value[0])] if isinstance(value, list) else []


@dataclass
class Fake:
    """The service. `seen` keeps what each POST asked, format aside."""

    dim: int = 3
    packed_json: bool = False
    seen: list[dict[str, Any]] = field(default_factory=list)

    MODEL: ClassVar[dict[str, Any]] = {
        "name": "demo",
        "live": "v2",
        "method": "adar",
        "dim": 3,
        "num_steps": 50,
        "denoiser": "film",
        "transition": "exact",
        "inputs": ["users", "positives"],
        "age_seconds": 1.5,
        "metrics": {"recall@20": 0.1},
        "versions": [{"version": "v2", "created_at": "2026-01-01T00:00:00Z", "sha256": "ab"}],
        "of_a_newer_service": True,
    }

    def __call__(self, request: Request) -> Answer:
        plain = {"content-type": JSON}
        if request.path == "/readyz":
            return Answer(200, {"content-type": "text/plain"}, b"ready")
        if request.path == "/models":
            return Answer(200, plain, json.dumps({"models": [self.MODEL]}).encode())
        if request.path == "/models/demo":
            return Answer(200, plain, json.dumps(self.MODEL).encode())
        if request.path.startswith("/models/"):
            return problem(404, "unknown_model")
        assert (request.method, request.path) == ("POST", "/negatives"), request
        asked = self.read(request)
        self.seen.append(asked)
        return self.answer(asked, request.headers["accept"])

    def read(self, request: Request) -> dict[str, Any]:
        kind = request.headers["content-type"]
        asked: dict[str, Any] = {
            name: values if name == "returns" else values[0]
            for name, values in request.query.items()
        }
        if kind == OCTETS:
            flat = rows(unpack(request.body), self.dim)
            half = len(flat) // 2
            return asked | {"users": flat[:half], "positives": flat[half:]}
        if kind == SAFETENSORS:
            for name, (dtype, shape, data) in read_safetensors(request.body)[0].items():
                if dtype == "I64":
                    asked[name] = list(struct.unpack(f"<{shape[0]}q", data))
                else:
                    assert dtype == "F32"
                    asked[name] = rows(unpack(data), shape[1]) if len(shape) == 2 else unpack(data)
            return asked
        assert kind == JSON
        assert not request.query
        fields = json.loads(request.body)
        features = fields.pop("item_features", {})
        fields |= {f"item_features.{name}": value for name, value in features.items()}
        for name, value in fields.items():
            if isinstance(value, dict):
                assert value["dtype"] == "float32"
                asked[name] = rows(unpack(base64.b64decode(value["data"])), value["shape"][1])
            else:
                asked[name] = value if isinstance(value, list) else str(value)
        return asked

    def answer(self, asked: dict[str, Any], accept: str) -> Answer:
        n = int(asked.get("n", 1))
        users, positives = asked["users"], asked["positives"]
        pairs = list(zip(users, positives, strict=True))
        negatives = [
            [[p + j * u for u, p in zip(*pair, strict=True)] for j in range(n)] for pair in pairs
        ]
        values: dict[str, Any] = {}
        for name in asked["returns"]:
            if name == "distribution":
                values |= {"mean": positives, "std": [[abs(u) for u in row] for row in users]}
            elif name == "scores":
                values["scores"] = [
                    [math.fsum(u * e for u, e in zip(user, one, strict=True)) for one in drawn]
                    for user, drawn in zip(users, negatives, strict=True)
                ]
            elif name == "items":
                values["items"] = [[j + 3 * row for j in range(n)] for row in range(len(users))]
            else:
                values[name] = negatives if name == "negatives" else list(range(len(users)))
        told = {
            "model": asked.get("model", "demo"),
            "version": asked.get("version", "v2"),
            "seed": str(asked.get("seed", 7)),
        }
        headers = {
            "content-type": accept,
            "x-model": told["model"],
            "x-model-version": told["version"],
            "x-seed": told["seed"],
            "x-request-id": "r-1",
            "server-timing": "decode;dur=0.25, queue;dur=1, sample;desc=model;dur=2.5, encode",
        }
        dtype = asked.get("dtype", "float32")
        if accept == OCTETS:
            assert list(values) == ["negatives"]
            headers["x-negatives-shape"] = ",".join(map(str, shape_of(negatives)))
            headers["x-negatives-dtype"] = dtype
            return Answer(200, headers, pack(dtype, flatten(negatives)))
        kinds = {name: "int64" if name in INTEGERS else dtype for name in values}
        data = {name: pack(kinds[name], flatten(value)) for name, value in values.items()}
        shapes = {name: shape_of(value) for name, value in values.items()}
        if accept == SAFETENSORS:
            short = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
            arrays = {name: (short[kinds[name]], shapes[name], data[name]) for name in values}
            return Answer(200, headers, write_safetensors(arrays, told))
        if self.packed_json:
            values = {
                name: {
                    "shape": shapes[name],
                    "dtype": kinds[name],
                    "data": base64.b64encode(data[name]).decode(),
                }
                for name in values
            }
        return Answer(
            200, headers, json.dumps({**values, **told, "seed": int(told["seed"])}).encode()
        )
