"""The three formats of POST /negatives, from arrays to bytes and back; each is a pair of functions.

| format         | request                                | answer                                |
|----------------|----------------------------------------|---------------------------------------|
| `octet-stream` | users, positives; scalars in the query | the negatives alone; facts in headers |
| `safetensors`  | any tensors; scalars in the query      | any tensors; facts in the metadata    |
| `json`         | arrays in base64, scalars as fields    | arrays as nested lists or in base64   |
"""

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import httpx
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from ._arrays import WIRE_DTYPES, Raw
from ._reply import Reply
from .errors import ProtocolError

MEDIA_TYPES = {
    "octet-stream": "application/octet-stream",
    "safetensors": "application/x-safetensors",
    "json": "application/json",
}
SAFETENSORS_DTYPES = {
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
}
INTEGERS = frozenset({"transition", "items"})  # of an answer
FEATURES = "item_features."  # prefix of the tensors that JSON keeps in an object of their own

Tensors = Mapping[str, NDArray[Any]]
Scalars = Mapping[str, Any]


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Buffers sent one after the other without being joined; can be sent again, by either client.

    Chunked because the socket layer copies what is left of a chunk after each partial send.
    """

    CHUNK = 1 << 18

    def __init__(self, *parts: memoryview) -> None:
        self._parts = tuple(part.cast("B") for part in parts)
        self.length = sum(len(part) for part in self._parts)

    def snapshot(self) -> "Body":
        """Itself with bytes of its own: arrays it was made from may change afterwards."""
        own = (
            part if isinstance(part.obj, bytes) else memoryview(bytes(part)) for part in self._parts
        )
        return Body(*own)

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            for start in range(0, len(part), self.CHUNK):
                yield cast("bytes", part[start : start + self.CHUNK])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


@dataclass(frozen=True)
class Encoded:
    """A request's body and what of it goes into the query."""

    body: Body
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Decoded:
    """An answer's arrays, and what it says of itself (model, version, seed)."""

    arrays: dict[str, Raw]
    told: dict[str, Any]


def encode(media_type: str, tensors: Tensors, scalars: Scalars) -> Encoded:
    """A request in the format of that media type."""
    return _ENCODERS[media_type](tensors, scalars)


def decode(reply: Reply) -> Decoded:
    """An answer in whichever of the formats its Content-Type names.

    Raises:
        ProtocolError: another media type, or bytes that do not parse as the one named.
    """
    decoder = _DECODERS.get(reply.media_type)
    if decoder is None:
        known = ", ".join(_DECODERS)
        raise ProtocolError(
            f"the answer is {reply.media_type or 'of no type'}; expected one of {known}"
        )
    try:
        decoded = decoder(reply)
        arrays = {name: raw.checked(name) for name, raw in decoded.arrays.items()}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ProtocolError(f"the answer is no valid {reply.media_type}: {error!r}") from error
    return Decoded(arrays, decoded.told)


def _query(scalars: Scalars) -> tuple[tuple[str, str], ...]:
    """Scalars as query parameters; a list repeats its name."""
    pairs = (
        (name, value if isinstance(value, list) else [value]) for name, value in scalars.items()
    )
    return tuple((name, str(value)) for name, values in pairs for value in values)


# --- application/octet-stream ---------------------------------------------------------------------


def _encode_raw(tensors: Tensors, scalars: Scalars) -> Encoded:
    return Encoded(Body(tensors["users"].data, tensors["positives"].data), _query(scalars))


def _decode_raw(reply: Reply) -> Decoded:
    shape = tuple(int(size) for size in reply.headers["x-negatives-shape"].split(","))
    dtype = reply.headers["x-negatives-dtype"].strip()
    return Decoded({"negatives": Raw(reply.body, dtype, shape)}, {})


# --- application/x-safetensors --------------------------------------------------------------------


def _encode_safetensors(tensors: Tensors, scalars: Scalars) -> Encoded:
    return Encoded(Body(memoryview(save(dict(tensors)))), _query(scalars))


def _decode_safetensors(reply: Reply) -> Decoded:
    """Read here: the library's numpy side refuses BF16, copies, and drops the metadata."""
    length = int.from_bytes(reply.body[:8], "little")
    if 8 + length > len(reply.body):
        raise ValueError(f"a header of {length} bytes in a body of {len(reply.body)}")
    header = json.loads(bytes(reply.body[8 : 8 + length]))
    told = header.pop("__metadata__", {})
    tensors = reply.body[8 + length :]
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        dtype = SAFETENSORS_DTYPES.get(entry["dtype"], entry["dtype"])
        arrays[name] = Raw(tensors[start:stop], dtype, tuple(entry["shape"]))
    return Decoded(arrays, dict(told))


# --- application/json -----------------------------------------------------------------------------


def _encode_json(tensors: Tensors, scalars: Scalars) -> Encoded:
    fields: dict[str, Any] = dict(scalars)
    for name, array in tensors.items():
        value = _packed(array) if array.ndim > 1 else array.tolist()
        if name.startswith(FEATURES):
            fields.setdefault("item_features", {})[name.removeprefix(FEATURES)] = value
        else:
            fields[name] = value
    return Encoded(Body(memoryview(json.dumps(fields).encode())))


def _packed(array: NDArray[Any]) -> dict[str, Any]:
    data = base64.b64encode(array.data).decode("ascii")
    return {"shape": list(array.shape), "dtype": array.dtype.name, "data": data}


def _decode_json(reply: Reply) -> Decoded:
    document = reply.document()
    names = ("negatives", "weights", "transition", "mean", "std", "scores", "items")
    arrays = {
        name: _unpacked(name, document[name]) for name in names if document.get(name) is not None
    }
    return Decoded(arrays, document)


def _unpacked(name: str, value: dict[str, Any] | Sequence[Any]) -> Raw:
    if isinstance(value, dict):
        data = bytearray(base64.b64decode(value["data"], validate=True))
        return Raw(memoryview(data), value["dtype"], tuple(value["shape"]))
    dtype = "int64" if name in INTEGERS else "float32"
    array = np.asarray(value, WIRE_DTYPES[dtype])
    return Raw(array.data.cast("B"), dtype, array.shape)


_ENCODERS = {
    "application/octet-stream": _encode_raw,
    "application/x-safetensors": _encode_safetensors,
    "application/json": _encode_json,
}
_DECODERS = {
    "application/octet-stream": _decode_raw,
    "application/x-safetensors": _decode_safetensors,
    "application/json": _decode_json,
}
