"""Records in Redis, shared by replicas; Redis slow, full or gone costs a look-up, never a request.

A look-up is one MGET in a thread of its own, waited for no longer than the time-out, whatever
hangs: a name server, a connection, an answer that comes drop by drop. Writing is behind: batches
wait in a short queue for another thread, and are dropped where it is full. The breaker keeps
requests from asking a Redis that fails; meanwhile the reading thread probes it.

A value in Redis is sealed: a mark of this format, the record's size and a checksum over key and
record go before it. Whatever else stands under our keys is no record.
"""

import logging
import struct
import zlib
from collections.abc import Sequence
from functools import partial

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import ConfigError
from service.cache.background import Background
from service.cache.breaker import Breaker
from service.cache.keys import public_keys
from service.metrics import Metrics
from service.settings import RedisSettings, masked

PREFIX = b"turnpoint:law:"
FAILURES = 5  # in a row open the breaker: at most so many time-outs are waited for
WRITE_SECONDS = 1.0  # nobody waits for writing
WRITES_WAITING = 4  # batches, each of at most LARGEST bytes
LARGEST = 8 * 2**20  # bytes of one look-up; more would not come within any time-out worth having
HEAD = struct.Struct("<2sxxII")  # format, size, checksum
FORMAT = b"T1"
# One command for a batch: SET one by one takes three times as long, MSET knows no time to live.
SET_ALL = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"
log = logging.getLogger("turnpoint.service")


class RedisStore:
    """Records under `turnpoint:law:`, for a time.

    Args:
        settings: address, time-out, how often to probe.
        ttl: seconds that a record is kept.
        metrics: told of damaged records and of what became of writes.

    Raises:
        ConfigError: the address makes no sense to the client.
    """

    def __init__(self, settings: RedisSettings, ttl: int, metrics: Metrics) -> None:
        self.breaker = Breaker(FAILURES)
        self._timeout, self._ttl, self._metrics = settings.timeout_ms / 1000, ttl, metrics
        self._address = masked(settings.url or "")
        self._told = ""
        self._reader = _client(settings, self._timeout)
        self._writer = _client(settings, max(self._timeout, WRITE_SECONDS))
        self._reading = Background("turnpoint-redis-read", 1, self._probe, settings.probe_seconds)
        self._writing = Background("turnpoint-redis-write", WRITES_WAITING)

    keys = staticmethod(public_keys)

    @property
    def up(self) -> float:
        """Whether it is asked."""
        return float(self.breaker.lets_through)

    def start(self) -> None:
        """Probe at once, so that the first requests find it."""
        self._reading.start()
        self._writing.start()
        self._reading.offer(self._probe)

    def close(self) -> None:
        """Write what waits, if that is quick; then hang up."""
        self._writing.close()
        for client in (self._reader, self._writer):
            client.connection_pool.disconnect()
        self._reading.close()

    def get(self, keys: Sequence[bytes], size: int) -> list[bytes | None] | None:
        """See `Store`."""
        if not self.breaker.lets_through or len(keys) * size > LARGEST:
            return None
        future = self._reading.offer(partial(self._read, keys))
        if future is None:
            self._failed("the last answer is still on its way")
            return None
        try:
            values = future.result(self._timeout)
        except Exception as error:  # whatever it was, the sampler knows the law as well
            future.cancel()
            self._failed(_named(error))
            return None
        self.breaker.succeeded()
        return self._unsealed(keys, values, size)

    def put(self, keys: Sequence[bytes], records: Sequence[bytes]) -> None:
        """See `Store`."""
        written = self.breaker.lets_through and self._writing.offer(
            partial(self._write, keys, records)
        )
        if not written:
            self._metrics.cache_writes.labels("dropped").inc(len(keys))

    def _read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._reader.mget([PREFIX + key for key in keys])  # type: ignore[return-value]

    def _write(self, keys: Sequence[bytes], records: Sequence[bytes]) -> None:
        names = [PREFIX + key for key in keys]
        values = [_head(key, record) + record for key, record in zip(keys, records, strict=True)]
        result = "failed"
        try:
            self._writer.eval(SET_ALL, len(names), *names, self._ttl, *values)
            result = "stored"
        except Exception as error:
            self._tell(f"does not store ({_named(error)})")
        finally:
            self._metrics.cache_writes.labels(result).inc(len(keys))

    def _unsealed(
        self, keys: Sequence[bytes], values: Sequence[bytes | None], size: int
    ) -> list[bytes | None]:
        """The records that are whole; what is not is counted, and is none."""
        found: list[bytes | None] = []
        garbage = 0
        for key, value in zip(keys, values, strict=True):
            record = None
            if value is not None:
                record = value[HEAD.size :]
                if len(record) != size or value[: HEAD.size] != _head(key, record):
                    record = None
                    garbage += 1
            found.append(record)
        if garbage:
            self._metrics.cache_requests.labels("garbage").inc(garbage)
        return found

    def _failed(self, why: str) -> None:
        self.breaker.failed()
        if not self.breaker.lets_through:
            self._tell(f"fails too often to be asked ({why})")

    def _probe(self) -> None:
        """In the reading thread, now and then: is Redis well again?"""
        if self.breaker.lets_through:
            return
        try:
            self._reader.ping()
        except Exception as error:
            self._tell(f"cannot be asked ({_named(error)})")
            return
        self.breaker.probed()
        self._tell("answers")

    def _tell(self, what: str) -> None:
        """One line where something changes."""
        if what != self._told:
            self._told = what
            log.log(
                logging.INFO if what == "answers" else logging.WARNING,
                "the cache's Redis at %s %s",
                *(self._address, what),
            )


def _client(settings: RedisSettings, timeout: float) -> redis.Redis:
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


def _head(key: bytes, record: bytes) -> bytes:
    return HEAD.pack(FORMAT, len(record), zlib.crc32(record, zlib.crc32(key)))


def _named(error: Exception) -> str:
    return masked(f"{type(error).__name__}: {error}".removesuffix(": "))
