"""Records in this process: those used last stay, up to a number of bytes."""

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence

from service.cache.keys import KEY_BYTES, SecretHash

# What an entry takes beside its record's own bytes: two objects' heads, the key, and the mapping's
# node and slots, measured over 100,000 entries.
ENTRY_BYTES = 2 * sys.getsizeof(b"") + KEY_BYTES + 160


class LocalStore:
    """An LRU mapping bounded in bytes.

    Measured on 2048 rows: arrays with vectorised look-ups take half the 0.5 ms that getting takes
    here, and `cachetools.LRUCache` three times as long.

    Args:
        max_bytes: of keys, records and what Python adds; an entry that does not fit is not kept.
    """

    up: float = float("nan")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.keys = SecretHash()
        self._records: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._records)

    def start(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def get(self, keys: Sequence[bytes], size: int) -> list[bytes | None]:  # noqa: ARG002
        """The records, None where there is none."""
        with self._lock:
            found = [self._records.get(key) for key in keys]
            for key, record in zip(keys, found, strict=True):
                if record is not None:
                    self._records.move_to_end(key)
        return found

    def put(self, keys: Sequence[bytes], records: Sequence[bytes]) -> None:
        """Remember the records; forget those used longest ago."""
        with self._lock:
            for key, record in zip(keys, records, strict=True):
                before = self._records.pop(key, None)
                self._records[key] = record
                self.bytes += _size(record) - (0 if before is None else _size(before))
            while self.bytes > self.max_bytes:
                _, record = self._records.popitem(last=False)
                self.bytes -= _size(record)


def _size(record: bytes) -> int:
    return len(record) + ENTRY_BYTES
