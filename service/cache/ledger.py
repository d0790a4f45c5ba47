"""Whether looking up pays, kept like an account, in seconds of the model thread.

Batches of about the same size are compared with each other. Some are computed without the cache, so
that it is known what that costs; each of the others earns what it took less, or loses what it took
more. An empty account switches the cache off. Time pays `SHARE` of itself in, so that the account
fills again, and the cache is tried again. So it loses at most `ALLOWANCE` seconds and `SHARE` of
the time, as far as a median tells what computing costs.

What a hit saves depends on the denoiser, the rule, t* (a chain that ends at once costs nothing), on
how often users come back, and on Redis's distance. None of it is modelled: all of it is measured.
"""

from collections import deque
from statistics import median

ALLOWANCE = 0.25  # seconds that one trial may lose; some 100,000 rows, so the cache can fill
SHARE = 0.01  # of the time may go into trials in the long run
SAMPLES = 9  # the median of so many batches is what computing costs
EVERY = 64  # while the cache is on, one batch in so many is computed without it


class Ledger:
    """The account of one kind of batch.

    Attributes:
        on: whether the cache is used, but for the batches that tell what computing costs.
    """

    def __init__(self) -> None:
        self.on = True
        self._credit = ALLOWANCE
        self._computed: deque[float] = deque(maxlen=SAMPLES)
        self._batches = 0

    def wants_cache(self) -> bool:
        """Whether the next batch should be looked up."""
        return self.on and len(self._computed) == SAMPLES and self._batches % EVERY != 0

    def computed(self, rows: int, seconds: float) -> None:
        """A batch was computed without the cache."""
        self._computed.append(seconds / rows)
        self._book(SHARE * seconds)

    def cached(self, rows: int, seconds: float) -> None:
        """A batch was looked up, computed as far as needed, and remembered."""
        self._book(rows * median(self._computed) - (1 - SHARE) * seconds)

    def _book(self, seconds: float) -> None:
        self._batches += 1
        self._credit = min(self._credit + seconds, ALLOWANCE)
        if self._credit <= 0:
            self.on = False
        elif self._credit == ALLOWANCE:
            self.on = True
