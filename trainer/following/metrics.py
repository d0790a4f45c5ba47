"""What Prometheus sees of `follow`, beside what it sees of any training run."""

import math
import time

import torch
from prometheus_client import Counter, Gauge

from core.pairs import Pairs
from trainer.cotrain import Tick
from trainer.following.drift import MEASURES
from trainer.following.learner import Taken
from trainer.following.publisher import Offer
from trainer.following.source import Entry
from trainer.metrics import TrainerMetrics

LEARNT, REFUSED, LOST = RESULTS = ("learnt", "refused", "lost")
JUDGED = ("candidate", "live", "unconditional")


class FollowMetrics(TrainerMetrics):
    """All metrics of one follower."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = self._counter("entries", "Entries, by what became of them", "result")
        self.fresh = self._counter("fresh_pairs", "Pairs that were new")
        self.redelivered = self._counter("redelivered", "Entries a worker was given before")
        self.jumps = self._counter("jumps", "Sudden changes of the embedding space")
        self.drift = self._gauge(
            "drift_ratio", "How far embeddings have moved since the last publication", "measure"
        )
        self.held_out = self._gauge("held_out_loss", "At the last attempt to publish", "of")
        self.delay = self._gauge("stream_delay_seconds", "Age of pairs as they were learnt")
        self.leading = self._gauge("leading", "1 for the worker that learns")
        self.source_up = self._gauge("source_up", "1 where pairs can be read")
        for result in RESULTS:
            self.entries.labels(result)
        for measure in MEASURES:
            self.drift.labels(measure)
        self._judge({})

    def note_refused(self, entry: Entry) -> None:
        """An entry that could not be learnt from."""
        self.redelivered.inc(entry.redelivered)
        self.entries.labels(LOST if entry.lost else REFUSED).inc()

    def note_taken(self, entry: Entry, pairs: Pairs, taken: Taken, batch: int) -> None:
        """An entry that was learnt from, in steps of `batch` rows."""
        self.redelivered.inc(entry.redelivered)
        self.entries.labels(LEARNT).inc()
        self.fresh.inc(len(pairs.users))
        self.jumps.inc(taken.jump is not None)
        self.delay.set(max(0.0, time.time() - pairs.at))
        before = torch.tensor(taken.loss_before)
        for loss in taken.losses:
            losses = {"diffusion": loss, "fresh": before}
            self.watcher.on_step(Tick(0, 0, 0, batch, losses))

    def note_offer(self, offer: Offer) -> None:
        """An attempt to publish; where nothing was judged, the losses stay the last ones."""
        self.watcher.on_publish(offer.result, offer.told)
        if offer.losses:
            self._judge(offer.losses)

    def note_drift(self, drift: dict[str, float]) -> None:
        """The measures at the last look."""
        for measure, value in drift.items():
            self.drift.labels(measure).set(value)

    def _judge(self, losses: dict[str, float]) -> None:
        """NaN is a loss that there is not, as of a live version that cannot be compared."""
        for of in JUDGED:
            self.held_out.labels(of).set(losses.get(of, math.nan))

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"turnpoint_trainer_{name}_total", told, labels, registry=self.registry)

    def _gauge(self, name: str, told: str, *labels: str) -> Gauge:
        return Gauge(f"turnpoint_trainer_{name}", told, labels, registry=self.registry)
