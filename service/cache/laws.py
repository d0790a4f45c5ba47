"""Where the model thread gets its laws from: the cache as far as it has them, else the sampler.

What is cached, per row, is N(mean, std^2) at t*: the law and never a draw. Draws are made from the
request's own generator afterwards, so hits and misses have one law.

Requests that name a seed go past the cache. They were promised the same answer bit by bit, and the
last bits of a row depend on the batch in which it is computed: a matrix product rounds otherwise in
another shape. But for that, a law from the cache is the computed one.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor

from core.chain import Law
from core.samplers import HasLaw, Query
from service.cache.keys import Words, depends_on
from service.cache.ledger import Ledger
from service.cache.records import pack, record_type, unpack
from service.job import LawSource
from service.metrics import Metrics
from service.shelf import LoadedModel

Mode = Literal["auto", "on", "off"]
log = logging.getLogger("turnpoint.service")


class Store(Protocol):
    """Where records are kept."""

    @property
    def up(self) -> float:
        """1 if it can be asked, 0 if not, NaN if it always can."""
        ...

    def start(self) -> None:
        """Begin; never waits."""
        ...

    def close(self) -> None:
        """End."""
        ...

    def keys(self, words: Words) -> list[bytes]:
        """The key of each row of (B, w)."""
        ...

    def get(self, keys: Sequence[bytes], size: int) -> list[bytes | None] | None:
        """The records of `size` bytes, None where there is none; or None: it cannot tell now."""
        ...

    def put(self, keys: Sequence[bytes], records: Sequence[bytes]) -> None:
        """Remember these, soon or not at all; never waits."""
        ...


class Laws:
    """The laws of all models.

    Args:
        store: where they are kept.
        mode: `auto` looks up where that pays, on a CPU; `on` always.
        metrics: told of every row.
        clock: seconds.
    """

    def __init__(
        self,
        store: Store,
        mode: Mode,
        metrics: Metrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.store, self.mode = store, mode
        self.metrics, self._clock = metrics, clock
        self._ledgers: dict[str, dict[tuple[str, int], Ledger]] = {}
        metrics.redis_up.set_function(lambda: store.up)

    def of(self, model: LoadedModel, *, seeded: bool) -> LawSource | None:
        """Who answers for the laws in one request, in the model thread; None: there are none."""
        sampler = model.offer.law
        if sampler is None:
            return None
        on_cpu = sampler.device.type == "cpu"
        if seeded or self.mode == "off" or (self.mode == "auto" and not on_cpu):
            return partial(self._past, sampler)
        return partial(self._weighed if self.mode == "auto" else self._always, model, sampler)

    def _past(self, sampler: HasLaw, query: Query, generator: torch.Generator) -> Law:
        self._count(bypassed=len(query.users))
        return sampler.law(query, generator)

    def _always(
        self, model: LoadedModel, sampler: HasLaw, query: Query, generator: torch.Generator
    ) -> Law:
        t_star = sampler.transition_point(query, generator)
        return self._looked_up(model, sampler, query, t_star)

    def _weighed(
        self, model: LoadedModel, sampler: HasLaw, query: Query, generator: torch.Generator
    ) -> Law:
        """Through the cache or not, whichever has been faster."""
        t_star = sampler.transition_point(query, generator)
        kind = "known t*" if t_star is not None else query.transition.rule
        rows, began = len(query.users), self._clock()
        ledger = self._ledger(model.name, kind, rows)
        was_on = ledger.on
        if ledger.wants_cache():
            law = self._looked_up(model, sampler, query, t_star)
            ledger.cached(rows, self._clock() - began)
        else:
            self._count(bypassed=rows)
            law = sampler.law_at(query, t_star)
            ledger.computed(rows, self._clock() - began)
        if ledger.on != was_on:
            self._tell(model.name, kind, rows, ledger)
        return law

    def _looked_up(
        self, model: LoadedModel, sampler: HasLaw, query: Query, t_star: Tensor | None
    ) -> Law:
        """Hits from the store, the other rows from the sampler, and those into the store."""
        rows, began = len(query.users), self._clock()
        found = None
        if self.store.up:
            keys = self.store.keys(depends_on(model.manifest.sha256, query, t_star))
            found = self.store.get(keys, record_type(sampler.dim).itemsize)
        if found is None:
            self._count(error=rows)
            self.metrics.cache_seconds.observe(self._clock() - began)
            return sampler.law_at(query, t_star)
        missing = [row for row, record in enumerate(found) if record is None]
        self._count(hit=rows - len(missing), miss=len(missing))
        computing = 0.0
        if missing:
            at = self._clock()
            law = sampler.law_at(*_only(missing, query, t_star))
            computing = self._clock() - at
            fresh = pack(law)
            self.store.put([keys[row] for row in missing], fresh)
            for row, record in zip(missing, fresh, strict=True):
                found[row] = record
        if len(missing) < rows:
            law = unpack([record for record in found if record], sampler.dim, sampler.device)
        self.metrics.cache_seconds.observe(self._clock() - began - computing)
        return law

    def _ledger(self, model: str, kind: str, rows: int) -> Ledger:
        """That of batches of the same power of two."""
        ledgers = self._ledgers.setdefault(model, {})
        if (kind, rows.bit_length()) not in ledgers:
            ledgers[kind, rows.bit_length()] = Ledger()
            self._show(model)
        return ledgers[kind, rows.bit_length()]

    def _tell(self, model: str, kind: str, rows: int, ledger: Ledger) -> None:
        low = 1 << rows.bit_length() - 1
        state = "tried again" if ledger.on else "off: it costs more than it saves"
        log.info(
            "model %s: for %s and batches of %d to %d rows the cache is %s",
            *(model, kind, low, 2 * low - 1, state),
        )
        self._show(model)

    def _show(self, model: str) -> None:
        """`cache_enabled`: whether it is on for any kind of batch."""
        on = any(ledger.on for ledger in self._ledgers[model].values())
        self.metrics.cache_enabled.labels(model).set(on)

    def _count(self, **rows: int) -> None:
        for result, count in rows.items():
            if count:
                self.metrics.cache_requests.labels(result).inc(count)


def _only(rows: Sequence[int], query: Query, t_star: Tensor | None) -> tuple[Query, Tensor | None]:
    """Some rows of a query, and their t*."""
    if len(rows) == len(query.users):
        return query, t_star
    which = torch.tensor(rows, device=query.users.device)
    threshold = None if query.threshold is None else query.threshold[which]
    some = replace(
        query, users=query.users[which], positives=query.positives[which], threshold=threshold
    )
    return some, None if t_star is None else t_star[which]
