"""What Prometheus sees of a training run.

Nothing here makes the loop wait for the device: a step leaves its tensors behind, and a scrape
reads them.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from torch import Tensor

from core.errors import ConfigError
from trainer.cotrain import Tick, Watcher
from trainer.publish import OUTCOMES, PUBLISHED


class TrainerMetrics:
    """All metrics of one run; its `watcher` goes to the training loop.

    `trainer_lag_seconds` is how far what is served can be behind what was learnt: the time since
    this run last published, since it began where it has not yet.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.steps = Counter(
            "turnpoint_trainer_steps_total", "Mini-batches learnt from", registry=self.registry
        )
        self.pairs = Counter(
            "turnpoint_trainer_pairs_total", "Pairs in them", registry=self.registry
        )
        self.published = Counter(
            "turnpoint_trainer_publish_total",
            "Publications, by outcome",
            ["result"],
            registry=self.registry,
        )
        self.lag = Gauge(
            "turnpoint_trainer_lag_seconds",
            "Since the last publication of this run, or its beginning",
            registry=self.registry,
        )
        self.losses = Losses()
        self.registry.register(self.losses)
        ProcessCollector(registry=self.registry)
        self._current_since = time.monotonic()
        self.lag.set_function(lambda: time.monotonic() - self._current_since)
        for result in OUTCOMES:  # alerts want them to be 0, not absent
            self.published.labels(result)
        self.watcher = Watcher(on_step=self._on_step, on_publish=self._on_publish)

    def _on_step(self, tick: Tick) -> None:
        self.steps.inc()
        self.pairs.inc(tick.pairs)
        self.losses.note(tick.losses)

    def _on_publish(self, result: str, _: str) -> None:
        self.published.labels(result).inc()
        if result == PUBLISHED:
            self._current_since = time.monotonic()

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[str]:
        """Answer `GET /metrics` there while the block lasts; gives the address.

        Raises:
            ConfigError: the address cannot be bound.
        """
        try:
            server, thread = start_http_server(port, host, self.registry)
        except OSError as error:
            raise ConfigError(
                f"cannot show metrics on {host}:{port}: {error.strerror or error}; choose another "
                "with --metrics-host and --metrics-port"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        try:
            yield f"http://{shown}:{server.server_port}/metrics"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Losses(Collector):
    """`trainer_loss{part}` of the last step, and how many steps had one that was not finite."""

    def __init__(self) -> None:
        self._last: Mapping[str, Tensor] = {}
        self._bad: dict[str, Tensor] = {}

    def note(self, losses: Mapping[str, Tensor]) -> None:
        """A step's losses, scalars on any device."""
        for part, loss in losses.items():
            bad = self._bad.setdefault(part, torch.zeros((), dtype=torch.int64, device=loss.device))
            bad += ~loss.isfinite()
        self._last = losses

    def collect(self) -> Iterable[Metric]:
        """Both families; this is where the device is waited for."""
        loss = GaugeMetricFamily("turnpoint_trainer_loss", "Of the last step", labels=["part"])
        bad = CounterMetricFamily(
            "turnpoint_trainer_nonfinite_total",
            "Steps whose loss was not finite",
            labels=["part"],
        )
        for part, value in dict(self._last).items():
            loss.add_metric([part], float(value))
            bad.add_metric([part], int(self._bad[part]))
        yield from (loss, bad)
