"""The three formats <-> tensors.

| format                   | in                                   | out                           |
|--------------------------|--------------------------------------|-------------------------------|
| application/octet-stream | users then positives, float32        | the bare negatives            |
| .../x-safetensors        | named tensors F32, F16, BF16         | named tensors, `__metadata__` |
| application/json         | lists, or {"shape", "dtype", "data"} | lists                         |

All little-endian, C order. Binary tensors are views of the body, and answers are views of tensors:
nothing here but JSON costs time per row. Whether numbers are finite is checked where they are used,
in the model thread.
"""

import base64
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import torch
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from torch import Tensor

from core.errors import (
    DimensionMismatchError,
    EmptyBatchError,
    MalformedError,
    NonFiniteError,
    OutOfRangeError,
    TooLargeError,
    UnsupportedMediaTypeError,
)
from service.params import DTYPES, TENSORS
from service.problems import NotAcceptableError

OCTET_STREAM = "application/octet-stream"
SAFETENSORS = "application/x-safetensors"
JSON = "application/json"
FORMATS = (OCTET_STREAM, SAFETENSORS, JSON)

MAX_HEADER = 65_536  # bytes of a safetensors header; ours have a few hundred
SAFE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
SAFE_DTYPES = {name: dtype for dtype, name in SAFE_NAMES.items()}
_NUMBERS = frozenset({int, float})
_IDS = frozenset({int, str})

Ids = Tensor | list[Any]
Arrays = dict[str, Any]  # name -> Tensor; for user_ids in JSON, a list


@dataclass(frozen=True)
class Inputs:
    """A request's arrays, shapes checked.

    Attributes:
        users: (B, d) e_u; float32, float16 or bfloat16.
        positives: (B, d) e_i, likewise.
        threshold: (B,) mu-, or None.
        user_ids: B ids, or None; a hint for a cache.
    """

    users: Tensor
    positives: Tensor
    threshold: Tensor | None = None
    user_ids: Ids | None = None

    @property
    def rows(self) -> int:
        """B."""
        return len(self.users)


def media_type(headers: Headers) -> str:
    """The format of a request's body.

    Raises:
        UnsupportedMediaTypeError: another one, or none, or a compressed body.
    """
    given = headers.get("content-type", "").split(";")[0].strip().lower()
    if given not in FORMATS:
        raise UnsupportedMediaTypeError(
            f"Content-Type is {given[:64]!r}; send one of {', '.join(FORMATS)}"
        )
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaTypeError(
            "Content-Encoding is set; embeddings do not compress: send the body as it is"
        )
    return given


def negotiate(accept: str, own: str) -> str:
    """The answer's format: what Accept ranks highest, the request's own where it does not care.

    Raises:
        NotAcceptableError: Accept names none of the formats.
    """
    ranked: dict[str, float] = {}
    for part in accept.split(","):
        name, *options = (piece.strip().lower() for piece in part.split(";"))
        weight = next((_weight(o[2:]) for o in options if o.startswith("q=")), 1.0)
        for media in (own, *FORMATS):
            if name in {media, "*/*", "application/*"} and weight > ranked.get(media, 0.0):
                ranked[media] = weight
    if not accept.strip():
        return own
    if not ranked:
        raise NotAcceptableError(
            f"Accept is {accept[:64]!r}; it must allow one of {', '.join(FORMATS)}"
        )
    return max(ranked, key=lambda media: (ranked[media], media == own))


def wanted(returns: tuple[str, ...] | None, media: str, dtype: str) -> tuple[str, ...]:
    """What the answer holds, in the format that was negotiated.

    Raises:
        NotAcceptableError: more than the negatives in a format that has no names.
        OutOfRangeError: half precision in JSON.
    """
    if media == JSON and dtype != "float32":
        raise OutOfRangeError(
            f"dtype = {dtype!r} is for binary answers; send Accept: {SAFETENSORS} or leave it out"
        )
    if media == OCTET_STREAM:
        if set(returns or ("negatives",)) != {"negatives"}:
            raise NotAcceptableError(
                f"{OCTET_STREAM} carries the negatives alone, not {', '.join(returns or ())}; "
                f"send Accept: {SAFETENSORS}"
            )
        return ("negatives",)
    return returns or ("negatives", "transition")


