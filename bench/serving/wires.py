"""What goes over the wire: how a request is written, and how its answer is read."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Wire:
    """A format.

    Attributes:
        media_type: of request and answer.
        encode: (users and positives, n) -> body.
        decode: (body, shape) -> negatives.
    """

    media_type: str
    encode: Callable[[Floats, int], bytes]
    decode: Callable[[memoryview, tuple[int, int, int]], Floats]


def _lists(pairs: Floats, n: int) -> bytes:
    users, positives = pairs.tolist()
    return json.dumps({"users": users, "positives": positives, "n": n}).encode()


def _tensors(pairs: Floats, n: int) -> bytes:  # noqa: ARG001
    return safetensors.numpy.save({"users": pairs[0], "positives": pairs[1]})


RAW = Wire(
    "application/octet-stream",
    lambda pairs, _: pairs.tobytes(),
    lambda body, shape: np.frombuffer(body, np.float32).reshape(shape),
)
SAFETENSORS = Wire(
    "application/x-safetensors",
    _tensors,
    lambda body, _: safetensors.numpy.load(bytes(body))["negatives"],
)
LISTS = Wire(
    "application/json",
    _lists,
    lambda body, _: np.asarray(json.loads(bytes(body))["negatives"], np.float32),
)
