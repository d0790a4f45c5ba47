"""What is counted is what was learnt from, and counting changes nothing."""

import numpy as np
import pytest
import torch

from bench.quality.cells import FINAL, Job
from bench.quality.diagnostics import DRAWN, Diagnostics
from bench.quality.work import digest
from tests.bench.quality.conftest import small
from trainer.cotrain import Watcher, together
from trainer.pipeline import Outputs, fit


def watched(data, tmp_path, **settings):
    """A run with diagnostics and all its ticks; three epochs, validated after 2 and 3."""
    job = Job(small("cell", **{"epochs": 3, "eval_every": 2, **settings}), FINAL, {})
    ticks = []
    found = Diagnostics(data, job.config, tmp_path)
    watcher = together(found.watcher, Watcher(on_step=ticks.append))
    run = fit(data, job.config, Outputs(), watcher).run
    return job.config, run, ticks, found.rows


def test_counts_by_hand(data, tmp_path):
    _, _, ticks, rows = watched(data, tmp_path, method="adar", **{"transition.rule": "random"})
    assert [row["epoch"] for row in rows] == [2, 3]
    held_out = {tuple(pair) for pair in np.concatenate([data.valid, data.test]).tolist()}
    for row in rows:
        mine = [tick for tick in ticks if tick.epoch + 1 == row["epoch"]]
        s = {name: torch.cat([tick.learnt.scores[name] for tick in mine])
             for name in ("positive", "negative", "generated")}  # fmt: skip
        assert len(s["positive"]) == len(data.train)
        for name, score in s.items():
            assert row[name] == pytest.approx(score.double().mean().item())
        for name in ("negative > positive", "generated > positive", "generated > negative"):
            above, below = name.split(" > ")
            assert row[name] == pytest.approx((s[above] > s[below]).double().mean().item())
        t_star = torch.cat([tick.transition for tick in mine])
        assert row["transition"] == t_star.bincount(minlength=11).tolist()
        pairs = [
            pair
            for tick in mine
            for pair in zip(
                tick.learnt.batch.users.tolist(), tick.learnt.negatives.tolist(), strict=True
            )
        ]
        false = np.mean([pair in held_out for pair in pairs])
        assert row["false negatives"] == pytest.approx(false)
        assert 0.01 < false < 0.2


def test_a_uniform_negative_is_the_hardest_of_so_many_as_often_as_any(data, tmp_path):
    """It is one of 17 alike; ties among repeated items count against it."""
    _, _, _, rows = watched(data, tmp_path)
    assert rows[-1]["negative > hardest"] == pytest.approx(1 / (DRAWN + 1), abs=0.03)
    _, _, _, harder = watched(data, tmp_path / "dns", negatives="dns", candidates=32)
    assert harder[-1]["negative > hardest"] > 0.4


def test_without_a_method_nothing_is_generated(data, tmp_path):
    _, _, _, rows = watched(data, tmp_path)
    assert not [name for name in rows[0] if "generated" in name or name == "transition"]


@pytest.mark.parametrize("settings", [{}, {"method": "adar"}, {"negatives": "ahns"}])
def test_looking_changes_nothing(data, tmp_path, settings):
    config, run, _, _ = watched(data, tmp_path, **settings)
    assert digest(run) == digest(fit(data, config, Outputs()).run)
    other = small("cell", **{"epochs": 3, "eval_every": 2, **settings, "learning_rate": 0.02})
    assert digest(run) != digest(fit(data, Job(other, FINAL, {}).config, Outputs()).run)
