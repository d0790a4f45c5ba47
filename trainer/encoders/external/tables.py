"""Embeddings as an encoder left them: two tables, and how their rows are called.

    *.safetensors                      `users` [U, d], `items` [I, d]; perhaps `train` int64 [N, 2]
    folder of users.npy, items.npy     the same tables
    folder of users.parquet, items.parquet     columns `id` and `embedding` (a list of numbers)

Without ids a row is called by its number, from 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol, runtime_checkable

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import embedding

from core.errors import ConfigError, DataError

Embedded = tuple[Float[Tensor, "B d"], Float[Tensor, "B d"]]
Contents = dict[str, bytes]  # by file name


@runtime_checkable
class Embedder(Protocol):
    """Gives the embeddings of pairs."""

    @property
    def pairs(self) -> Int[Tensor, "N 2"] | None:
        """int64 (N, 2), rows that came with it; None where none did."""
        ...

    def locate(self, users: Sequence[str], items: Sequence[str]) -> Int[Tensor, "N 2"]:
        """The numbers of labelled pairs.

        Raises:
            DataError: a label that it does not know.
        """
        ...

    def embed(self, pairs: Int[Tensor, "B 2"]) -> Embedded:
        """e_u and e_i, float32, without gradient."""
        ...


@dataclass(frozen=True, eq=False)
class Tables:
    """An `Embedder` that looks up.

    Attributes:
        users: (U, d).
        items: (I, d).
        user_ids: label -> row; None where rows are called by their numbers.
        item_ids: likewise.
        pairs: see `Embedder`.

    Raises:
        DataError: shapes that do not fit, or a number that is not finite.
    """

    users: Float[Tensor, "U d"]
    items: Float[Tensor, "I e"]  # e = d, or it is refused
    user_ids: dict[str, int] | None = None
    item_ids: dict[str, int] | None = None
    pairs: Tensor | None = None

    def __post_init__(self) -> None:
        for name, table in (("users", self.users), ("items", self.items)):
            if not table.numel():
                raise DataError(f"{name} has no rows; a table needs one for each id")
            bad = ~table.isfinite().all(1)
            if bool(bad.any()):
                raise DataError(
                    f"{name}, row {int(bad.nonzero()[0])}: not finite; leave it out or train anew"
                )
        if self.users.shape[1] != self.items.shape[1]:
            raise DataError(
                f"users have {self.users.shape[1]} dimensions and items {self.items.shape[1]}; "
                "their inner product is the score, so both must have as many"
            )
        if self.pairs is not None:
            _check_pairs(self.pairs, len(self.users), len(self.items))

    def locate(self, users: Sequence[str], items: Sequence[str]) -> Int[Tensor, "N 2"]:
        """See `Embedder.locate`."""
        columns = [
            numbers(users, "user", self.user_ids, len(self.users)),
            numbers(items, "item", self.item_ids, len(self.items)),
        ]
        return torch.tensor(columns).T

    def embed(self, pairs: Int[Tensor, "B 2"]) -> Embedded:
        """See `Embedder.embed`."""
        users, items = pairs.unbind(1)
        return embedding(users, self.users), embedding(items, self.items)


def read_tables(contents: Contents) -> Tables:
    """The tables in some files.

    Raises:
        DataError: they cannot be read, or are no embeddings.
        ConfigError: a library is missing.
    """
    name = next(iter(contents))
    if name.endswith(".safetensors"):
        return _from_safetensors(contents[name])
    if name.endswith(".npy"):
        users, items = (_from_npy(n, contents[n]) for n in ("users.npy", "items.npy"))
        return Tables(users, items)
    (users, user_ids), (items, item_ids) = (
        _from_parquet(n, contents[n]) for n in ("users.parquet", "items.parquet")
    )
    return Tables(users, items, user_ids, item_ids)


def numbers(
    labels: Sequence[str], what: str, ids: dict[str, int] | None, count: int | None
) -> list[int]:
    """The row of each label.

    Args:
        labels: as a file of pairs has them.
        what: user or item, for the message.
        ids: label -> row; None where labels are row numbers.
        count: rows, where known.

    Raises:
        DataError: one is unknown.
    """
    for at, label in enumerate(labels):
        known = label in ids if ids is not None else label.isascii() and label.isdigit()
        if not known or (ids is None and count is not None and int(label) >= count):
            rows = "the ids of the snapshot" if ids is not None else f"rows 0 to {(count or 0) - 1}"
            raise DataError(f"pair {at + 1}: {what} {label!r} is none of {rows}")
    return [ids[label] if ids is not None else int(label) for label in labels]


def _from_safetensors(content: bytes) -> Tables:
    try:
        tensors = safetensors.torch.load(content)
        users, items = (_matrix(name, tensors[name]) for name in ("users", "items"))
    except SafetensorError as error:
        raise DataError(f"no whole safetensors file: {error}") from error
    except KeyError as error:
        raise DataError(f"no tensor {error}; wanted are users [U, d] and items [I, d]") from error
    return Tables(users, items, pairs=tensors.get("train"))


def _from_npy(name: str, content: bytes) -> Float[Tensor, "n d"]:
    try:
        return _matrix(name, torch.from_numpy(np.load(BytesIO(content), allow_pickle=False)))
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise DataError(f"{name}: no whole NumPy array: {error}") from error


def _from_parquet(name: str, content: bytes) -> tuple[Float[Tensor, "n d"], dict[str, int]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(
            f"{name}: Parquet needs pyarrow; install turnpoint[trainer], or write safetensors"
        ) from error
    try:
        table = pq.read_table(BytesIO(content), columns=["id", "embedding"])
        ids = [str(value) for value in table.column("id").to_pylist()]
        rows = np.array(table.column("embedding").to_pylist(), dtype=np.float32)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{name}: wanted are columns `id` and `embedding`, lists of one length: {error}"
        ) from error
    if len(set(ids)) != len(ids):
        raise DataError(f"{name}: an id stands there twice")
    return _matrix(name, torch.from_numpy(rows)), {label: row for row, label in enumerate(ids)}


def _check_pairs(pairs: Tensor, users: int, items: int) -> None:
    whole = pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype == torch.int64
    if not whole or bool(((pairs < 0) | (pairs >= torch.tensor([users, items]))).any()):
        raise DataError(
            f"train: expected int64 [N, 2], a user below {users} and an item below {items}, found "
            f"{pairs.dtype} {list(pairs.shape)}"
        )


def _matrix(name: str, tensor: Tensor) -> Float[Tensor, "n d"]:
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise DataError(
            f"{name}: expected numbers of shape [n, d], found {tensor.dtype} {list(tensor.shape)}"
        )
    return tensor.float()
