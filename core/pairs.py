"""(user, positive) rows on the wire: the service puts them on a Redis stream, the trainer reads.

One stream a model, `turnpoint:pairs:<model>`; one entry a request, or a sample of its rows:

    schema                            1
    model, version                    who answered the request
    at                                seconds since the epoch
    rows, dim                         B, d
    users, positives                  B d little-endian float16 each, C order
    users_scale, positives_scale      what they were divided by, as Python writes a float

Each array is divided by its RMS over the entry, so that float16 serves every encoder's units. A
value x comes back within 2^-11 |x|, or within 2^-25 RMS where that is more: below 6e-5 RMS float16
is subnormal.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import ConfigError, PairsError
from core.registry import checked_name

SCHEMA = 1
# An RMS outside this is no embedding's, and its values would leave float32's range.
SMALLEST, LARGEST = 1e-30, 1e30
_HALF = np.dtype("<f2")


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows that the service was asked about.

    Attributes:
        model: the model that answered.
        version: its version.
        users: (B, d) e_u, float32 once decoded.
        positives: (B, d) e_i, likewise.
        at: when, in seconds since the epoch.
    """

    model: str
    version: str
    users: Float[Tensor, "B d"]
    positives: Float[Tensor, "B d"]
    at: float


def stream_key(model: str) -> str:
    """Where a model's pairs are in Redis."""
    return f"turnpoint:pairs:{model}"


def encode(pairs: Pairs) -> dict[bytes, bytes]:
    """The fields of one stream entry.

    Raises:
        PairsError: nothing in it, or a NaN, an infinity, or values beyond `SMALLEST`..`LARGEST`.
    """
    rows, dim = pairs.users.shape
    plain = {
        "schema": SCHEMA,
        "model": pairs.model,
        "version": pairs.version,
        "at": repr(pairs.at),
        "rows": rows,
        "dim": dim,
    }
    fields = {name.encode(): str(value).encode() for name, value in plain.items()}
    for name, array in (("users", pairs.users), ("positives", pairs.positives)):
        scale = _scale(name, array)
        halves = (array.detach().float() / scale).half().cpu().numpy()
        fields[name.encode()] = halves.astype(_HALF, copy=False).tobytes()
        fields[f"{name}_scale".encode()] = repr(scale).encode()
    return fields


def decode(fields: Mapping[bytes, bytes]) -> Pairs:
    """The inverse of `encode`, up to float16; a field that is not known is passed over.

    Raises:
        PairsError: an entry of another schema, cut short, malformed, or with what is not finite.
    """
    if (schema := _field(fields, "schema")) != str(SCHEMA).encode():
        raise PairsError(
            f"a stream entry of schema {schema[:16]!r}; this program reads {SCHEMA}: use the same "
            "release for the service and the trainer"
        )
    rows, dim = _size(fields, "rows"), _size(fields, "dim")
    at = _number(fields, "at")
    if at < 0:
        raise PairsError(f"at = {at!r}; it must be seconds since 1970, at least 0")
    return Pairs(
        model=_name(fields, "model"),
        version=_name(fields, "version"),
        users=_array(fields, "users", rows, dim),
        positives=_array(fields, "positives", rows, dim),
        at=at,
    )


def _scale(name: str, array: Tensor) -> float:
    """The RMS; 1 for zeros."""
    if array.numel() == 0:
        raise PairsError(f"{name} has shape {list(array.shape)}: send at least one row")
    norm = float(torch.linalg.vector_norm(array.detach(), dtype=torch.float64))
    rms = norm / math.sqrt(array.numel())
    if rms == 0:
        return 1.0
    if not SMALLEST <= rms <= LARGEST:  # a NaN is neither
        raise PairsError(f"{name} has an RMS of {rms:g}; it must be {SMALLEST:g} to {LARGEST:g}")
    return rms


def _array(fields: Mapping[bytes, bytes], name: str, rows: int, dim: int) -> Tensor:
    scale = _number(fields, f"{name}_scale")
    if not SMALLEST <= scale <= LARGEST:
        raise PairsError(f"{name}_scale = {scale!r}; it must be {SMALLEST:g} to {LARGEST:g}")
    content = _field(fields, name)
    if len(content) != rows * dim * _HALF.itemsize:
        raise PairsError(
            f"{name} has {len(content)} bytes; {rows} rows of {dim} float16 are "
            f"{rows * dim * _HALF.itemsize}"
        )
    halves = np.frombuffer(content, _HALF).astype(np.float32).reshape(rows, dim)
    array = torch.from_numpy(halves) * scale
    if not bool(torch.isfinite(array).all()):
        raise PairsError(f"{name} has a NaN or an infinity; every value must be finite")
    return array


def _field(fields: Mapping[bytes, bytes], name: str) -> bytes:
    try:
        return fields[name.encode()]
    except KeyError:
        raise PairsError(f"a stream entry without {name}: cut short, or not ours") from None


def _name(fields: Mapping[bytes, bytes], name: str) -> str:
    try:
        return checked_name(_field(fields, name).decode())
    except (UnicodeDecodeError, ConfigError) as error:
        raise PairsError(f"{name} of a stream entry: {error}") from None


def _size(fields: Mapping[bytes, bytes], name: str) -> int:
    content = _field(fields, name)
    if not (content.isdigit() and len(content) < 10 and int(content)):
        raise PairsError(f"{name} = {content[:16]!r}; it must be a whole number above 0")
    return int(content)


def _number(fields: Mapping[bytes, bytes], name: str) -> float:
    content = _field(fields, name)
    try:
        value = float(content)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PairsError(f"{name} = {content[:32]!r}; it must be a finite number")
    return value
