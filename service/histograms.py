"""Histograms by model that are fed with whole batches, not with a call for each row."""

import threading
import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from torch import Tensor

FRACTIONS = tuple(step / 10 for step in range(11))
GAPS = tuple(step / 10 for step in range(-10, 11))
GAP_ROWS = 64  # of one answer
GAP_PAUSE = 0.1  # seconds between two answers that are looked at


class BatchHistogram(Collector):
    """One histogram with the label `model`.

    Args:
        name: the metric's.
        what: its help.
        edges: upper bounds of the buckets, ascending. Where the first is below 0 there is no `_sum`
            and no `_count`, since a sum that can fall is no counter; `le="+Inf"` is the count.
    """

    def __init__(self, name: str, what: str, edges: Sequence[float]) -> None:
        self._name, self._what = name, what
        self._edges = np.array(edges)
        self._lock = threading.Lock()
        self._counts: dict[str, np.ndarray] = {}
        self._sums: dict[str, float] = {}

    def add(self, model: str, values: np.ndarray, times: np.ndarray | None = None) -> None:
        """Count `values`, (K,), each as often as `times` says, once by default."""
        bucket = np.searchsorted(self._edges + 1e-9, values)
        counts = np.bincount(bucket, times, len(self._edges) + 1)
        total = float(values.sum() if times is None else values @ times)
        with self._lock:
            self._counts[model] = self._counts.get(model, 0) + counts
            self._sums[model] = self._sums.get(model, 0.0) + total

    def collect(self) -> Iterable[Metric]:
        """The histogram as it stands."""
        family = HistogramMetricFamily(self._name, self._what, labels=["model"])
        edges = [*map(str, self._edges.tolist()), "+Inf"]
        with self._lock:
            for model, counts in self._counts.items():
                below = counts.cumsum().tolist()
                family.add_metric(
                    [model], list(zip(edges, below, strict=True)), sum_value=self._sums[model]
                )
        yield family


class TransitionSteps(BatchHistogram):
    """`transition_step{model}`: t*/T of every row."""

    def __init__(self) -> None:
        super().__init__("turnpoint_transition_step", "t* as a fraction of T", FRACTIONS)

    def observe(self, model: str, transition: Tensor, num_steps: int) -> None:
        """Count a batch: t*, (B,) in [0, T]."""
        times = np.bincount(transition.cpu().numpy(), minlength=num_steps + 1)
        self.add(model, np.arange(num_steps + 1) / num_steps, times)


class ScoreGaps(BatchHistogram):
    """`score_gap{model}`: how far below its positive a generated negative scores.

    (<e_u, e_i> - <e_u, e_d>) / (|e_u| |e_i|), that is, the positive's cosine less the negative's
    score in the same unit: 0 is a negative as hard as its positive, less than 0 a harder one. A few
    rows of at most ten answers a second, less than 0.1 ms each.
    """

    def __init__(self) -> None:
        super().__init__(
            "turnpoint_score_gap",
            "Positive's less generated score, over |e_u| |e_i|; a sample of rows",
            GAPS,
        )
        self._next = 0.0

    def observe(
        self, model: str, users: Tensor, positives: Tensor, tensors: dict[str, Tensor]
    ) -> None:
        """Look at an answer, unless one was looked at just now.

        Args:
            model: that answered.
            users: (B, d), on the host.
            positives: (B, d).
            tensors: the answer: the first of `negatives` is compared, else the law's `mean`.
        """
        generated = tensors["negatives"][:, 0] if "negatives" in tensors else tensors.get("mean")
        now = time.monotonic()
        if generated is None or now < self._next:
            return
        self._next = now + GAP_PAUSE
        e_u, e_i, e_d = (_first(rows) for rows in (users, positives, generated))
        scale = np.sqrt((e_u * e_u).sum(-1) * (e_i * e_i).sum(-1))
        gap = (e_u * (e_i - e_d)).sum(-1)
        self.add(model, np.divide(gap, scale, out=np.zeros_like(gap), where=scale > 0))


def _first(rows: Tensor) -> np.ndarray:
    return rows[:GAP_ROWS].to(torch.float64).numpy()