def from_octet_stream(body: bytearray, dim: int) -> Arrays:
    """Users then positives; B = bytes / (8 d).

    Raises:
        EmptyBatchError: no bytes.
        DimensionMismatchError: no whole number of rows.
    """
    if not body:
        raise EmptyBatchError("the body is empty; send users then positives as float32")
    rows, rest = divmod(len(body), 8 * dim)
    if rest:
        raise DimensionMismatchError(
            f"the body has {len(body)} bytes, no multiple of 8 d = {8 * dim} (d = {dim}); "
            "send users then positives, [B, d] each, as float32"
        )
    users, positives = torch.frombuffer(body, dtype=torch.float32).view(2, rows, dim)
    return {"users": users, "positives": positives}


def from_safetensors(body: bytearray) -> Arrays:
    """Named tensors, as views of the body.

    Raises:
        MalformedError: truncated, a header that does not fit its data, or a dtype not accepted.
    """
    length = int.from_bytes(body[:8], "little")
    if len(body) < 8 or length > min(len(body) - 8, MAX_HEADER):
        raise MalformedError(
            f"truncated or no safetensors: the header claims {length} bytes, the body has "
            f"{len(body)}, and a header at most {MAX_HEADER}"
        )
    header = _object(memoryview(body)[8 : 8 + length], "the safetensors header")
    header.pop("__metadata__", None)
    start, end = 8 + length, 0
    arrays: Arrays = {}
    for name, entry in sorted(header.items(), key=lambda item: _offset(item[1])):
        dtype, shape, begin, after = _entry(name, entry)
        if begin != end or after - begin != math.prod(shape) * dtype.itemsize:
            raise MalformedError(
                f"tensor {name[:64]!r} of shape {shape} claims bytes {begin} to {after}; its size "
                f"is {math.prod(shape) * dtype.itemsize} and the data before it ends at {end}"
            )
        if start + after > len(body):
            raise MalformedError(
                f"truncated: tensor {name[:64]!r} ends at byte {start + after}, "
                f"the body at {len(body)}"
            )
        end = after
        arrays[name] = _view(body, dtype, shape, start + begin)
    if start + end != len(body):
        raise MalformedError(f"{len(body) - start - end} bytes are left over after the last tensor")
    return arrays


def from_json(body: bytearray, max_rows: int) -> tuple[Arrays, dict[str, Any]]:
    """Arrays, and the fields that are none. Takes time per number: not for the event loop.

    Raises:
        MalformedError: no JSON, no object, or something else where numbers belong.
        NonFiniteError: null or NaN for a number.
        DimensionMismatchError: rows of differing length.
        TooLargeError: more than `max_rows` rows.
    """
    fields = _object(body, "the body")
    arrays: Arrays = {}
    for name in TENSORS:
        value = fields.pop(name, None)
        if value is None:
            continue
        if isinstance(value, dict):
            arrays[name] = _from_base64(name, value)
        elif not isinstance(value, list):
            raise MalformedError(f"{name} must be a list or an object with shape, dtype and data")
        elif len(value) > max_rows:
            raise TooLargeError(_too_many(name, len(value), max_rows))
        elif name == "user_ids":
            arrays[name] = _ids(value)
        else:
            arrays[name] = _vector(value) if name == "threshold" else _matrix(name, value)
        if len(arrays[name]) > max_rows:
            raise TooLargeError(_too_many(name, len(arrays[name]), max_rows))
    return arrays, fields


