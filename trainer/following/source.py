"""Where fresh pairs come from: a stream in Redis, or snapshots of an encoder's tables."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from core.pairs import Pairs


@dataclass(frozen=True, eq=False)
class Entry:
    """Some rows that came together.

    Attributes:
        id: what the source calls it.
        pairs: the rows, or None where they cannot be learnt from.
        fault: why not; empty where they can.
        lost: whether there were rows that nobody can have any more.
        redelivered: whether it was given to somebody before, who may have learnt from it.
    """

    id: str
    pairs: Pairs | None = None
    fault: str = ""
    lost: bool = False
    redelivered: bool = False


@runtime_checkable
class Source(Protocol):
    """Gives every entry to one worker, again and again until that worker has settled it.

    Attributes:
        up: whether it could be read when it was last asked.
    """

    up: bool

    @property
    def waiting(self) -> Collection[str]:
        """Ids that are settled, where what is read from does not know it yet."""
        ...

    def lead(self) -> bool:
        """Whether this worker is the one that learns; asked before anything is done."""
        ...

    def begin(self, settled: Collection[str], last: str) -> None:
        """Start to read, for a worker that has just taken up a state.

        Args:
            settled: ids that were learnt from and that the source may not know of.
            last: the last id that was; what came before it was seen. Empty: nothing was.
        """
        ...

    def read(self) -> Entry | None:
        """The next one, in order; waits for up to a second, then gives nothing."""
        ...

    def settle(self, ids: Collection[str]) -> None:
        """These are part of a saved state: nobody needs them again."""
        ...

    def close(self) -> None:
        """Let another worker lead."""
        ...
