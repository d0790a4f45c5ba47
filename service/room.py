"""How much is accepted and not yet answered, in all and by caller. Used on the event loop only."""

from dataclasses import dataclass

# Of the queue, to a caller who has something in it already: nobody can fill it for the others, and
# the largest request that is allowed fits into an empty one.
CALLERS_SHARE = 0.75


@dataclass
class Held:
    """Rows and bytes."""

    rows: int = 0
    size: int = 0

    def add(self, rows: int, size: int) -> None:
        """Add, or with negative numbers take away."""
        self.rows += rows
        self.size += size

    def exceeds(self, rows: float, size: float) -> bool:
        """Whether it is more than that."""
        return self.rows > rows or self.size > size


class Room:
    """The queue's bound.

    Args:
        max_rows: most rows.
        max_bytes: most bytes of them.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.max_rows, self.max_bytes = max_rows, max_bytes
        self.held = Held()
        self._by_caller: dict[str, Held] = {}

    @property
    def fill(self) -> float:
        """The fuller of rows and bytes, as a share of its bound."""
        return max(self.held.rows / self.max_rows, self.held.size / self.max_bytes)

    def before(self, caller: str, rows: int) -> int:
        """Rows that have their turn before the caller's next ones, in a fair order.

        All that it has accepted already, and as much of everybody else, where there is so much.
        """
        mine = self._by_caller.get(caller, Held()).rows
        others = (held.rows for who, held in self._by_caller.items() if who != caller)
        return mine + sum(min(theirs, mine + rows) for theirs in others)

    def why_not(self, caller: str, rows: int, size: int) -> str | None:
        """What stands against accepting that much more; None if nothing."""
        held = self.held
        if Held(held.rows + rows, held.size + size).exceeds(self.max_rows, self.max_bytes):
            return (
                f"the queue holds {held.rows} rows and {held.size} bytes, at most {self.max_rows} "
                f"and {self.max_bytes}: ask again after Retry-After"
            )
        mine = self._by_caller.get(caller)
        share = CALLERS_SHARE * self.max_rows, CALLERS_SHARE * self.max_bytes
        if mine and Held(mine.rows + rows, mine.size + size).exceeds(*share):
            return (
                f"you hold {mine.rows} rows and {mine.size} bytes of the queue, one caller at most "
                f"{share[0]:.0f} and {share[1]:.0f}: ask again after Retry-After"
            )
        return None

    def take(self, caller: str, rows: int, size: int) -> None:
        """Count what was accepted."""
        self.held.add(rows, size)
        self._by_caller.setdefault(caller, Held()).add(rows, size)

    def give_back(self, caller: str, rows: int, size: int) -> None:
        """Count what is settled."""
        self.held.add(-rows, -size)
        mine = self._by_caller[caller]
        mine.add(-rows, -size)
        if mine == Held():
            del self._by_caller[caller]
