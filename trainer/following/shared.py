"""A source among torchrun's workers: one of them reads, all are given the same."""

from collections.abc import Collection
from typing import Any

import torch
from torch import distributed

from core.pairs import Pairs
from trainer.distributed import from_main, is_main
from trainer.following.source import Entry, Source


class SharedSource:
    """See `Source`; what it tells is the main worker's, so that all make the same steps.

    Args:
        source: the main worker's.
        device: where tensors must be to be sent.
    """

    def __init__(self, source: Source, device: str) -> None:
        self._source, self._device = source, device
        self.up = True
        self.waiting: Collection[str] = ()

    def lead(self) -> bool:
        """See `Source.lead`."""
        return bool(from_main(self._source.lead))

    def begin(self, settled: Collection[str], last: str) -> None:
        """See `Source.begin`."""
        if is_main():
            self._source.begin(settled, last)

    def read(self) -> Entry | None:
        """See `Source.read`."""
        entry = self._source.read() if is_main() else None
        told = from_main(lambda: _described(entry, self._source))
        self.up, self.waiting = told["up"], told["waiting"]
        if told["entry"] is None:
            return None
        if told["shape"] is None:
            return Entry(**told["entry"])
        both = torch.empty(2, *told["shape"], device=self._device)
        if entry is not None and entry.pairs is not None:
            both.copy_(torch.stack([entry.pairs.users, entry.pairs.positives]))
        distributed.broadcast(both, src=0)
        users, positives = both
        return Entry(
            **told["entry"], pairs=Pairs(**told["about"], users=users, positives=positives)
        )

    def settle(self, ids: Collection[str]) -> None:
        """See `Source.settle`."""
        if is_main():
            self._source.settle(ids)

    def close(self) -> None:
        """See `Source.close`."""
        if is_main():
            self._source.close()


def _described(entry: Entry | None, source: Source) -> dict[str, Any]:
    """Everything but the rows, as JSON takes it."""
    told: dict[str, Any] = {"up": source.up, "waiting": list(source.waiting)}
    if entry is None:
        return told | {"entry": None}
    plain = ("id", "fault", "lost", "redelivered")
    told["entry"] = {name: getattr(entry, name) for name in plain}
    if entry.pairs is None:
        return told | {"shape": None}
    about = {name: getattr(entry.pairs, name) for name in ("model", "version", "at")}
    return told | {"shape": list(entry.pairs.users.shape), "about": about}
