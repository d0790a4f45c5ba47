"""What loss fresh pairs are expected to have, and when one is a jump that no noise explains."""

from dataclasses import dataclass

WINDOW_ROWS = 512  # a loss is looked at over at least as many rows
WINDOWS = 5  # that must have been seen before anything is a surprise
RATE = 0.1  # of the running mean and variance: they remember about ten windows
DEVIATIONS = 4.0
LEAST = 0.2  # of the mean: a jump is at least this large


@dataclass
class Expectation:
    """Running mean and variance of the loss on pairs that were not learnt from yet.

    Attributes:
        mean: of the windows so far.
        variance: likewise.
        windows: seen since the beginning or the last jump.
        pending: sum of loss times rows of the window that is not full yet.
        rows: its rows.
    """

    mean: float = 0.0
    variance: float = 0.0
    windows: int = 0
    pending: float = 0.0
    rows: int = 0

    def surprise(self, loss: float, rows: int) -> str | None:
        """Note a loss over some rows; where it completes a window that is a jump, what it was."""
        self.pending += loss * rows
        self.rows += rows
        if self.rows < WINDOW_ROWS:
            return None
        seen, self.pending, self.rows = self.pending / self.rows, 0.0, 0
        deviation = self.variance**0.5
        bound = self.mean + max(DEVIATIONS * deviation, LEAST * self.mean)
        if self.windows >= WINDOWS and not seen <= bound:  # a NaN is a jump as well
            told = f"loss of fresh pairs {seen:.3f}, expected {self.mean:.3f} +- {deviation:.3f}"
            self.__init__()  # type: ignore[misc]
            return told
        self.windows += 1
        rate = max(RATE, 1 / self.windows)
        off = seen - self.mean
        self.mean += rate * off
        self.variance = (1 - rate) * (self.variance + rate * off * off)
        return None
