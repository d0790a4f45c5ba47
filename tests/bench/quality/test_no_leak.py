"""Nothing is learnt from the test split, and nothing chosen by it.

The same cells are run on data that differ in their test pairs alone, and everything that was
learnt or chosen is compared, bit by bit. The negative controls put a leak in and see it found.
"""

from dataclasses import replace

import numpy as np
import pytest

from bench.quality import work
from bench.quality.cells import FINAL, Job
from bench.quality.data import without_test
from bench.quality.search import chosen, finals, trials
from core.errors import ConfigError
from tests.bench.quality.conftest import small
from trainer import cotrain, pipeline
from trainer.data import Interactions
from trainer.encoders import ENCODERS
from trainer.evaluate import evaluate
from trainer.pipeline import Outputs, fit

CHOSEN_OR_LEARNT = ("kind", "settings", "chosen", "seed", "config", "valid", "best epoch", "epochs",
                    "history", "weights")  # fmt: skip


def scrambled(data: Interactions) -> Interactions:
    """As many test pairs for every user, of other items; train and validation as they are."""
    rng = np.random.default_rng(1)
    pairs = []
    for user, count in enumerate(np.bincount(data.test[:, 0], minlength=data.num_users)):
        taken = [part[part[:, 0] == user, 1] for part in (data.train, data.valid, data.test)]
        others = np.setdiff1d(np.arange(data.num_items), np.concatenate(taken))
        pairs += [(user, item) for item in rng.permutation(others)[:count]]
    test = np.array(pairs, dtype=np.int64)
    assert test.shape == data.test.shape
    return replace(data, test=test)


def seen(plan):
    """What the search came to: everything that was learnt or chosen, and all of the rest."""
    learnt, rest = [], []
    for cell in plan.cells:
        result_of = plan.store.result
        for job in [*trials(cell, result_of), *finals(cell, cell.seeds, result_of)]:
            result = result_of(job)
            learnt.append({name: result[name] for name in CHOSEN_OR_LEARNT})
            rest.append(result)
        learnt.append(chosen(cell, result_of))
    return learnt, rest


def on_both(do, data, tmp_path, cells):
    """The cells on the true test pairs and on others."""
    return [
        seen(do(cells, tmp_path / name, instead))
        for name, instead in (("true", data), ("other", scrambled(data)))
    ]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"negatives": "dns"},
        {"negatives": "popularity", "method": "adar", "transition.rule": "exact"},
    ],
    ids=lambda one: one["negatives"],
)
def test_other_test_pairs_change_nothing_but_the_judgement(do, data, tmp_path, encoder, settings):
    cells = [small("cell", encoder, **settings)]
    (learnt, rest), (learnt_elsewhere, rest_elsewhere) = on_both(do, data, tmp_path, cells)
    assert learnt == learnt_elsewhere
    assert len(learnt) == 4  # two trials, a final run, the choice
    final, final_elsewhere = rest[-1], rest_elsewhere[-1]
    assert final["kind"] == FINAL
    assert final["test"] != final_elsewhere["test"]
    for row, other in zip(final["diagnostics"], final_elsewhere["diagnostics"], strict=True):
        name = "false negatives"  # the one figure that is about them
        assert row | {name: 0} == other | {name: 0}


def test_a_choice_by_test_would_be_seen(do, data, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(work, "without_test", lambda whole: given.append(whole) or whole)
    monkeypatch.setattr(cotrain, "evaluate", lambda u, i, whole, _: evaluate(u, i, whole, "test"))
    (learnt, _), (learnt_elsewhere, _) = on_both(do, data, tmp_path, [small("cell")])
    assert given
    assert learnt != learnt_elsewhere


def test_learning_from_test_would_be_seen(do, data, tmp_path, monkeypatch):
    """A sampler that spares test pairs: the leak that false negatives invite."""

    def sparing(name, whole, *more, **settings):
        known = np.unique(np.concatenate([whole.train, whole.test]), axis=0)
        return real(name, replace(whole, train=known), *more, **settings)

    real = pipeline.make_picker
    monkeypatch.setattr(work, "without_test", lambda whole: whole)
    monkeypatch.setattr(pipeline, "make_picker", sparing)
    (learnt, _), (learnt_elsewhere, _) = on_both(do, data, tmp_path, [small("cell")])
    assert learnt != learnt_elsewhere


def test_what_trains_has_no_test_to_look_at(data, monkeypatch):
    """Either leak is a fault there: the split is empty, and an empty split is refused."""
    blind = without_test(data)
    assert len(blind.test) == 0
    assert blind.train is data.train
    assert blind.valid is data.valid
    monkeypatch.setattr(cotrain, "evaluate", lambda u, i, whole, _: evaluate(u, i, whole, "test"))
    with pytest.raises(ConfigError, match="'test' of small is empty"):
        fit(blind, Job(small("cell"), FINAL, {}).config, Outputs())
