"""Records in Redis, shared by replicas; Redis slow, full or gone costs a look-up, never a request.

A look-up is one MGET in a thread of its own, waited for no longer than the time-out, whatever
hangs: a name server, a connection, an answer that comes drop by drop. Writing is behind: batches
wait in a short queue for another thread, and are dropped where it is full. The breaker keeps
requests from asking a Redis that fails; meanwhile the reading thread probes it.

A value in Redis is sealed: a mark of this format, the record's size and a checksum over key and
record go before it. Whatever else stands under our keys is no record.
"""

import struct
import zlib
from collections.abc import Sequence
from functools import partial

from service.cache.background import Background
from service.cache.breaker import Breaker
from service.cache.keys import public_keys
from service.cache.link import WRITE_SECONDS, Link, client_of, named
from service.metrics import Metrics
from service.settings import RedisSettings

PREFIX = b"turnpoint:law:"
WRITES_WAITING = 4  # batches, each of at most LARGEST bytes
LARGEST = 8 * 2**20  # bytes of one look-up; more would not come within any time-out worth having
HEAD = struct.Struct("<2sxxII")  # format, size, checksum
FORMAT = b"T1"
# One command for a batch: SET one by one takes three times as long, MSET knows no time to live.
SET_ALL = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"


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
        self._timeout, self._ttl, self._metrics = settings.timeout_ms / 1000, ttl, metrics
        self._link = Link(settings, self._timeout, "the cache's")
        self._writer = client_of(settings, max(self._timeout, WRITE_SECONDS))
        self._reading = Background(
            "turnpoint-redis-read", 1, self._link.probe, settings.probe_seconds
        )
        self._writing = Background("turnpoint-redis-write", WRITES_WAITING)

    keys = staticmethod(public_keys)

    @property
    def breaker(self) -> Breaker:
        """Whether it is asked, and why."""
        return self._link.breaker

    @property
    def up(self) -> float:
        """Whether it is asked."""
        return float(self.breaker.lets_through)

    def start(self) -> None:
        """Probe at once, so that the first requests find it."""
        self._reading.start()
        self._writing.start()
        self._reading.offer(self._link.probe)

    def close(self) -> None:
        """Write what waits, if that is quick; then hang up."""
        self._writing.close()
        for client in (self._link.client, self._writer):
            client.connection_pool.disconnect()
        self._reading.close()

    def get(self, keys: Sequence[bytes], size: int) -> list[bytes | None] | None:
        """See `Store`."""
        if not self.breaker.lets_through or len(keys) * size > LARGEST:
            return None
        future = self._reading.offer(partial(self._read, keys))
        if future is None:
            self._link.failed("the last answer is still on its way")
            return None
        try:
            values = future.result(self._timeout)
        except Exception as error:  # whatever it was, the sampler knows the law as well
            future.cancel()
            self._link.failed(named(error))
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
        return self._link.client.mget([PREFIX + key for key in keys])  # type: ignore[return-value]

    def _write(self, keys: Sequence[bytes], records: Sequence[bytes]) -> None:
        names = [PREFIX + key for key in keys]
        values = [_head(key, record) + record for key, record in zip(keys, records, strict=True)]
        result = "failed"
        try:
            self._writer.eval(SET_ALL, len(names), *names, self._ttl, *values)
            result = "stored"
        except Exception as error:
            self._link.tell(f"does not store ({named(error)})")
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


def _head(key: bytes, record: bytes) -> bytes:
    return HEAD.pack(FORMAT, len(record), zlib.crc32(record, zlib.crc32(key)))
