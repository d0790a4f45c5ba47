"""From a whole reply to the arrays and facts it holds, or to the error it stands for."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ._arrays import Library
from ._formats import INTEGERS, Decoded, decode
from ._problems import error_of
from ._reply import Reply
from .errors import ProtocolError
from .results import Model, ModelVersion

MAY_LACK = "weights"  # come with the negatives of methods that weigh them


def expected_shapes(rows: int, dim: int, scalars: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The arrays an answer must have, or may, and their shapes."""
    n = scalars.get("n", 1)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "negatives": {"negatives": (rows, n, dim), "weights": (rows, n)},
        "transition": {"transition": (rows,)},
        "distribution": {"mean": (rows, dim), "std": (rows, dim)},
        "scores": {"scores": (rows, n)},
        "items": {"items": (rows, n)},
    }
    return {name: shape for asked in scalars["returns"] for name, shape in shapes[asked].items()}


def arrays_of(
    reply: Reply, library: Library, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """The fields of a result."""
    check(reply)
    decoded = decode(reply)
    answer = _identity(reply, decoded)
    for name, shape in expected.items():
        raw = decoded.arrays.get(name)
        if raw is None and name == MAY_LACK:
            continue
        if raw is None:
            raise ProtocolError(f"asked for {name}, which the answer lacks")
        if raw.shape != shape:
            raise ProtocolError(f"{name} came as {list(raw.shape)}, expected {list(shape)}")
        if (name in INTEGERS) != raw.dtype.startswith("int"):
            raise ProtocolError(f"{name} came as {raw.dtype}")
        answer[name] = library.build(raw)
    return answer


def _identity(reply: Reply, decoded: Decoded) -> dict[str, Any]:
    """Who answered: from the body where it says so, else from the headers."""
    headers = reply.headers
    told = {
        "model": decoded.told.get("model", headers.get("x-model")),
        "version": decoded.told.get("version", headers.get("x-model-version")),
        "seed": decoded.told.get("seed", headers.get("x-seed")),
    }
    missing = [name for name, value in told.items() if value is None]
    if missing:
        raise ProtocolError(f"the answer does not say its {', '.join(missing)}")
    try:
        seed = int(told["seed"])
    except (TypeError, ValueError):
        raise ProtocolError(f"the answer's seed is {told['seed']!r}, no integer") from None
    return {
        "model": str(told["model"]),
        "version": str(told["version"]),
        "seed": seed,
        "request_id": headers.get("x-request-id"),
        "timings": timings(headers.get("server-timing", "")),
    }


def timings(header: str) -> dict[str, float]:
    """Milliseconds by name from a `Server-Timing` header; entries without duration are left out."""
    found = {}
    for entry in header.split(","):
        name, *params = (part.strip() for part in entry.split(";"))
        for param in params:
            key, _, value = param.partition("=")
            if key.strip().lower() == "dur":
                try:
                    found[name] = float(value.strip().strip('"'))
                except ValueError:
                    continue
    return found


def check(reply: Reply) -> None:
    if not 200 <= reply.status < 300:
        raise error_of(reply)


def document_of(reply: Reply) -> dict[str, Any]:
    check(reply)
    try:
        document = reply.document()
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the answer is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise ProtocolError(f"the answer is a {type(document).__name__}, expected an object")
    return document


def model_of(entry: Any) -> Model:
    """One model; what a newer service says besides is left out."""
    try:
        known = {field.name: entry[field.name] for field in fields(Model) if field.name in entry}
        known["versions"] = tuple(_version(version) for version in known.get("versions") or ())
        known["name"] = str(known["name"])
        return Model(**known)
    except (KeyError, TypeError) as error:
        raise ProtocolError(f"{entry!r} does not describe a model: {error!r}") from error


def _version(entry: Any) -> ModelVersion:
    known = {field.name: entry[field.name] for field in fields(ModelVersion) if field.name in entry}
    return ModelVersion(**known)
