"""A lease in Redis: at most one worker holds it, and it ends by itself when that worker is gone."""

import time

import redis
from redis.exceptions import LockError


class Lease:
    """Held by who set its key; the key expires unless it is renewed.

    Somebody may have held it in between if it was lost, so losing it is told once, by a `hold` that
    is False, even where it could be had again at once.

    Args:
        client: of Redis.
        key: what is held.
        seconds: until it ends.
    """

    def __init__(self, client: redis.Redis, key: str, seconds: float) -> None:
        self._lock = client.lock(key, timeout=seconds, blocking=False, thread_local=False)
        self._seconds = seconds
        self._until = float("-inf")  # by our clock, from before Redis was asked
        self._had = False

    @property
    def held(self) -> bool:
        """Whether it is ours as far as we can know without asking."""
        return time.monotonic() < self._until

    def hold(self) -> bool:
        """Take it, or renew it where a third of it is spent; whether it is ours.

        Raises:
            RedisError: Redis does not answer; then `held` tells how long it still is.
        """
        now = time.monotonic()
        if now < self._until - self._seconds * 2 / 3:
            return True
        self._had = self._renewed() if self._had else self._taken()
        self._until = now + self._seconds if self._had else float("-inf")
        return self._had

    def give_back(self) -> None:
        """Let another one have it at once."""
        if self._had:
            self._had, self._until = False, float("-inf")
            self._lock.release()

    def _renewed(self) -> bool:
        try:
            return bool(self._lock.reacquire())
        except LockError:
            return False

    def _taken(self) -> bool:
        return bool(self._lock.acquire())
