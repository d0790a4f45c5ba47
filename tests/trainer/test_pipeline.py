import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import safetensors.numpy
import torch

from core.checkpoint import unpack
from core.errors import ConfigError
from core.registry import Registry
from core.transition import Transition
from tests.trainer.test_cotrain import CONFIG, data, same_weights  # noqa: F401
from trainer.config import TrainConfig
from trainer.cotrain import Watcher
from trainer.data import load
from trainer.defaults import config_for
from trainer.evaluate import evaluate
from trainer.pipeline import Outputs, fit, train
from trainer.report import describe_transition, write_report
from trainer.run import Run


def test_leaves_what_was_asked_for(data, tmp_path):  # noqa: F811
    outputs = Outputs(
        registry=str(tmp_path / "registry"),
        model="m",
        publish_every=2,
        state=tmp_path / "state",
        embeddings=tmp_path / "deep" / "embeddings.safetensors",
    )
    result = train(data, CONFIG, outputs)
    report = result.report
    registry = Registry(tmp_path / "registry")
    published = report["versions"]["published"]
    assert registry.versions("m") == published
    assert len(published) == 3  # after epochs 2 and 4, and the best at the end
    assert registry.live("m") == published[-1]
    sampler, manifest = unpack(registry.read("m", published[-1]))
    assert manifest.metrics == report["valid"]
    assert manifest.config["training"]["encoder"] == "mf"
    assert sampler.config == CONFIG.sampler()
    tables = safetensors.numpy.load_file(tmp_path / "deep" / "embeddings.safetensors")
    again = evaluate(*result.run.encoder.tables(), data, "test")
    assert report["test"] == again
    assert np.array_equal(tables["users"], result.run.encoder.tables()[0].numpy())
    assert np.array_equal(tables["test"], data.test)


def test_report_has_the_contracts_fields_and_is_json(data, tmp_path):  # noqa: F811
    report = train(data, CONFIG, Outputs()).report
    write_report(report, tmp_path / "a" / "report.json")
    read = json.loads((tmp_path / "a" / "report.json").read_text())
    assert read["test"].keys() == {"recall@10", "recall@20", "ndcg@10", "ndcg@20"}
    assert all(0 <= value <= 1 for value in read["test"].values())
    assert 0 <= read["valid"]["recall@20"] <= 1
    assert read["epochs"] == 4
    assert 1 <= read["best_epoch"] <= 4
    assert read["seconds_per_epoch"] > 0
    assert 5 <= read["transition"]["mean"] <= 10
    assert len(read["transition"]["deciles"]) == 9
    assert read["config"]["transition"]["rule"] == "score_aware"
    assert read["versions"]["published"] == []


def test_every_test_set_is_reported_by_its_name(data, tmp_path):  # noqa: F811
    ood = data.test[::-3][::-1]
    both = replace(data, extra_tests={"test_ood": ood})
    path = tmp_path / "embeddings.safetensors"
    report = train(both, CONFIG, Outputs(embeddings=path)).report
    alone = train(data, CONFIG, Outputs()).report
    assert report["test"] == alone["test"]
    assert alone["extra_tests"] == {}
    expected = train(replace(data, test=ood), CONFIG, Outputs()).report["test"]
    assert report["extra_tests"] == {"test_ood": expected}
    assert expected != report["test"]
    assert np.array_equal(safetensors.numpy.load_file(path)["test_ood"], ood)


def test_a_finished_run_resumes_to_the_same_report(data, tmp_path):  # noqa: F811
    first = train(data, CONFIG, Outputs(state=tmp_path)).report
    second = train(data, CONFIG, Outputs(state=tmp_path)).report
    assert first == second


def test_fitting_never_looks_at_test(data):  # noqa: F811
    blind = replace(data, test=np.empty((0, 2), dtype=np.int64))
    fitted, result = fit(blind, CONFIG, Outputs()), train(data, CONFIG, Outputs())
    assert fitted.valid == result.report["valid"]
    assert same_weights(fitted.run, result.run)
    with pytest.raises(ConfigError, match="'test' of small is empty"):
        train(blind, CONFIG, Outputs())


@pytest.mark.parametrize("state_every", [1, 2, 3])
def test_what_a_watcher_keeps_is_there_when_the_state_is(data, tmp_path, state_every):  # noqa: F811
    """Killed while the state of an epoch is saved, the watcher has been told of that epoch."""
    told, outputs = [], Outputs(state=tmp_path, state_every=state_every)

    def killed(run, folder, config):
        save(run, folder, config)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        save = Run.save
        patch.setattr(Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(data, CONFIG, outputs, Watcher(on_epoch=lambda run, *_: told.append(run.epoch)))
    assert told == list(range(1, state_every + 1))
    resumed = fit(data, CONFIG, outputs, Watcher(on_epoch=lambda run, *_: told.append(run.epoch)))
    assert told == [1, 2, 3, 4]
    assert same_weights(resumed.run, fit(data, CONFIG, Outputs()).run)


@pytest.mark.parametrize(("encoder", "candidates"), [("mf", 32), ("sasrec", 16)])
def test_the_catalogue_publishes_the_encoders_items(data, tmp_path, encoder, candidates):  # noqa: F811
    """During training and at the end; a service that has them chooses as the trainer did."""
    sizes = {"dim": 8, "epochs": 2, "eval_every": 1, "num_steps": 10}
    config = config_for(encoder, method="catalogue", **sizes)
    address, path = str(tmp_path / "registry"), tmp_path / "embeddings"
    outputs = Outputs(registry=address, model="m", publish_every=1, embeddings=path)
    published = train(data, config, outputs).report["versions"]["published"]
    sampler, manifest = unpack(Registry(address).read("m", published[-1]))
    items = safetensors.numpy.load_file(path)["items"]
    assert np.array_equal(sampler.items.numpy(), items)
    assert sampler.config.candidates == candidates
    assert manifest.transition == {**asdict(Transition("fixed")), "hardness": 0.0}
    first, second, _ = (unpack(Registry(address).read("m", one))[0].items for one in published)
    assert not torch.equal(first, second)
    untouched = fit(data, config, Outputs()).run  # publishing has changed nothing
    assert np.array_equal(untouched.encoder.tables("valid")[1].numpy(), items)


def test_nothing_to_publish_is_said_before_training(data, tmp_path):  # noqa: F811
    with pytest.raises(ConfigError, match="nothing to publish with --method none"):
        train(data, replace(CONFIG, method="none"), Outputs(registry=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_transition_is_described_by_its_histogram():
    counts = np.zeros(51, dtype=int)
    counts[[10, 20, 30, 40]] = [1, 2, 3, 4]
    told = describe_transition(counts.tolist())
    values = np.repeat([10, 20, 30, 40], [1, 2, 3, 4])
    assert told["mean"] == values.mean()
    expected = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
    assert told["deciles"] == expected.tolist()
    assert describe_transition([]) is None


@pytest.mark.slow
def test_lightgcn_reaches_its_strength_on_beauty(data_dir):
    """The 80/20 split; choosing on validation; a plain LightGCN was measured at 0.125 elsewhere."""
    interactions = load(data_dir / "amazon" / "beauty.txt", seed=0)
    report = train(interactions, TrainConfig(encoder="lightgcn", method="none"), Outputs()).report
    assert report["test"]["recall@20"] >= 0.120
