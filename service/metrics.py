"""What Prometheus sees: a registry per application, routes as templates, millisecond buckets.

No label takes a value from a request. `model` comes from the registry's folders, `code` is a status
that the service chose, `reason` one of its error codes.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import OverloadedError, RateLimitedError, TurnpointError
from service.histograms import ScoreGaps, TransitionSteps

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
ROWS = (1, 8, 64, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536)
STAGES = {  # of a request that is answered, in order; the names of `Server-Timing`
    "decode": "From the body to arrays",
    "queue": "From acceptance to the turn",
    "sample": "In the model thread",
    "encode": "From tensors to the answer",
}
SWAPS = ("ok", "corrupt", "refused", "missing", "unreachable")
HUNG_UP = 499  # in `requests_total`: nobody was left to answer
NO_ROUTE = "other"  # the route of what matched none
log = logging.getLogger("turnpoint.access")


class Served(Protocol):
    """A live model."""

    @property
    def name(self) -> str:
        """Its folder's name in the registry."""
        ...

    @property
    def version(self) -> str:
        """Its version."""
        ...

    @property
    def method(self) -> str:
        """adar, ..."""
        ...

    @property
    def age_seconds(self) -> float:
        """Since the checkpoint was made."""
        ...


class Watched(Protocol):
    """Where live models come from."""

    @property
    def reachable(self) -> bool:
        """Whether the registry could be read at the last look."""
        ...

    def served(self) -> Iterable[Served]:
        """What is live."""
        ...

    def failing(self) -> Mapping[str, bool]:
        """Of every model: whether the registry's live version could not be made live here."""
        ...


class Metrics:
    """All metrics of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # A second series beside each, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def histogram(
            name: str, what: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
        ) -> Histogram:
            return Histogram(
                f"turnpoint_{name}", what, labels, buckets=buckets, registry=self.registry
            )

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"turnpoint_{name}", what, labels, registry=self.registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"turnpoint_{name}", what, labels, registry=self.registry)

        self.requests = counter("requests_total", "Requests answered", "route", "code")
        self.request_seconds = histogram(
            "request_seconds",
            "From the request's head to the end of its answer",
            SECONDS,
            ("route",),
        )
        self.stage_seconds = {
            stage: histogram(f"{stage}_seconds", what, SECONDS) for stage, what in STAGES.items()
        }
        self.batch_rows = histogram("batch_rows", "Rows of one computation", ROWS)
        self.negatives = counter("negatives_total", "Negatives generated", "model")
        self.rejected = counter("rejected_total", "Requests refused, by error code", "reason")
        self.swaps = counter("swaps_total", "New versions seen, by outcome", "model", "result")
        self.queue_rows = gauge("queue_rows", "Rows accepted and not yet answered")
        self.queue_fill_ratio = gauge(
            "queue_fill_ratio", "The fuller of the queue's rows and bytes, over its bound"
        )
        self.ready = gauge("ready", "1 where /readyz says so")
        self.cache_requests = counter("cache_requests_total", "Rows asked of the cache", "result")
        self.cache_writes = counter("cache_writes_total", "Rows written to Redis", "result")
        self.cache_seconds = histogram(
            "cache_seconds", "Looking up and remembering, of one batch", SECONDS
        )
        self.cache_enabled = gauge("cache_enabled", "Whether the cache is used", "model")
        self.redis_up = gauge("redis_up", "Whether Redis is asked; NaN without one")
        self.stream_pairs = counter("stream_pairs_total", "Rows put on the stream of pairs")
        self.stream_dropped = counter(
            "stream_dropped_total", "Sampled rows that did not get there", "reason"
        )
        self.transition_step = TransitionSteps()
        self.score_gap = ScoreGaps()
        for collector in (self.transition_step, self.score_gap):
            self.registry.register(collector)
        ProcessCollector(registry=self.registry)  # CPU seconds, memory, open files
        # Alerts want these to be 0, not absent.
        for reason in (OverloadedError.code, RateLimitedError.reason):
            self.rejected.labels(reason)
        for result in ("hit", "miss", "bypassed", "error", "garbage"):
            self.cache_requests.labels(result)
        for result in ("stored", "dropped", "failed"):
            self.cache_writes.labels(result)
        for reason in ("queue", "redis", "refused"):
            self.stream_dropped.labels(reason)

    def watch_models(self, models: Watched) -> None:
        """Have the metrics of models show what is live at the time of a scrape."""
        self.registry.register(LiveModels(models))

    def open_swaps(self, model: str) -> None:
        """Show a model's outcomes before the first: `increase` sees no step from nothing to 1."""
        for result in SWAPS:
            self.swaps.labels(model, result)


class LiveModels(Collector):
    """The live versions, and what keeps newer ones from being live; a replaced one disappears."""

    def __init__(self, models: Watched) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        """All families."""
        info = GaugeMetricFamily(
            "turnpoint_model_info", "1 for the live version", labels=["model", "version", "method"]
        )
        age = GaugeMetricFamily(
            "turnpoint_model_age_seconds", "Since the live checkpoint was made", labels=["model"]
        )
        failing = GaugeMetricFamily(
            "turnpoint_swap_failing",
            "1 while the registry's live version cannot be made live here",
            labels=["model"],
        )
        for model in self._models.served():
            info.add_metric([model.name, model.version, model.method], 1)
            age.add_metric([model.name], model.age_seconds)
        for name, bad in self._models.failing().items():
            failing.add_metric([name], bad)
        up = GaugeMetricFamily(
            "turnpoint_registry_up", "1 where the last look could read the registry"
        )
        up.add_metric([], self._models.reachable)
        yield from (info, age, failing, up)


class Observe:
    """Pure ASGI: counts and times every request under its route's template; logs it at debug.

    Args:
        addresses: whether the line in the log has the caller's address.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, addresses: bool = False) -> None:
        self.app = app
        self.metrics = metrics
        self.addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; look at the status that goes out."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), HUNG_UP

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route, seconds = route_of(scope), time.perf_counter() - began
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            error = scope["state"].get("error")
            if isinstance(error, TurnpointError) and scope["path"] == "/negatives":
                self.metrics.rejected.labels(error.reason or error.code).inc()
            if log.isEnabledFor(logging.DEBUG):
                self._tell(scope, route, status, seconds)

    def _tell(self, scope: Scope, route: str, status: int, seconds: float) -> None:
        fields = {"route": route, "status": status, "seconds": round(seconds, 6)}
        fields["rows"] = scope["state"].get("rows", 0)
        if self.addresses and scope.get("client"):
            fields["address"] = scope["client"][0]
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        log.debug(told, extra={"fields": fields})


def route_of(scope: Mapping[str, object]) -> str:
    """The template of the route that matched, `other` where none did."""
    return str(getattr(scope.get("route"), "path", NO_ROUTE))