def checked(arrays: Arrays, dim: int, known: Sequence[str], max_rows: int) -> Inputs:
    """The arrays as inputs of a model.

    Args:
        arrays: from one of the readers above.
        dim: d.
        known: the names of the inputs that the model takes.
        max_rows: most rows of one request.

    Raises:
        OutOfRangeError: an input that the model does not take.
        MalformedError: users or positives missing, or of a dtype that is no float.
        EmptyBatchError: no rows.
        TooLargeError: too many rows.
        DimensionMismatchError: shapes that do not fit each other or the model.
    """
    names = [*known, "user_ids"]
    for name in arrays:
        if name not in names:
            raise OutOfRangeError(f"unknown tensor {name[:64]!r}; known: {', '.join(names)}")
    for name in ("users", "positives"):
        if name not in arrays:
            raise MalformedError(f"{name} is missing; send users and positives, [B, {dim}] each")
    rows = len(arrays["users"]) if arrays["users"].ndim else 0
    if rows == 0:
        raise EmptyBatchError("users has no rows; send at least one")
    if rows > max_rows:
        raise TooLargeError(f"{rows} rows; at most {max_rows} per request: split the batch")
    shapes = {"users": (rows, dim), "positives": (rows, dim)}
    for name, array in arrays.items():
        shape, right = _shape(array), shapes.get(name, (rows,))
        if shape != right:
            raise DimensionMismatchError(
                f"{name} has shape {list(shape)}; it must be {list(right)} "
                f"(B = {rows} from users, d = {dim} from the model)"
            )
        integer = isinstance(array, Tensor) and array.dtype == torch.int64
        if isinstance(array, Tensor) and integer != (name == "user_ids"):
            right_types = "I64" if name == "user_ids" else "F32, F16 or BF16"
            raise MalformedError(f"{name} has dtype {SAFE_NAMES[array.dtype]}; send {right_types}")
    return Inputs(**arrays)


def encode(media: str, tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> Response:
    """The answer in a format.

    Args:
        media: one of `FORMATS`. JSON takes time per number: not for the event loop.
        tensors: name -> tensor.
        told: model, version and seed.
    """
    if media == JSON:
        document = {**told, **{name: tensor.numpy() for name, tensor in tensors.items()}}
        return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)
    if media == SAFETENSORS:
        return PartsResponse([_safe_header(tensors, told), *map(_bytes, tensors.values())], media)
    negatives = tensors["negatives"]
    response = PartsResponse([_bytes(negatives)], media)
    response.headers["X-Negatives-Shape"] = ",".join(map(str, negatives.shape))
    response.headers["X-Negatives-Dtype"] = str(negatives.dtype).removeprefix("torch.")
    return response


class PartsResponse(Response):
    """Buffers sent one after the other, never joined."""

    def __init__(self, parts: Sequence[bytes | memoryview], media_type: str) -> None:
        length = sum(map(len, parts))
        super().__init__(headers={"Content-Length": str(length)}, media_type=media_type)
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send them."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _object(text: bytearray | memoryview, what: str) -> dict[str, Any]:
    """A JSON object. JSON has no NaN, but Python writes it: read, so that its row can be named."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        value = _with_nan(bytes(text))
        if value is None:
            raise MalformedError(f"{what} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedError(f"{what} must be a JSON object")
    return value


def _with_nan(text: bytes) -> Any:
    if b"NaN" not in text and b"Infinity" not in text:
        return None
    try:
        return json.loads(text, parse_int=_bounded)
    except (ValueError, RecursionError):
        return None


def _bounded(digits: str) -> float:
    """As orjson does: what 64 bits cannot hold is a float, infinite in the end."""
    return int(digits) if len(digits) < 19 else float(digits)


def _offset(entry: Any) -> int:
    """Where a tensor's data begin, for sorting; nonsense is refused by `_entry`."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    begin = offsets[0] if isinstance(offsets, list) and offsets else 0
    return begin if type(begin) is int else 0


