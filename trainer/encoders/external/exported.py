"""An encoder exported as one file: `torch.export` (`.pt2`), or TorchScript (`.pt`, `.ts`).

`forward(users, items)` takes int64 [B] twice and gives two float tensors [B, d]; B must be dynamic.

Both forms can run code as they are loaded: an archive of `torch.export` may hold pickles. This is
the one place where Turnpoint loads such a file, and only where the caller has said that it trusts
whoever made it (docs/security.md).
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from core.errors import ConfigError, DataError
from trainer.encoders.external.tables import Embedded, numbers

SUFFIXES = (".pt2", ".pt", ".ts")


class Exported:
    """An `Embedder` that computes; users and items are called by number.

    Args:
        name: of the file; its suffix tells the form.
        content: of the file.
        trusted: whether the caller trusts whoever made it.

    Raises:
        ConfigError: it is not trusted.
        DataError: it cannot be loaded.
    """

    pairs: Int[Tensor, "N 2"] | None = None

    def __init__(self, name: str, content: bytes, trusted: bool) -> None:
        if not trusted:
            raise ConfigError(
                f"{name} can run code as it is loaded; say --trust-code if you trust whoever made "
                "it, or give tables (.safetensors, .npy, .parquet), which cannot"
            )
        self._name = name
        try:
            self._module = _loaded(name, BytesIO(content))
        except Exception as error:
            raise DataError(f"{name}: {type(error).__name__}: {error}") from error

    def locate(self, users: Sequence[str], items: Sequence[str]) -> Int[Tensor, "N 2"]:
        """See `Embedder.locate`."""
        columns = [numbers(users, "user", None, None), numbers(items, "item", None, None)]
        return torch.tensor(columns).T

    @torch.no_grad()
    def embed(self, pairs: Int[Tensor, "B 2"]) -> Embedded:
        """See `Embedder.embed`.

        Raises:
            DataError: the module fails, or gives something else than two tensors [B, d].
        """
        wanted = f"{self._name}: forward(users [B], items [B]) must give two tensors [B, d]: "
        try:
            users, items = self._module(*pairs.unbind(1))
            shapes = [list(users.shape), list(items.shape)]
        except Exception as error:
            raise DataError(f"{wanted}{type(error).__name__}: {error}") from error
        if len(shapes[0]) != 2 or shapes[0] != shapes[1] or len(users) != len(pairs):
            raise DataError(
                f"{wanted}found {shapes[0]} and {shapes[1]} for B = {len(pairs)}; export it with "
                "a dynamic B"
            )
        return users.float(), items.float()


def _loaded(name: str, file: BytesIO) -> Callable[..., Any]:
    if name.endswith(".pt2"):
        module: Callable[..., Any] = torch.export.load(file).module()
        return module
    script: Callable[..., Any] = torch.jit.load(file, map_location="cpu").eval()
    return script
