"""What is tried, and what is chosen of it."""

import json
from dataclasses import fields, replace

import pytest

from bench.quality import work
from bench.quality.cells import FINAL, Cell, Job, overridden, resolve
from bench.quality.data import load_set
from bench.quality.search import chosen, finals, grid, pending, trials
from bench.quality.store import Store
from bench.quality.tables import TABLES
from core.errors import ConfigError
from tests.bench.quality.conftest import small
from trainer.config import TrainConfig

CELL = Cell("c", "generated", "mf", {"epochs": 2},
            ({"l2": (0.1, 0.2), "dim": (4, 8)}, {"weight": (0.3, 0.5, 0.7)}))  # fmt: skip


class Scored:
    """Results by a function of the settings; so far only some."""

    def __init__(self, score, until=99):
        self.score, self.until, self.keys = score, until, []

    def __call__(self, job):
        if job.key not in self.keys:
            if len(self.keys) == self.until:
                return None
            self.keys.append(job.key)
        return {"valid": {"recall@20": self.score(job.settings)}}


def best(settings):
    return -abs(settings["l2"] - 0.2) - abs(settings["dim"] - 4) - abs(settings["weight"] - 0.5)


def test_stages_follow_each_other_from_the_best_so_far():
    result_of = Scored(best)
    told = [dict(job.chosen) for job in trials(CELL, result_of)]
    assert told[:4] == grid(CELL.space[0])
    assert told[4:] == [{"l2": 0.2, "dim": 4, "weight": w} for w in (0.3, 0.5, 0.7)]
    assert len(told) == CELL.budget
    assert chosen(CELL, result_of) == {"l2": 0.2, "dim": 4, "weight": 0.5}
    assert [job.seed for job in finals(CELL, (0, 5), result_of)] == [0, 5]


@pytest.mark.parametrize("until", range(7))
def test_nothing_is_judged_before_every_trial_is_done(until):
    result_of = Scored(best, until)
    assert chosen(CELL, result_of) is None
    waiting = pending(CELL, (0,), result_of)
    assert len(waiting) == (4 - until if until < 4 else 7 - until)
    assert all(job.kind == "trial" for job in waiting)


def test_a_later_stage_may_not_be_better():
    """The choice is among all trials: a stage that only loses changes nothing."""
    result_of = Scored(lambda s: s["l2"] - 9 * (s["weight"] != 0.1))  # 0.1 is the default
    assert chosen(CELL, result_of) == {"l2": 0.2, "dim": 4}


def test_of_equals_the_first_is_chosen():
    assert chosen(CELL, Scored(lambda _: 0.5)) == {"l2": 0.1, "dim": 4}


def test_no_search_judges_the_settings_as_they_are():
    cell = replace(CELL, space=())
    (job,) = pending(cell, (0,), lambda _: None)
    assert (job.kind, dict(job.chosen)) == (FINAL, {})


def test_the_choice_is_the_argmax_of_what_is_written(do, tmp_path):
    cell = small("mf", method="adar")
    plan = do([cell], tmp_path)
    written = [json.loads(file.read_text()) for file in (tmp_path / "runs").glob("*.json")]
    tried = {one["settings"]["learning_rate"]: one["valid"]["recall@20"]
             for one in written if one["kind"] == "trial"}  # fmt: skip
    assert len(tried) == 2
    assert len(set(tried.values())) == 2
    (final,) = (one for one in written if one["kind"] == "final")
    assert final["chosen"]["learning_rate"] == max(tried, key=tried.__getitem__)
    assert all("test" not in one for one in written if one["kind"] == "trial")
    for one in written:
        by_epoch = {row["epoch"]: row["recall@20"] for row in one["history"]}
        assert by_epoch[one["best epoch"]] == max(by_epoch.values()) == one["valid"]["recall@20"]
    assert not plan.pending()


def test_a_job_that_fails_is_told_and_the_others_are_done(do, tmp_path, monkeypatch, capsys):
    cells = [small("bad", dim=-1), small("good")]
    with pytest.raises(RuntimeError, match="bad trial"):
        do(cells, tmp_path)
    assert "an encoder needs a dimension of at least 1, not -1" in capsys.readouterr().out
    assert chosen(cells[1], Store(tmp_path).result) is not None


