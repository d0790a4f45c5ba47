"""Laws as bytes, a record per row, and back: t*, mean and std exactly as they were computed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.chain import Law


def record_type(dim: int) -> np.dtype[np.void]:
    """One row's law: t* as int32, mean and std as d float32 each, little-endian."""
    return np.dtype([("transition", "<i4"), ("mean", "<f4", (dim,)), ("std", "<f4", (dim,))])


def pack(law: Law) -> list[bytes]:
    """A record per row."""
    rows, dim = law.mean.shape
    records = np.empty(rows, record_type(dim))
    for name in ("transition", "mean", "std"):
        records[name] = getattr(law, name).cpu().numpy()
    content, size = records.tobytes(), records.itemsize
    return [content[start : start + size] for start in range(0, len(content), size)]


def unpack(records: Sequence[bytes], dim: int, device: torch.device) -> Law:
    """The law of these rows; each record has `record_type(dim).itemsize` bytes."""
    rows = np.frombuffer(b"".join(records), record_type(dim))

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(rows[name].copy()).to(device)

    return Law(tensor("transition").long(), tensor("mean"), tensor("std"))
