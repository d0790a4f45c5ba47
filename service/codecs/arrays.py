"""Arrays as they come off the wire, and as a model takes them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import torch
from torch import Tensor

from core.errors import (
    DimensionMismatchError,
    EmptyBatchError,
    MalformedError,
    OutOfRangeError,
    TooLargeError,
)
from core.samplers.base import FEATURES
from service.offer import Offer

SAFE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
}
SAFE_DTYPES = {name: dtype for dtype, name in SAFE_NAMES.items()}
INTEGERS = ("user_ids", "popularity")  # the other arrays are floats

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
        popularity: (B,) int64 strata, or None.
        item_features: (B, f) of each positive by modality, in the order of their names; floats.
    """

    users: Tensor
    positives: Tensor
    threshold: Tensor | None = None
    user_ids: Ids | None = None
    popularity: Tensor | None = None
    item_features: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """B."""
        return len(self.users)


def checked(arrays: Arrays, offer: Offer, max_rows: int) -> Inputs:
    """The arrays as inputs of a model.

    Args:
        arrays: from one of the readers above.
        offer: what the model takes.
        max_rows: most rows of one request.

    Raises:
        OutOfRangeError: an input that the model does not take, or a stratum that it does not have.
        MalformedError: users or positives missing, or of a dtype that is no float.
        EmptyBatchError: no rows.
        TooLargeError: too many rows.
        DimensionMismatchError: shapes that do not fit each other or the model.
    """
    dim, names = offer.dim, [*offer.inputs, "user_ids"]
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
    shapes |= {FEATURES + name: (rows, width) for name, width in offer.features.items()}
    for name, array in arrays.items():
        shape, right = _shape(array), shapes.get(name, (rows,))
        if shape != right:
            raise DimensionMismatchError(
                f"{name} has shape {list(shape)}; it must be {list(right)} "
                f"(B = {rows} from users, the rest from the model)"
            )
        integer = isinstance(array, Tensor) and array.dtype == torch.int64
        if isinstance(array, Tensor) and integer != (name in INTEGERS):
            right_types = "I64" if name in INTEGERS else "F32, F16 or BF16"
            raise MalformedError(f"{name} has dtype {SAFE_NAMES[array.dtype]}; send {right_types}")
    if "popularity" in arrays:
        _check_strata(arrays["popularity"], offer.strata)
    features = {name for name in arrays if name.startswith(FEATURES)}
    return Inputs(
        **{name: array for name, array in arrays.items() if name not in features},
        item_features={name.removeprefix(FEATURES): arrays[name] for name in sorted(features)},
    )


def _check_strata(popularity: Tensor, strata: int) -> None:
    bad = ((popularity < 0) | (popularity >= strata)).nonzero()
    if len(bad):
        row = int(bad[0])
        raise OutOfRangeError(
            f"popularity row {row} is {int(popularity[row])}; this model has strata 0 (the least "
            f"popular) to {strata - 1}"
        )


def is_shape(shape: list[Any]) -> bool:
    """Whether a list can be the shape of something that fits into memory."""
    return len(shape) <= 4 and all(type(size) is int and 0 <= size < 2**31 for size in shape)


def view(body: bytearray, dtype: torch.dtype, shape: list[int], offset: int) -> Tensor:
    """A tensor over the body; a copy where its data are not aligned to its elements."""
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if offset % dtype.itemsize:
        body, offset = body[offset : offset + count * dtype.itemsize], 0
    return torch.frombuffer(body, dtype=dtype, count=count, offset=offset).view(shape)


def json_object(text: bytearray | memoryview, what: str) -> dict[str, Any]:
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


def _shape(array: Tensor | list[Any]) -> tuple[int, ...]:
    return tuple(array.shape) if isinstance(array, Tensor) else (len(array),)


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
