"""A cache of laws: what was computed for a user's row once is looked up, and drawn from afresh.

laws      the story of one batch: look up, compute what is missing, remember
keys      what a law depends on, hashed        records   laws <-> bytes
ledger    whether looking up pays              local     in this process: the last used stay
remote    in Redis, shared by replicas         breaker   whether Redis is asked at all
link      the way to a Redis that may be gone  background a thread beside the requests
"""

from service.cache.laws import Laws, Store
from service.cache.local import LocalStore
from service.cache.remote import RedisStore
from service.metrics import Metrics
from service.settings import Settings

__all__ = ["Laws", "LocalStore", "RedisStore", "Store", "make_laws"]


def make_laws(settings: Settings, metrics: Metrics) -> Laws:
    """The cache that the settings ask for: in Redis where its address is set, else in process.

    Raises:
        ConfigError: an address that no Redis client understands.
    """
    store: Store
    if settings.redis.url and settings.cache.mode != "off":
        store = RedisStore(settings.redis, settings.cache.ttl_seconds, metrics)
    else:
        store = LocalStore(settings.cache.max_bytes)
    return Laws(store, settings.cache.mode, metrics)
