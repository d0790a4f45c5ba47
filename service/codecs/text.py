"""JSON: lists of numbers, or {"shape", "dtype", "data"}. Takes time per number."""

import base64
import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import torch
from starlette.responses import Response
from torch import Tensor

from core.errors import DimensionMismatchError, MalformedError, NonFiniteError, TooLargeError
from core.samplers.base import FEATURES
from service.codecs.arrays import INTEGERS, Arrays, is_shape, json_object, view
from service.codecs.media import JSON, OCTET_STREAM, SAFETENSORS
from service.params import DTYPES, FEATURES_FIELD, TENSORS

NAME_LENGTH = 64  # of a modality; a refusal repeats it
_NUMBERS = frozenset({int, float})
_IDS = frozenset({int, str})


def from_json(body: bytearray, max_rows: int) -> tuple[Arrays, dict[str, Any]]:
    """Arrays, and the fields that are none. Takes time per number: not for the event loop.

    Raises:
        MalformedError: no JSON, no object, or something else where numbers belong.
        NonFiniteError: null or NaN for a number.
        DimensionMismatchError: rows of differing length.
        TooLargeError: more than `max_rows` rows.
    """
    fields = json_object(body, "the body")
    given = {name: fields.pop(name, None) for name in TENSORS}
    given |= _features(fields.pop(FEATURES_FIELD, None))
    arrays: Arrays = {}
    for name, value in given.items():
        if value is None:
            continue
        if isinstance(value, dict):
            arrays[name] = _from_base64(name, value)
        elif not isinstance(value, list):
            raise MalformedError(f"{name} must be a list or an object with shape, dtype and data")
        elif len(value) > max_rows:
            raise TooLargeError(_too_many(name, len(value), max_rows))
        else:
            arrays[name] = _READERS.get(name, _matrix)(name, value)
        if len(arrays[name]) > max_rows:
            raise TooLargeError(_too_many(name, len(arrays[name]), max_rows))
    return arrays, fields


def to_json(tensors: Mapping[str, Tensor], told: Mapping[str, Any]) -> Response:
    """Lists beside what is told; each number in the fewest digits that give it back."""
    document = {**told, **{name: tensor.numpy() for name, tensor in tensors.items()}}
    return Response(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY), media_type=JSON)


def _features(value: Any) -> dict[str, Any]:
    """{modality: array} under the names that the arrays have elsewhere."""
    modalities = {} if value is None else value
    if not isinstance(modalities, dict) or any(len(name) > NAME_LENGTH for name in modalities):
        raise MalformedError(
            f"{FEATURES_FIELD} must be an object with an array for each modality, by a name of at "
            f"most {NAME_LENGTH} characters"
        )
    return {FEATURES + name: array for name, array in modalities.items()}


def _from_base64(name: str, value: dict[str, Any]) -> Tensor:
    """{"shape", "dtype", "data"}, data in base64."""
    dtypes = {"int64": torch.int64} if name in INTEGERS else DTYPES
    match value:
        case {"shape": list(shape), "dtype": str(kind), "data": str(data), **rest} if not rest:
            pass
        case _:
            raise MalformedError(f"{name} as an object has exactly shape, dtype and data (base64)")
    if kind not in dtypes or not is_shape(shape) or not shape:
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
    return view(raw, dtypes[kind], shape, 0)


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


def _vector(name: str, values: list[Any]) -> Tensor:
    for index, item in enumerate(values):
        if type(item) not in _NUMBERS:
            raise _no_number(f"{name} row {index}", "", item)
    return _float32(np.fromiter(values, np.float64, len(values)))


def _float32(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> Tensor:
    with np.errstate(over="ignore"):  # becomes an infinity, which is refused by row and column
        return torch.from_numpy(numbers.astype(np.float32))


def _no_number(where: str, column: str, item: Any) -> MalformedError | NonFiniteError:
    if item is None:  # what most writers of JSON make of NaN
        return NonFiniteError(f"{where} holds null{column}; every number must be finite")
    kind = {str: "a string", bool: "a truth value", list: "a list"}.get(type(item), "an object")
    return MalformedError(f"{where} holds {kind}{column}; it must be a number")


def _ids(name: str, values: list[Any]) -> list[Any]:
    if not _IDS.issuperset(map(type, values)):
        index = next(i for i, item in enumerate(values) if type(item) not in _IDS)
        raise MalformedError(f"{name} row {index} must be a string or a whole number")
    return values


def _wholes(name: str, values: list[Any]) -> Tensor:
    for index, item in enumerate(values):
        if type(item) is not int or abs(item) >= 2**63:
            raise MalformedError(f"{name} row {index} must be a whole number of 64 bits")
    return torch.tensor(values, dtype=torch.int64)


def _too_many(name: str, rows: int, max_rows: int) -> str:
    return (
        f"{name} has {rows} rows; JSON takes at most {max_rows}: split the batch, or send "
        f"{OCTET_STREAM} or {SAFETENSORS}, which are faster too"
    )


_READERS = {"threshold": _vector, "popularity": _wholes, "user_ids": _ids}
