"""Arrays in, arrays out: numpy stays numpy; torch stays torch, on its device.

torch is never imported here: whoever passes a tensor has imported it already.
"""

import math
import operator
import sys
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidInputError, ProtocolError


class Array(Protocol):
    """What a numpy array and a torch tensor have in common, as far as a signature cares."""

    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...


A = TypeVar("A", bound=Array)

# numpy has no bfloat16: its bits are read as integers and widened.
WIRE_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype("<u2"),
    "int64": np.dtype("<i8"),
}


class Raw(NamedTuple):
    """An array as it lies on the wire: C order, little endian."""

    data: memoryview
    dtype: str
    shape: tuple[int, ...]

    def checked(self, name: str) -> "Raw":
        """Itself, once the bytes are as many as shape and dtype say.

        Raises:
            ProtocolError: they are not, or the dtype is no known one.
            TypeError: shape or dtype is of no such kind at all.
        """
        if self.dtype not in WIRE_DTYPES:
            raise ProtocolError(f"{name} came as {self.dtype}; known are {', '.join(WIRE_DTYPES)}")
        expected = math.prod(map(operator.index, self.shape)) * WIRE_DTYPES[self.dtype].itemsize
        if expected != self.data.nbytes or any(size < 0 for size in self.shape):
            told = f"{list(self.shape)} of {self.dtype} takes {expected} bytes"
            raise ProtocolError(f"{name}: {told}, but {self.data.nbytes} came")
        return self


def _is_tensor(array: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def plain(name: str, array: Any) -> NDArray[Any]:
    """Any array-like as a numpy array; a view where it can be.

    Raises:
        InvalidInputError: it holds anything but real numbers.
    """
    try:
        if _is_tensor(array):
            tensor = array.detach()
            # numpy knows no bfloat16, so floats are cast while they still are a tensor
            array = (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
        found = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{name} cannot be read as an array: {error}") from error
    if found.dtype.kind in "bcOSUMm":
        raise InvalidInputError(f"{name} has dtype {found.dtype}; pass real numbers")
    return found


def floats(name: str, array: Any, *, ndim: int) -> NDArray[np.float32]:
    """An array-like as float32 in C order; no copy where it is so already.

    Raises:
        InvalidInputError: not `ndim` dimensions, or empty.
    """
    found = plain(name, array)
    if found.ndim != ndim:
        wanted = {1: "[B]", 2: "[B, d]"}[ndim]
        raise InvalidInputError(f"{name} has shape {list(found.shape)}; pass {wanted}")
    if found.size == 0:
        raise InvalidInputError(
            f"{name} has shape {list(found.shape)}, which is empty; pass at least one row"
        )
    with np.errstate(
        over="ignore"
    ):  # an overflow becomes an infinity, which the service refuses by row
        return np.ascontiguousarray(found, dtype="<f4")


class Library(Protocol):
    """The side of an array library that answers need."""

    def build(self, raw: Raw) -> Any:
        """An array over the bytes, copied only where the library cannot do otherwise."""

    def normal(self, n: int, like: Any, generator: Any) -> Any:
        """Standard normal draws [B, n, d] for a `like` of [B, d], in its dtype."""


class NumpyLibrary:
    """numpy arrays in the machine's memory."""

    def build(self, raw: Raw) -> NDArray[Any]:
        """An array over the bytes; bfloat16 is widened to float32, exactly."""
        array: NDArray[Any] = np.frombuffer(raw.data, WIRE_DTYPES[raw.dtype]).reshape(raw.shape)
        if raw.dtype == "bfloat16":
            return cast("NDArray[Any]", (array.astype("<u4") << 16).view("<f4"))
        return array

    def normal(self, n: int, like: NDArray[Any], generator: Any) -> NDArray[Any]:
        """Drawn from a `numpy.random.Generator`, a seed, or fresh entropy."""
        if not (generator is None or isinstance(generator, int | np.integer | np.random.Generator)):
            raise InvalidInputError(
                f"generator is a {type(generator).__name__}; "
                "pass a seed or a numpy.random.Generator"
            )
        rows, dim = like.shape
        noise = np.random.default_rng(generator).standard_normal((rows, n, dim), dtype=np.float32)
        return noise.astype(like.dtype, copy=False)


class TorchLibrary:
    """torch tensors on one device."""

    def __init__(self, device: Any) -> None:
        self._torch: Any = sys.modules["torch"]
        self._device = device

    def build(self, raw: Raw) -> Any:
        """A tensor over the bytes, moved only if the device is another."""
        torch = self._torch
        tensor = torch.frombuffer(raw.data, dtype=getattr(torch, raw.dtype))
        return tensor.reshape(raw.shape).to(self._device)

    def normal(self, n: int, like: Any, generator: Any) -> Any:
        """Drawn from a `torch.Generator`, a seed, or torch's global generator."""
        torch = self._torch
        if isinstance(generator, int):
            generator = torch.Generator(self._device).manual_seed(generator)
        if not (generator is None or isinstance(generator, torch.Generator)):
            raise InvalidInputError(
                f"generator is a {type(generator).__name__}; pass a seed or a torch.Generator"
            )
        rows, dim = like.shape
        return torch.randn(rows, n, dim, generator=generator, dtype=like.dtype, device=self._device)


def library_of(users: Any, positives: Any) -> Library:
    """The library both arrays belong to; answers go to the device of `users`.

    Raises:
        InvalidInputError: one is a torch tensor and the other is not.
    """
    tensors = _is_tensor(users), _is_tensor(positives)
    if all(tensors):
        return TorchLibrary(users.device)
    if any(tensors):
        kinds = f"{type(users).__name__} and {type(positives).__name__}"
        raise InvalidInputError(f"users and positives are {kinds}; pass two of one kind")
    return NumpyLibrary()
