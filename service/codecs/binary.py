"""Octet-stream and safetensors: tensors are views of the body, answers are views of tensors."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import torch
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from torch import Tensor

from core.errors import DimensionMismatchError, EmptyBatchError, MalformedError
from service.codecs.arrays import SAFE_DTYPES, SAFE_NAMES, Arrays, is_shape, json_object, view
from service.codecs.media import OCTET_STREAM, SAFETENSORS

MAX_HEADER = 65_536  # bytes of a safetensors header; ours have a few hundred


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
    header = json_object(memoryview(body)[8 : 8 + length], "the safetensors header")
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
        arrays[name] = view(body, dtype, shape, start + begin)
    if start + end != len(body):
        raise MalformedError(
            f"{len(body) - start - end} bytes are left over after the last tensor; "
            "send the header and its tensors alone"
        )
    return arrays


def to_octet_stream(negatives: Tensor) -> Response:
    """The bare negatives; shape and dtype in headers."""
    response = PartsResponse([_bytes(negatives)], OCTET_STREAM)
    response.headers["X-Negatives-Shape"] = ",".join(map(str, negatives.shape))
    response.headers["X-Negatives-Dtype"] = str(negatives.dtype).removeprefix("torch.")
    return response


def to_safetensors(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> Response:
    """Named tensors; what is told in `__metadata__`."""
    parts: list[bytes | memoryview] = [_safe_header(tensors, told)]
    return PartsResponse([*parts, *map(_bytes, tensors.values())], SAFETENSORS)


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
    if not is_shape(shape) or not 0 <= begin <= end:
        raise MalformedError(
            f"tensor {name[:64]!r} has an impossible shape or impossible offsets; shapes are lists "
            "of whole numbers, offsets [begin, end] into the data"
        )
    return SAFE_DTYPES[kind], shape, begin, end


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