def _entry(name: str, entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    """dtype, shape, begin and end of one tensor in a safetensors header."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(), int()] as offsets}:
            pass
        case _:
            raise MalformedError(f"tensor {name[:64]!r} needs dtype, shape and data_offsets")
    if kind not in SAFE_DTYPES:
        raise MalformedError(f"{name[:64]} has dtype {kind[:16]}; send F32, F16 or BF16")
    begin, end = offsets
    if not _sizes(shape) or not 0 <= begin <= end:
        raise MalformedError(f"tensor {name[:64]!r} has an impossible shape or impossible offsets")
    return SAFE_DTYPES[kind], shape, begin, end


def _sizes(shape: list[Any]) -> bool:
    """Whether a list can be the shape of something that fits into memory."""
    return len(shape) <= 4 and all(type(size) is int and 0 <= size < 2**31 for size in shape)


def _view(body: bytearray, dtype: torch.dtype, shape: list[int], offset: int) -> Tensor:
    """A tensor over the body; a copy where its data are not aligned to its elements."""
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if offset % dtype.itemsize:
        body, offset = body[offset : offset + count * dtype.itemsize], 0
    return torch.frombuffer(body, dtype=dtype, count=count, offset=offset).view(shape)


def _from_base64(name: str, value: dict[str, Any]) -> Tensor:
    """{"shape", "dtype", "data"}, data in base64."""
    dtypes = {"int64": torch.int64} if name == "user_ids" else DTYPES
    match value:
        case {"shape": list(shape), "dtype": str(kind), "data": str(data), **rest} if not rest:
            pass
        case _:
            raise MalformedError(f"{name} as an object has exactly shape, dtype and data (base64)")
    if kind not in dtypes or not _sizes(shape) or not shape:
        raise MalformedError(
            f"{name} has dtype {kind[:16]!r} and shape {shape[:4]}; the dtype must be one of "
            f"{', '.join(dtypes)}, the shape one or two sizes"
        )
    try:
        raw = bytearray(base64.b64decode(data, validate=True))
    except ValueError as error:
        raise MalformedError(f"{name}.data is no base64: {error}") from None
    size = math.prod(shape) * dtypes[kind].itemsize
    if len(raw) != size:
        raise MalformedError(f"{name}.data has {len(raw)} bytes; its shape and dtype need {size}")
    return _view(raw, dtypes[kind], shape, 0)


def _matrix(name: str, rows: list[Any]) -> Tensor:
    """Lists of numbers as float32, each rounded to the nearest."""
    width = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    for index, row in enumerate(rows):
        if type(row) is not list:
            raise MalformedError(f"{name} row {index} is no list; it must be a list of numbers")
        if len(row) != width:
            raise DimensionMismatchError(
                f"{name} row {index} has {len(row)} numbers, row 0 has {width}; "
                "they must be of one length"
            )
        if not _NUMBERS.issuperset(map(type, row)):
            column = next(c for c, item in enumerate(row) if type(item) not in _NUMBERS)
            raise _no_number(f"{name} row {index}", f" in column {column}", row[column])
    flat = itertools.chain.from_iterable(rows)
    return _float32(np.fromiter(flat, np.float64, len(rows) * width)).view(len(rows), width)


def _vector(values: list[Any]) -> Tensor:
    for index, item in enumerate(values):
        if type(item) not in _NUMBERS:
            raise _no_number(f"threshold row {index}", "", item)
    return _float32(np.fromiter(values, np.float64, len(values)))


def _float32(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> Tensor:
    with np.errstate(over="ignore"):  # becomes an infinity, which is refused by row and column
        return torch.from_numpy(numbers.astype(np.float32))


def _no_number(where: str, column: str, item: Any) -> MalformedError | NonFiniteError:
    if item is None:  # what most writers of JSON make of NaN
        return NonFiniteError(f"{where} holds null{column}; every number must be finite")
    kind = {str: "a string", bool: "a truth value", list: "a list"}.get(type(item), "an object")
    return MalformedError(f"{where} holds {kind}{column}; it must be a number")


def _ids(values: list[Any]) -> list[Any]:
    if not _IDS.issuperset(map(type, values)):
        index = next(i for i, item in enumerate(values) if type(item) not in _IDS)
        raise MalformedError(f"user_ids row {index} must be a string or a whole number")
    return values


def _too_many(name: str, rows: int, max_rows: int) -> str:
    return (
        f"{name} has {rows} rows; JSON takes at most {max_rows}: split the batch, or send "
        f"{OCTET_STREAM} or {SAFETENSORS}, which are faster too"
    )


def _shape(array: Tensor | list[Any]) -> tuple[int, ...]:
    return tuple(array.shape) if isinstance(array, Tensor) else (len(array),)


def _bytes(tensor: Tensor) -> memoryview:
    """The tensor's memory, as it lies."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    return flat.numpy().data


def _safe_header(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {name: str(value) for name, value in told.items()}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": SAFE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)  # the data begin on a multiple of 8
    return len(text).to_bytes(8, "little") + text
