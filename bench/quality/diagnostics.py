"""What the negatives of a run are like, validation by validation: a watcher that changes nothing.

It alone sees held-out pairs while a run learns, to count how many sampled negatives are false ones;
it has its own randomness, and nothing reads what it writes before the run is over.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core.stores import LocalStore
from trainer.config import TrainConfig
from trainer.cotrain import Learnt, Tick, Watcher
from trainer.data import Interactions
from trainer.run import Run
from trainer.sampling import UniformNegatives
from trainer.sampling.base import candidates_of, scores

FILE = "diagnostics.json"
DRAWN = 16  # items that a user has not taken, the hardest of which is a measure of hardness
LOOKED_AT = 8  # steps of an epoch in which they are drawn


class Diagnostics:
    """Looks at the epochs that end with a validation; `rows` has one entry for each.

    A row is `epoch`, counts over t* = 0..T as `transition` (with a method), and means over the
    epoch's rows: of the scores of `positive`, `negative` (e_j) and `generated` (e_d), and of

        negative > positive, generated > positive, generated > negative
        negative > hardest, generated > hardest     of 16 fresh uniform negatives, first steps only
        false negatives                             sampled ones that are valid or test pairs

    Args:
        interactions: with its test split.
        config: of the run.
        folder: keeps the rows of a run that is not finished, beside its state.
    """

    def __init__(self, interactions: Interactions, config: TrainConfig, folder: Path) -> None:
        held_out = np.concatenate([interactions.valid, interactions.test])
        keys = np.sort(held_out[:, 0] * interactions.num_items + held_out[:, 1])
        self._held_out = torch.from_numpy(keys).to(config.device)
        self._num_items = interactions.num_items
        self._source = UniformNegatives(
            interactions.train, interactions.num_users, interactions.num_items, config.device
        )
        self._generator = torch.Generator(config.device).manual_seed(config.seed)
        self._config = config
        self._folder = folder
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)
        file = folder / FILE
        self.rows: list[dict[str, Any]] = json.loads(file.read_bytes()) if file.exists() else []
        self.watcher = Watcher(self._on_step, self._on_epoch)

    @torch.no_grad()
    def _on_step(self, tick: Tick) -> None:
        last = tick.epoch + 1 == self._config.epochs
        if not last and (tick.epoch + 1) % self._config.eval_every:
            return
        assert tick.learnt is not None
        if tick.step == 0:
            self._generator.manual_seed(self._config.seed + tick.epoch)  # resumed or not
        told = _compared(tick.learnt.scores)
        told["false negatives"] = self._false(tick.learnt)
        if tick.step < LOOKED_AT:
            told |= self._against_hardest(tick.learnt)
        for name, values in told.items():
            self._add(name, values.sum(dtype=torch.float64), len(values))
        if tick.transition is not None:
            steps = self._config.num_steps + 1
            self._add("transition", tick.transition.bincount(minlength=steps), 1)

    def _on_epoch(self, run: Run, _: float, metrics: dict[str, float] | None) -> None:
        if metrics is None:
            return
        row: dict[str, Any] = {"epoch": run.epoch}
        for name, total in self._sums.items():
            row[name] = total.tolist() if total.ndim else float(total) / self._counts[name]
        self._sums.clear()
        self._counts.clear()
        # A run that was killed before it kept this epoch's state comes by again.
        self.rows = [*(old for old in self.rows if old["epoch"] < run.epoch), row]
        self._folder.mkdir(parents=True, exist_ok=True)
        LocalStore(self._folder).replace(FILE, json.dumps(self.rows).encode())

    def _add(self, name: str, value: Tensor, count: int) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] += count

    def _false(self, learnt: Learnt) -> Tensor:
        """Whether each sampled negative is held out for its user."""
        keys = learnt.batch.users * self._num_items + learnt.negatives
        place = torch.searchsorted(self._held_out, keys).clamp(max=len(self._held_out) - 1)
        return self._held_out[place] == keys

    def _against_hardest(self, learnt: Learnt) -> dict[str, Tensor]:
        """Whether each negative scores above the best of `DRAWN` uniform ones."""
        items = candidates_of(learnt.batch, self._source, DRAWN, self._generator)
        hardest = scores(learnt.encoded.users, learnt.encoded.items(items)).amax(1)
        return {
            f"{name} > hardest": score > hardest
            for name, score in learnt.scores.items()
            if name != "positive"
        }


def _compared(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """The scores, and which is above which."""
    told = dict(scores)
    told["negative > positive"] = scores["negative"] > scores["positive"]
    if "generated" in scores:
        told["generated > positive"] = scores["generated"] > scores["positive"]
        told["generated > negative"] = scores["generated"] > scores["negative"]
    return told
