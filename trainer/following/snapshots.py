"""Pairs from snapshots of an encoder's embeddings: its interactions, embedded anew by each."""

import fcntl
import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from core.errors import ConfigError, DataError
from core.pairs import Pairs
from trainer.encoders.external import Embedder, Snapshot
from trainer.following.source import Entry
from trainer.lines import Pairs as Labels

LOCK_FILE = "lock"
log = logging.getLogger("turnpoint.follow")


class SnapshotSource:
    """See `Source`: so many passes over the pairs for each snapshot, then it waits for the next.

    An entry's id is the snapshot's mark and the batch's number, so that a worker goes on where its
    state ends. One worker of a state folder leads: the one that has the lock on it.

    Args:
        snapshot: of the embeddings.
        labels: users and items of the interactions; None where the snapshot brings pairs.
        model: its name.
        folder: of the state.
        batch: rows of an entry.
        passes: over the pairs, for each snapshot.
        poll_seconds: between two looks at the snapshot.
        seed: of the order.
        sleep: waits that many seconds, or fewer if the worker is to stop.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        labels: Labels | None,
        model: str,
        folder: Path,
        *,
        batch: int,
        passes: int,
        poll_seconds: float,
        seed: int = 0,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if passes < 1:
            raise ConfigError(f"passes = {passes}; at least one is needed to learn anything")
        self.up = False
        self.waiting: Collection[str] = ()
        self._snapshot, self._labels, self._model = snapshot, labels, model
        self._folder, self._batch, self._passes = folder, batch, passes
        self._poll, self._seed, self._sleep = poll_seconds, seed, sleep
        self._looked = float("-inf")
        self._embedder: Embedder | None = None
        self._pairs = self._ordered = torch.empty(0, 2, dtype=torch.int64)
        self._next = 0
        self._last = ""
        self._lock: IO[str] | None = None

    def lead(self) -> bool:
        """Whether the folder's lock is ours; it ends with the process."""
        if self._lock is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / LOCK_FILE).open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                self._sleep(self._poll)
                return False
            self._lock = file
        return True

    def begin(self, settled: Collection[str], last: str) -> None:  # noqa: ARG002
        """See `Source.begin`."""
        self._last = last

    def read(self) -> Entry | None:
        """See `Source.read`."""
        if time.monotonic() - self._looked >= self._poll:
            self._looked = time.monotonic()
            self._take(self._snapshot.look())
        per_pass = -(-len(self._pairs) // self._batch)
        if self._embedder is None or self._next >= self._passes * per_pass:
            self._sleep(min(1.0, self._poll))
            return None
        number, at = divmod(self._next, per_pass)
        if at == 0 or not len(self._ordered):
            self._ordered = self._pairs[self._order(number)]
        rows = self._ordered[at * self._batch : (at + 1) * self._batch]
        entry_id = f"{self._snapshot.mark}:{self._next}"
        self._next += 1
        try:
            users, positives = self._embedder.embed(rows)
        except DataError as error:
            return Entry(entry_id, fault=str(error))
        pairs = Pairs(self._model, "snapshot", users, positives, time.time())
        return Entry(entry_id, pairs)

    def settle(self, ids: Collection[str]) -> None:
        """Nobody else waits for them."""

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take(self, embedder: Embedder | None) -> None:
        """Begin with a new snapshot, or go on in one that the state has seen a part of."""
        if embedder is None:
            return
        try:
            pairs = embedder.pairs if self._labels is None else embedder.locate(*self._labels)
        except DataError as error:
            log.warning("%s: %s", self._snapshot.address, error)
            return
        if pairs is None:
            raise ConfigError(f"{self._snapshot.address} has no pairs; name a file of them: --data")
        mark, _, number = self._last.partition(":")
        self._next = int(number) + 1 if mark == self._snapshot.mark else 0
        self._embedder, self._pairs, self.up = embedder, pairs, True
        self._ordered = self._ordered[:0]
        log.info("%s: a new snapshot; %d pairs", self._snapshot.address, len(pairs))

    def _order(self, number: int) -> Int[Tensor, " N"]:
        """Of the rows in a pass; it follows from the seed and the pass alone."""
        seed = np.random.SeedSequence([self._seed, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed[0]))
        return torch.randperm(len(self._pairs), generator=generator)
