"""A Redis that may be gone: its client, the breaker before it, and one line where that changes."""

import logging

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import ConfigError
from service.cache.breaker import Breaker
from service.settings import RedisSettings, masked

FAILURES = 5  # in a row open the breaker: at most so many time-outs are waited for
WRITE_SECONDS = 1.0  # nobody waits for writing
log = logging.getLogger("turnpoint.service")


class Link:
    """The way to Redis. Whoever owns it calls `probe` now and then, beside the requests.

    Args:
        settings: the address.
        timeout: seconds that one command may take.
        whose: what the log calls it, e.g. "the cache's".

    Raises:
        ConfigError: the address makes no sense to the client.
    """

    def __init__(self, settings: RedisSettings, timeout: float, whose: str) -> None:
        self.breaker = Breaker(FAILURES)
        self.client = client_of(settings, timeout)
        self._address, self._whose = masked(settings.url or ""), whose
        self._told = ""

    def failed(self, why: str) -> None:
        """It did not answer, or too late."""
        self.breaker.failed()
        if not self.breaker.lets_through:
            self.tell(f"fails too often to be asked ({why})")

    def probe(self) -> None:
        """Where it is not asked: is it well again?"""
        if self.breaker.lets_through:
            return
        try:
            self.client.ping()
        except Exception as error:
            self.tell(f"cannot be asked ({named(error)})")
            return
        self.breaker.probed()
        self.tell("answers")

    def tell(self, what: str) -> None:
        """One line where something changes."""
        if what != self._told:
            self._told = what
            level = logging.INFO if what == "answers" else logging.WARNING
            log.log(level, "%s Redis at %s %s", self._whose, self._address, what)


def client_of(settings: RedisSettings, timeout: float) -> redis.Redis:
    """A client that tries once.

    Raises:
        ConfigError: the address makes no sense to it.
    """
    try:
        return redis.Redis.from_url(
            settings.url or "",
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
    except (ValueError, TypeError, redis.RedisError):
        raise ConfigError(  # the parser's own message may quote a part of the password
            f"TURNPOINT_REDIS__URL = {masked(settings.url or '')} is no address of a Redis: write "
            "redis://user:password@host:port/0, with / and @ in a password as %2F and %40"
        ) from None


def named(error: Exception) -> str:
    """An error's kind and message."""
    return masked(f"{type(error).__name__}: {error}".removesuffix(": "))
