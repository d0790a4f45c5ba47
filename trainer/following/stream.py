"""The stream of pairs in Redis, read by a consumer group of which one worker leads.

The worker that holds the lease reads, learns and publishes; the others stand by, and one of them
takes over once the lease has run out. So no two models are learnt side by side and published in
turn, and each entry is learnt by one worker. (To share the work of one model, start the worker
under torchrun.) Whoever takes over is given everything that was read and not settled before: every
entry is learnt at least once, and twice only if a worker died between learning and saving and
another one, without its state, took over.

Redis slow, full or gone costs time and nothing else: it is asked again, less and less often, and
a group that it has lost is made anew.
"""

import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from core.errors import ConfigError, PairsError
from core.pairs import decode, stream_key
from trainer.following.lease import Lease
from trainer.following.source import Entry

GROUP = "follow"
PAGE = 16  # entries of one read; each is up to a few MB
WAIT_SECONDS = 1.0
ANSWER_SECONDS = 10.0  # for an answer; then the connection counts as dead
PAUSES = (0.1, 5.0)  # seconds before Redis is asked again, at first and at most

log = logging.getLogger("turnpoint.follow")

Delivered = list[tuple[bytes | None, Mapping[bytes, bytes] | None]]


class StreamSource:
    """See `Source`.

    Args:
        url: of Redis, redis://, rediss:// or unix://.
        model: whose stream.
        lease: seconds after which a worker that is gone is replaced.
        sleep: waits that many seconds, or fewer if the worker is to stop.

    Raises:
        ConfigError: the address makes no sense to the client.
    """

    def __init__(
        self, url: str, model: str, lease: float, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        try:
            self.redis = redis.Redis.from_url(
                url,
                protocol=2,
                socket_timeout=WAIT_SECONDS + ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            raise ConfigError(f"--redis: {error}; e.g. redis://host:6379/0") from error
        self.up = True
        self.waiting: set[str] = set()
        self.consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._key = stream_key(model)
        self._lease = Lease(self.redis, f"turnpoint:follow:{model}", lease)
        self._sleep, self._pause = sleep, PAUSES[0]
        self._joined = False
        self._claim_from: str | None = None  # None: nothing pending is left to take over
        self._page: deque[Entry] = deque()
        self._taken: set[str] = set()  # given to this worker, and pending still
        self._last = ""

    def lead(self) -> bool:
        """Whether the lease is ours, after asking for it where it is due."""
        with self._patience():
            if not self._lease.hold():
                self._joined = False  # somebody else may be given what is pending
                self._sleep(WAIT_SECONDS)
        return self._lease.held

    def begin(self, settled: Collection[str], last: str) -> None:
        """See `Source.begin`."""
        self._taken, self.waiting, self._last = set(settled), set(settled), last
        self._joined = False

    def read(self) -> Entry | None:
        """See `Source.read`; what others left pending comes first."""
        with self._patience():
            self._join()
            self._acknowledge()
            if not self._page:
                self._page.extend(self._next_page())
        if not self._page:
            return None
        entry = self._page.popleft()
        self._taken.add(entry.id)
        self._last = max(self._last, entry.id, key=_order)
        return entry

    def settle(self, ids: Collection[str]) -> None:
        """See `Source.settle`; where Redis is gone, it is told at the next occasion."""
        self.waiting.update(ids)
        with self._patience():
            self._acknowledge()

    def close(self) -> None:
        """Give the lease back."""
        with self._patience():
            self._lease.give_back()
        self.redis.close()

    def _join(self) -> None:
        """Make the group where it is missing; then everything that is pending is to be claimed."""
        if self._joined:
            return
        # A stream that is empty may be a new one, of a Redis whose clock is behind.
        start = self._last if self._last and self.redis.xlen(self._key) else "0"
        try:
            self.redis.xgroup_create(self._key, GROUP, id=start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        self._joined, self._claim_from = True, "0-0"
        self._page.clear()

    def _next_page(self) -> list[Entry]:
        start, again = self._claim_from, self._claim_from is not None
        delivered = self._fresh() if start is None else self._claim(start)
        entries = [_entry(i, fields, again) for i, fields in delivered]
        return [entry for entry in entries if entry.id not in self._taken]

    def _claim(self, start: str) -> Delivered:
        """A page of what was given to anybody and not settled; who holds the lease may take it."""
        answer: Any = self.redis.xautoclaim(
            self._key, GROUP, self.consumer, 0, start_id=start, count=PAGE
        )
        following, delivered, *deleted = answer
        self._claim_from = None if following == b"0-0" else following.decode()
        if self._claim_from is None:
            self._forget_the_dead()
        return [*delivered, *((gone, None) for page in deleted for gone in page)]

    def _fresh(self) -> Delivered:
        answer: Any = self.redis.xreadgroup(
            GROUP, self.consumer, {self._key: ">"}, count=PAGE, block=int(WAIT_SECONDS * 1000)
        )
        return answer[0][1] if answer else []

    def _forget_the_dead(self) -> None:
        """Consumers that have nothing pending any more; only who leads is one."""
        for one in self.redis.xinfo_consumers(self._key, GROUP):
            if one["name"] != self.consumer.encode() and not one["pending"]:
                self.redis.xgroup_delconsumer(self._key, GROUP, one["name"])

    def _acknowledge(self) -> None:
        if self.waiting:
            self.redis.xack(self._key, GROUP, *self.waiting)
            self._taken -= self.waiting
            self.waiting = set()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """What goes wrong with Redis is told once and waited for; what was asked is not done."""
        try:
            yield
        except (RedisError, OSError) as error:
            self._joined = False  # an answer may be lost: what it gave is pending, and ours
            told = f"{type(error).__name__}: {error}"
            if str(error).startswith("NOGROUP"):
                log.warning("the consumer group is gone, as after a restart of Redis; made anew")
            elif self.up:
                log.warning("Redis cannot be read (%s); waiting for it", told)
            self.up = str(error).startswith("NOGROUP")
            self._sleep(self._pause)
            self._pause = min(2 * self._pause, PAUSES[1])
        else:
            if not self.up:
                log.warning("Redis is back")
            self.up, self._pause = True, PAUSES[0]


def _entry(name: bytes | None, fields: Mapping[bytes, bytes] | None, redelivered: bool) -> Entry:
    """What can be learnt of a stream entry."""
    id_ = (name or b"0-0").decode()
    if not fields:
        fault = "it fell out of the stream before it could be learnt; let the stream be longer"
        return Entry(id_, fault=fault, lost=True, redelivered=redelivered)
    try:
        return Entry(id_, decode(fields), redelivered=redelivered)
    except PairsError as error:
        return Entry(id_, fault=str(error), redelivered=redelivered)


def _order(id_: str) -> tuple[int, ...]:
    """Of a stream id, `milliseconds-number`; the empty one is before all."""
    return tuple(int(part) for part in id_.split("-")) if id_ else ()