def test_a_run_belongs_to_one_process_at_a_time(tmp_path):
    job, store = Job(CELL, FINAL, {}), Store(tmp_path)
    with store.claimed(job) as first, Store(tmp_path).claimed(job) as second:
        assert (first, second) == (True, False)
    with store.claimed(job) as again:
        assert again
        store.finish(job, {"valid": {}})
    with Store(tmp_path).claimed(job) as done:
        assert not done


def test_a_folder_is_about_one_data_set(do, data, tmp_path):
    do([small("mf")], tmp_path)
    with pytest.raises(RuntimeError):
        do([small("mf", l2=0.5)], tmp_path, replace(data, test=data.test[1:]))
    with pytest.raises(ConfigError, match="choose another folder with --out"):
        Store(tmp_path).pin("generated", "random", "other", "")


@pytest.mark.parametrize("table", TABLES)
def test_base_and_method_have_the_same_budget(table):
    by_label = {cell.label: cell for cell in TABLES[table]}
    assert len(by_label) == len(TABLES[table])
    for cell in by_label.values():
        if cell.against is not None:
            base = by_label[cell.against]
            assert cell.budget == base.budget
            for field in ("epochs", "eval_every", "patience", "metric"):
                assert getattr(Job(cell, FINAL, {}).config, field) == getattr(
                    Job(base, FINAL, {}).config, field
                )


@pytest.mark.parametrize("table", TABLES)
def test_every_declared_setting_is_one(table):
    for cell in TABLES[table]:
        for stage in cell.space or ({},):
            for point in grid(stage):
                config = Job(cell, "trial", point).config
                for name, value in point.items():
                    assert getattr(config, name) == value


def test_every_field_can_be_a_setting():
    for field in fields(TrainConfig):
        if field.name != "encoder":
            assert resolve("mf", {field.name: getattr(TrainConfig(), field.name)})
    assert resolve("mf", {"transition.hardness": 0.7}).transition.hardness == 0.7


@pytest.mark.parametrize("name", ["nope", "transition.nope", "nope.rule", "dim.rule"])
def test_a_field_that_is_none_is_refused(name):
    with pytest.raises(ConfigError, match="settings are fields of TrainConfig"):
        resolve("mf", {name: 1})


def test_the_same_run_in_two_tables_is_one():
    def key(table, label, kind="trial", seed=0):
        (cell,) = (one for one in TABLES[table] if one.label == label)
        return Job(cell, kind, {}, seed).key

    assert key("beauty", "ngcf") == key("table3", "ngcf")
    assert key("beauty", "ngcf+adar") == key("table3", "ngcf+adaptive")
    others = [key("beauty", "ngcf+ours"), key("toys", "mf"), key("beauty", "mf"),
              key("beauty", "ngcf", FINAL), key("beauty", "ngcf", FINAL, 1)]  # fmt: skip
    assert len({key("beauty", "ngcf"), *others}) == 6


def test_a_stage_that_comes_by_the_default_again_repeats_no_run():
    cell = Cell("c", "generated", "mf", {}, ({"l2": (0.1,)},
                {"learning_rate": (1e-3, 3e-3), "transition.hardness": (0.5, 0.7)}))  # fmt: skip
    jobs = list(trials(cell, Scored(lambda _: 0.0)))
    assert len(jobs) == cell.budget == 5
    keys = [job.key for job in jobs]
    assert keys[0] == keys[3]  # learning_rate is 3e-3 and hardness 0.5 by default
    assert len(set(keys)) == 4


def test_what_is_overridden_is_not_searched():
    (cell,) = overridden([CELL], {"l2": 0.7, "weight": 0.2})
    assert cell.settings == {"epochs": 2, "l2": 0.7, "weight": 0.2}
    assert cell.space == ({"dim": (4, 8)},)


def test_the_split_does_not_follow_the_seed():
    """Else what one seed chooses by would be what another is judged on."""
    told = []

    def load(path, *, split, seed=0):
        told.append(seed)
        raise LookupError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.quality.data.load", load)
        load_set.cache_clear()
        for seed in (0, 1):
            plan = work.Plan([CELL], None)
            with pytest.raises(LookupError):
                work.perform(Job(CELL, FINAL, {}, seed), plan)
    assert told == [0, 0]
