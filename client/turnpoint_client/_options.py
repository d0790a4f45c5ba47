"""What may be said about a batch, checked before it is sent.

Whether the arrays are finite is left to the service, which names the first bad row.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from ._arrays import floats, plain
from ._formats import FEATURES, MEDIA_TYPES
from .errors import InvalidInputError

Format = Literal["auto", "octet-stream", "safetensors", "json"]
RETURNS = ("negatives", "transition", "distribution", "scores", "items")
DTYPES = ("float32", "float16", "bfloat16")


class Options(TypedDict, total=False):
    """What may be said about any batch; None by default. The service documents the rules.

    Attributes:
        transition: the rule for t*; default: the checkpoint's.
        omega, k: parameters of `score_aware` and `calibrated`.
        hardness: in [0, 1].
        threshold: [B], the score mu- below which a sample counts as negative (`theorem`, `exact`).
        relative_margin, absolute_margin: mu- from the positive's score p_s: (1 - m) p_s, p_s - m.
        seed: same request, seed and version: same answer.
        progress: in [0, 1], how far training is (GDNSM); default: its end.
        item_features: [B, f] of the positives by modality (GDNSM); a missing one counts as unknown.
        popularity: [B] integers, the stratum of popularity that negatives are conditioned on, 0 the
            least popular (CNSDiff); default: averaged over all.
        user_ids: [B] integers, a cache hint (strings in JSON only).
        model, version: default: the client's model, else the service's; its live version.
        dtype: of the answer's floats: float32, float16 or bfloat16.
        format: octet-stream, safetensors or json; default: the fastest that carries the call.
        deadline: seconds this call may take, retries included; the service drops it after that.
    """

    transition: str | None
    omega: float | None
    k: float | None
    hardness: float | None
    threshold: Any
    relative_margin: float | None
    absolute_margin: float | None
    seed: int | None
    progress: float | None
    item_features: Mapping[str, Any] | None
    popularity: Any
    user_ids: Any
    model: str | None
    version: str | None
    dtype: Any
    format: Format | None
    deadline: float | None


def whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidInputError(f"{name} is {value!r}; pass an integer") from None


def _real(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name} is {value!r}; pass a number") from None
    if not math.isfinite(number):
        raise InvalidInputError(f"{name} is {number}; pass a finite number")
    return number


def text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{name} is {value!r}; pass a name")
    return value


def _dtype(name: str, value: Any) -> str:
    known = str(value).removeprefix("torch.")  # torch.bfloat16 is as good as "bfloat16"
    if known not in DTYPES:
        raise InvalidInputError(f"{name} is {value!r}; pass one of {', '.join(DTYPES)}")
    return known


def seconds(name: str, value: Any) -> float | None:
    if value is None:
        return None
    limit = _real(name, value)
    if limit <= 0:
        raise InvalidInputError(f"{name} is {limit}; pass more than 0 seconds")
    return limit


def wanted_of(returns: str | Iterable[str]) -> list[str]:
    wanted = [returns] if isinstance(returns, str) else list(dict.fromkeys(returns))
    unknown = [name for name in wanted if name not in RETURNS]
    if unknown:
        raise InvalidInputError(f"returns has {unknown[0]!r}; known are {', '.join(RETURNS)}")
    return wanted


SCALARS: dict[str, Callable[[str, Any], str | int | float]] = {
    "transition": text,
    "omega": _real,
    "k": _real,
    "hardness": _real,
    "relative_margin": _real,
    "absolute_margin": _real,
    "seed": whole,
    "progress": _real,
    "model": text,
    "version": text,
    "dtype": _dtype,
}


def pair(users: Any, positives: Any) -> dict[str, NDArray[Any]]:
    both = {
        "users": floats("users", users, ndim=2),
        "positives": floats("positives", positives, ndim=2),
    }
    shapes = [list(array.shape) for array in both.values()]
    if shapes[0] != shapes[1]:
        raise InvalidInputError(
            f"users is {shapes[0]} and positives {shapes[1]}; pass equal shapes"
        )
    return both


def extras(given: dict[str, Any], *, rows: int) -> dict[str, NDArray[Any]]:
    """Takes the arrays beside users and positives out of what was given."""
    found: dict[str, NDArray[Any]] = {}
    if "threshold" in given:
        found["threshold"] = floats("threshold", given.pop("threshold"), ndim=1)
    for name, features in dict(given.pop("item_features", {})).items():
        found[FEATURES + name] = floats(f"item_features[{name!r}]", features, ndim=2)
    if "popularity" in given:
        found["popularity"] = _wholes("popularity", given.pop("popularity"), "iu")
    if "user_ids" in given:
        found["user_ids"] = _wholes("user_ids", given.pop("user_ids"), "iuU")
    for name, array in found.items():
        if len(array) != rows:
            raise InvalidInputError(
                f"{name} has {len(array)} rows, users has {rows}; pass one each"
            )
    return found


def _wholes(name: str, values: Any, kinds: str) -> NDArray[Any]:
    """[B] integers, or strings where `kinds` has numpy's U."""
    try:
        found = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        found = plain(name, values)
    if found.ndim != 1 or found.dtype.kind not in kinds:
        told = f"{name} has shape {list(found.shape)} and dtype {found.dtype}"
        raise InvalidInputError(f"{told}; pass [B] integers{' or strings' * ('U' in kinds)}")
    return found if found.dtype.kind == "U" else np.ascontiguousarray(found, "<i8")


def format_of(chosen: str, tensors: Mapping[str, NDArray[Any]], scalars: Mapping[str, Any]) -> str:
    """The format to use, once it is known to carry what is asked."""
    if chosen not in {"auto", *MEDIA_TYPES}:
        known = ", ".join(MEDIA_TYPES)
        raise InvalidInputError(f"format is {chosen!r}; pass one of {known}, or nothing")
    besides = [name for name in tensors if name not in {"users", "positives"}]
    bare = not besides and scalars["returns"] == ["negatives"]
    if chosen == "auto":
        chosen = "octet-stream" if bare else "safetensors"
    if chosen == "octet-stream" and not bare:
        asked = besides or [f"returns={scalars['returns']}"]
        raise InvalidInputError(f"octet-stream carries no {asked[0]}; pass format='safetensors'")
    if chosen == "json" and scalars.get("dtype", "float32") != "float32":
        raise InvalidInputError(f"json answers in float32, not {scalars['dtype']}; leave dtype out")
    if chosen != "json" and "user_ids" in tensors and tensors["user_ids"].dtype.kind == "U":
        raise InvalidInputError("user_ids are strings; number them, or pass format='json'")
    return chosen
