"""Between host and device: inputs up, answers down, and nobody waits who need not.

On the CPU there is nothing to move. On CUDA rows are written into pinned memory, which the device
fetches by itself, and answers come back into pinned memory: the upload of one batch and the answer
of another overlap the computing of a third, on a stream each. Pinned blocks are torch's own: its
caching host allocator takes a block back once the last tensor over it is gone (an answer's, when it
has been sent) and the copies under way are done, keeps it by size, and hands it out again.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from core.errors import ConfigError


class Arrival(Protocol):
    """When what was sent down is there; a `torch.cuda.Event` is one."""

    def query(self) -> bool:
        """Whether it is there."""
        ...

    def synchronize(self) -> None:
        """Wait for it."""
        ...


class Memory(Protocol):
    """How the model thread reaches a device."""

    def upload(self, parts: Sequence[Tensor]) -> Tensor:
        """The rows of all parts, one after another, as float32 on the device."""
        ...

    def download(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Arrival]:
        """Each on the host; not to be read before the arrival."""
        ...


class HostMemory:
    """The CPU: one job's float32 rows stay where they are."""

    def upload(self, parts: Sequence[Tensor]) -> Tensor:
        """A copy only where there are several parts, or another dtype."""
        rows = [part.float() for part in parts]
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def download(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Arrival]:
        """They are there."""
        return list(tensors), _Arrived()


class CUDAMemory:
    """A CUDA device. Computing is done on the current stream, copying on two of its own.

    `record_stream` tells torch's allocator that a tensor made on one stream is used on another, so
    that its memory is not handed out again while that use is still queued.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def upload(self, parts: Sequence[Tensor]) -> Tensor:
        """By way of pinned memory; the current stream waits for it, the host does not."""
        rows = sum(map(len, parts))
        staged = torch.empty(rows, *parts[0].shape[1:], dtype=torch.float32, pin_memory=True)
        for piece, part in zip(staged.split([len(part) for part in parts]), parts, strict=True):
            piece.copy_(part)
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._up):
            moved = staged.to(self.device, non_blocking=True)
        computing.wait_stream(self._up)
        moved.record_stream(computing)
        return moved

    def download(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], Arrival]:
        """Into pinned memory, after what is queued on the current stream; one event for all."""
        self._down.wait_stream(torch.cuda.current_stream(self.device))
        arrival = torch.cuda.Event(blocking=True)  # who waits sleeps: the core is another's
        with torch.cuda.stream(self._down):
            found = []
            for tensor in tensors:
                host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                found.append(host.copy_(tensor, non_blocking=True))
                tensor.record_stream(self._down)
            arrival.record()
        return found, arrival


class _Arrived:
    """The arrival of what never left."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


def memory_of(device: torch.device) -> Memory:
    """The way to reach a device."""
    return CUDAMemory(device) if device.type == "cuda" else HostMemory()


def usable_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        ConfigError: there is no such device on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        reason = "" if device.type in {"cpu", "cuda"} else "neither a CPU nor a CUDA device"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    if reason:
        raise ConfigError(
            f"TURNPOINT_SERVER__DEVICE = {name!r} cannot be used here ({reason}): "
            "set it to cpu, or install a CUDA build of torch on a machine with a GPU"
        )
    return device
