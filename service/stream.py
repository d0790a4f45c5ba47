"""A sampled copy of the (user, positive) rows that were asked about, on a Redis stream per model.

A trainer learns from it (`core.pairs` has the format). No request waits for it or fails by it: once
its answer is made, a request leaves references to its arrays here; they are put together until an
entry is full or a second old, and a thread beside the requests converts and writes them. Whatever
finds no room, or no Redis, is dropped and counted.

The stream is trimmed by entries, and every entry counts as the largest one, so that Redis never
holds more bytes than were allowed.
"""

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import redis
import torch
from torch import Tensor

from core.errors import PairsError
from core.pairs import Pairs, encode, stream_key
from service.cache.background import Background
from service.cache.link import WRITE_SECONDS, Link, named
from service.codecs import Inputs
from service.metrics import Metrics
from service.settings import RedisSettings, Settings, StreamSettings
from service.shelf import LoadedModel

LINGER = 1.0  # seconds that an entry waits for more rows
ENTRIES_WAITING = 64  # for the thread; their bytes are bounded before
FEWEST_ENTRIES = 8  # of a full stream: a smaller bound makes smaller entries
# An allocator rounds up, by a fourth at most; an entry has a head and its fields' names.
SLACK, HEAD = 1.25, 1024


def make_stream(settings: Settings, metrics: Metrics) -> "PairStream | None":
    """The stream that the settings ask for, if they do.

    Raises:
        ConfigError: an address that no Redis client understands.
    """
    if settings.stream.share == 0:
        return None
    return PairStream(settings.stream, settings.redis, metrics)


@dataclass
class _Entry:
    """What becomes one entry; references to requests' arrays.

    Attributes:
        rows: in all.
        size: bytes that are kept alive for it.
        sending: at the latest.
    """

    model: str
    version: str
    sending: asyncio.TimerHandle
    users: list[Tensor] = field(default_factory=list)
    positives: list[Tensor] = field(default_factory=list)
    rows: int = 0
    size: int = 0


class PairStream:
    """Takes rows on the event loop, writes them in a thread.

    Args:
        settings: how much of what is asked, and the bounds.
        redis: where to.
        metrics: told of what was written and what was dropped.
    """

    def __init__(self, settings: StreamSettings, redis: RedisSettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._link = Link(redis, WRITE_SECONDS, "the stream's")
        self._writing = Background(
            "turnpoint-stream", ENTRIES_WAITING, self._link.probe, redis.probe_seconds
        )
        self._filling: dict[tuple[str, str], _Entry] = {}
        self._random = np.random.default_rng()
        # Bytes, each counted in one thread: taken on the event loop, released by the writing one.
        self._taken = self._released = 0

    def start(self) -> None:
        """Probe at once, so that the first requests find Redis."""
        self._writing.start()
        self._writing.offer(self._link.probe)

    def flush(self) -> None:
        """Send what waits for more rows; on the event loop."""
        for key in list(self._filling):
            self._send(key)

    def close(self) -> None:
        """Write what waits, if that is quick; then hang up."""
        self._writing.close()
        self._link.client.connection_pool.disconnect()

    def offer(self, model: LoadedModel, inputs: Inputs) -> None:
        """Take a request's rows, or pass them by; on the event loop, never waits, never raises."""
        if self._random.random() >= self._settings.share:
            return
        size = inputs.users.nbytes + inputs.positives.nbytes
        if not self._link.breaker.lets_through:
            self._dropped("redis", inputs.rows)
        elif self._taken - self._released + size > self._settings.queue_bytes:
            self._dropped("queue", inputs.rows)
        else:
            self._take(model, inputs, size)

    def _take(self, model: LoadedModel, inputs: Inputs, size: int) -> None:
        """Put rows with those that wait; send what is full."""
        most = self._most_rows(model.sampler.dim)
        step = -(-inputs.rows // most)
        # Each row as likely; a view, which is what `size` counts.
        chosen = slice(int(self._random.integers(step)), None, step)
        users, positives = inputs.users[chosen], inputs.positives[chosen]
        key = (model.name, model.version)
        if key in self._filling and self._filling[key].rows + len(users) > most:
            self._send(key)
        if key not in self._filling:
            sending = asyncio.get_running_loop().call_later(LINGER, self._send, key)
            self._filling[key] = _Entry(*key, sending)
        entry = self._filling[key]
        entry.users.append(users)
        entry.positives.append(positives)
        entry.rows += len(users)
        entry.size += size
        self._taken += size
        if entry.rows == most:
            self._send(key)

    def _send(self, key: tuple[str, str]) -> None:
        entry = self._filling.pop(key)
        entry.sending.cancel()
        if self._writing.offer(partial(self._write, entry, time.time())) is None:
            self._taken -= entry.size
            self._dropped("queue", entry.rows)

    def _write(self, entry: _Entry, at: float) -> None:
        """In the writing thread, as everything below."""
        failure = self._failure(entry, at) if self._link.breaker.lets_through else "redis"
        self._released += entry.size
        if failure:
            self._dropped(failure, entry.rows)
        else:
            self._metrics.stream_pairs.inc(entry.rows)

    def _failure(self, entry: _Entry, at: float) -> str:
        """Why an entry is not on the stream; empty where it is."""
        users, positives = (
            torch.cat([part.float() for part in parts]) for parts in (entry.users, entry.positives)
        )
        try:
            fields = encode(Pairs(entry.model, entry.version, users, positives, at))
            self._link.client.xadd(
                stream_key(entry.model),
                fields,  # type: ignore[arg-type]  # a mapping of bytes to bytes is one
                maxlen=self._most_entries(users.shape[1]),
                approximate=True,  # by whole nodes, of 4 KiB or one entry
            )
        except PairsError:
            return "refused"
        except redis.ResponseError as error:  # it answers: full, read-only, or not ours to write
            self._link.tell(f"does not take pairs ({named(error)})")
            return "redis"
        except Exception as error:  # whatever it was, the next one may come through
            self._link.failed(named(error))
            return "redis"
        self._link.breaker.succeeded()
        self._link.tell("answers")
        return ""

    def _most_rows(self, dim: int) -> int:
        """Of one entry."""
        row = SLACK * 4 * dim  # two float16 a dimension
        room = self._settings.max_bytes / FEWEST_ENTRIES - SLACK * HEAD
        return max(1, min(self._settings.entry_rows, int(room / row)))

    def _most_entries(self, dim: int) -> int:
        """Of one stream."""
        largest = SLACK * (4 * dim * self._most_rows(dim) + HEAD)
        return max(1, int(self._settings.max_bytes / largest))

    def _dropped(self, reason: str, rows: int) -> None:
        self._metrics.stream_dropped.labels(reason).inc(rows)
