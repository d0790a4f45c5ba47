"""GDNSM's queue of negatives from easy to hard, and how far a run has got along it (method 6)."""

from dataclasses import dataclass

from core.errors import ConfigError

ROUNDING = 1e-9  # of a product that is an integer but for its last bits; g is no larger than 768


@dataclass(frozen=True)
class DifficultyQueue:
    """`per_level` negatives of each level, the easiest level at the front.

    The front g(epoch) = int((epoch / S)^power * per_level) of it is open; nothing is before epoch
    S, and everything from epoch S * levels^(1 / power) on. `progress` is the share of these epochs.

    Attributes:
        levels: L >= 1.
        per_level: M >= 1.
        power: lambda > 0.

    Raises:
        ConfigError: one of them is out of range.
    """

    levels: int
    per_level: int = 2
    power: float = 1.0

    def __post_init__(self) -> None:
        if self.levels < 1 or self.per_level < 1 or not self.power > 0:
            raise ConfigError(
                f"levels = {self.levels}, per_level = {self.per_level}, power = {self.power}; "
                "the first two must be at least 1 and the third above 0"
            )

    def progress(self, epoch: int, start: int) -> float:
        """How far a run is at an epoch from 0, in [0, 1]; `start` is S >= 1."""
        whole: float = start * self.levels ** (1 / self.power)
        return min(1.0, epoch / whole)

    def open(self, progress: float | None) -> int:
        """g: how many negatives of the front are open, 0 to L M; None is the end of training."""
        if progress is None:
            return self.levels * self.per_level
        risen = self.levels * progress**self.power  # (epoch / S)^power
        return int(risen * self.per_level + ROUNDING) if risen + ROUNDING >= 1 else 0

    def places(self, n: int, progress: float | None) -> list[int]:
        """The level, 0 the easiest, of each of n negatives.

        From the hardest that is open to the easiest, and again; where nothing is, the easiest.
        """
        available = max(1, self.open(progress))
        return [(available - 1 - j % available) // self.per_level for j in range(n)]
