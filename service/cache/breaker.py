"""A circuit breaker: who failed often is not asked until a probe has found it well.

    closed ──K failures in a row──▶ open ──a probe succeeds──▶ half open ──a success──▶ closed
                                     ▲───────────a failure───────────┘

It begins open: no request waits for something that never answered. Probes are made beside the
requests, by whoever owns the breaker.
"""

from typing import Literal


class Breaker:
    """The state, and what moves it.

    Args:
        failures: K.
    """

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.state: Literal["open", "half open", "closed"] = "open"
        self._in_a_row = 0

    @property
    def lets_through(self) -> bool:
        """Whether requests may ask."""
        return self.state != "open"

    def succeeded(self) -> None:
        """A request was answered."""
        self._in_a_row = 0
        if self.state == "half open":
            self.state = "closed"

    def failed(self) -> None:
        """A request was not answered, or too late."""
        self._in_a_row += 1
        if self.state == "half open" or self._in_a_row >= self.failures:
            self.state = "open"

    def probed(self) -> None:
        """A probe was answered."""
        if self.state == "open":
            self._in_a_row = 0
            self.state = "half open"
