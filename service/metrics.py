"""What Prometheus sees: a registry per application, routes as templates, millisecond buckets.

No label takes a value from a request. `model` comes from the registry's folders, `code` is a status
that the service chose, `reason` one of its error codes.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from core.errors import OverloadedError, RateLimitedError, TurnpointError

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
ROWS = (1, 8, 64, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536)
FRACTIONS = tuple(step / 10 for step in range(11))
HUNG_UP = 499  # in `requests_total`: nobody was left to answer
NO_ROUTE = "other"  # the route of what matched none
log = logging.getLogger("turnpoint.access")


class Served(Protocol):
    """What the metrics need to know of a live model."""

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

        self.requests = counter("requests_total", "Requests answered", "route", "code")
        self.request_seconds = histogram(
            "request_seconds",
            "From the request's head to the end of its answer",
            SECONDS,
            ("route",),
        )
        self.queue_seconds = histogram("queue_seconds", "From acceptance to the turn", SECONDS)
        self.sample_seconds = histogram("sample_seconds", "In the model thread", SECONDS)
        self.batch_rows = histogram("batch_rows", "Rows of one computation", ROWS)
        self.negatives = counter("negatives_total", "Negatives generated", "model")
        self.rejected = counter("rejected_total", "Requests refused, by error code", "reason")
        self.swaps = counter("swaps_total", "New versions seen, by outcome", "model", "result")
        self.cache_requests = counter("cache_requests_total", "Rows asked of the cache", "result")
        self.cache_writes = counter("cache_writes_total", "Rows written to Redis", "result")
        self.cache_seconds = histogram(
            "cache_seconds", "Looking up and remembering, of one batch", SECONDS
        )

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"turnpoint_{name}", what, labels, registry=self.registry)

        self.cache_enabled = gauge("cache_enabled", "Whether the cache is used", "model")
        self.redis_up = gauge("redis_up", "Whether Redis is asked; NaN without one")
        self.queue_rows = gauge("queue_rows", "Rows accepted and not yet answered")
        self.transition_step = TransitionSteps()
        self.registry.register(self.transition_step)
        # Alerts want these to be 0, not absent.
        for reason in (OverloadedError.code, RateLimitedError.reason):
            self.rejected.labels(reason)
        for result in ("hit", "miss", "bypassed", "error", "garbage"):
            self.cache_requests.labels(result)
        for result in ("stored", "dropped", "failed"):
            self.cache_writes.labels(result)

    def watch_models(self, live: Callable[[], Iterable[Served]]) -> None:
        """Have `model_info` and `model_age_seconds` show what is live at the time of a scrape."""
        self.registry.register(LiveModels(live))


class TransitionSteps(Collector):
    """`transition_step{model}`: histogram of t*/T, fed with whole batches."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Tensor] = {}
        self._sums: dict[str, float] = {}

    def observe(self, model: str, transition: Tensor, num_steps: int) -> None:
        """Count a batch: one pass over t*, (B,) in [0, T], then T + 1 numbers."""
        steps = torch.bincount(transition, minlength=num_steps + 1).cpu()
        share = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
        edges = torch.tensor(FRACTIONS, dtype=torch.float64)
        counts = torch.zeros(len(FRACTIONS), dtype=torch.int64)
        counts.index_add_(0, torch.bucketize(share, edges + 1e-9), steps)
        total = float((share * steps).sum())
        with self._lock:
            self._counts[model] = self._counts.get(model, 0) + counts
            self._sums[model] = self._sums.get(model, 0.0) + total

    def collect(self) -> Iterable[Metric]:
        """The histogram as it stands."""
        family = HistogramMetricFamily(
            "turnpoint_transition_step", "t* as a fraction of T", labels=["model"]
        )
        with self._lock:
            for model, counts in self._counts.items():
                below = counts.cumsum(0).tolist()
                buckets = [(str(edge), count) for edge, count in zip(FRACTIONS, below, strict=True)]
                family.add_metric(
                    [model], [*buckets, ("+Inf", below[-1])], sum_value=self._sums[model]
                )
        yield family


class LiveModels(Collector):
    """`model_info` and `model_age_seconds` of the live versions; a replaced one disappears."""

    def __init__(self, live: Callable[[], Iterable[Served]]) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        """Both families."""
        info = GaugeMetricFamily(
            "turnpoint_model_info", "1 for the live version", labels=["model", "version", "method"]
        )
        age = GaugeMetricFamily(
            "turnpoint_model_age_seconds", "Since the live checkpoint was made", labels=["model"]
        )
        for model in self._live():
            info.add_metric([model.name, model.version, model.method], 1)
            age.add_metric([model.name], model.age_seconds)
        yield from (info, age)


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
