"""How many rows a caller may ask for: the generic cell rate algorithm, in Redis or in process.

A caller has one number, the time at which everything it asked for so far will have been "paid" at
the allowed rate. A request moves it by rows / rate seconds, and is refused where that would put it
more than burst / rate seconds ahead of now. It is a token bucket that needs no refilling.

Where Redis is asked, replicas share the count, by Redis's clock; where Redis fails or is slow, each
replica counts for itself: a limit that cannot be looked up refuses nobody.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from core.errors import RateLimitedError

SCRIPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local cost, ahead = tonumber(ARGV[1]), tonumber(ARGV[2])
local paid = tonumber(redis.call('GET', KEYS[1])) or now
paid = math.min(math.max(paid, now), now + ahead) + cost
local wait = paid - now - ahead
if wait > 0 then return tostring(wait) end
redis.call('SET', KEYS[1], string.format('%.6f', paid), 'PX', math.ceil(1000 * (paid - now)))
return '0'
"""
PREFIX = "turnpoint:rate:"
PATIENCE = 0.05  # seconds that Redis gets to answer
PAUSE = 1.0  # seconds for which Redis is not asked after it failed
log = logging.getLogger("turnpoint.service")


class Scripts(Protocol):
    """Whoever can run a script in Redis."""

    async def eval(self, script: str, keys: Sequence[str], args: Sequence[str | float]) -> Any:
        """The script's answer."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


class RedisScripts:
    """Scripts in the Redis at an address; connections are opened when they are needed.

    Args:
        url: `redis://user:password@host:port/0`, `rediss://` for TLS, `unix://`.
    """

    def __init__(self, url: str) -> None:
        self._client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))

    async def eval(self, script: str, keys: Sequence[str], args: Sequence[str | float]) -> Any:
        """One round trip."""
        return await self._client.eval(script, len(keys), *keys, *map(str, args))

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()


class RateLimit:
    """A limit in rows per second for each caller.

    Args:
        rows_per_second: None: no limit.
        burst_rows: rows at once after a pause.
        scripts: Redis, where there is one.
        clock: seconds, of the count in process.
    """

    def __init__(
        self,
        rows_per_second: float | None,
        burst_rows: int,
        scripts: Scripts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rows_per_second = rows_per_second
        self.burst_rows = burst_rows
        self.scripts = scripts
        self._clock = clock
        self._paid: dict[str, float] = {}  # no larger than the keys are many
        self._not_before = 0.0

    async def take(self, caller: str, rows: int) -> None:
        """Count rows that a caller asks for.

        Raises:
            RateLimitedError: they are too many by now; nothing was counted.
        """
        if self.rows_per_second is None:
            return
        cost, ahead = rows / self.rows_per_second, self.burst_rows / self.rows_per_second
        wait = await self._in_redis(caller, cost, ahead)
        if wait is None:
            wait = self._in_process(caller, cost, ahead)
        if wait > 0:
            raise RateLimitedError(
                f"{rows} rows are more than this key has left of {self.rows_per_second:g} rows per "
                f"second with a burst of {self.burst_rows}: ask again after Retry-After, or for "
                "fewer rows",
                retry_after=wait,
            )

    async def close(self) -> None:
        """Hang up on Redis."""
        if self.scripts is not None:
            await self.scripts.close()

    async def _in_redis(self, caller: str, cost: float, ahead: float) -> float | None:
        """Seconds to wait, None where Redis cannot tell."""
        if self.scripts is None or self._clock() < self._not_before:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self.scripts.eval(SCRIPT, [PREFIX + caller], [cost, ahead])
            return float(answer)
        except Exception as error:
            self._not_before = self._clock() + PAUSE
            log.warning(
                "Redis does not count rows (%s), this process does for now", type(error).__name__
            )
            return None

    def _in_process(self, caller: str, cost: float, ahead: float) -> float:
        """Seconds to wait."""
        now = self._clock()
        paid = max(self._paid.get(caller, now), now) + cost
        wait = paid - now - ahead
        if wait <= 0:
            self._paid[caller] = paid
        return wait
