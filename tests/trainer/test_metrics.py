"""What Prometheus sees of a training run: the truth, at any time, at no cost to the run."""

import math
import socket
import urllib.request
from dataclasses import replace

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from core.errors import CheckpointError, ConfigError
from tests.trainer.test_cotrain import CONFIG, data, run_of, same_weights  # noqa: F401
from trainer import metrics as module
from trainer.cotrain import Tick, Watcher, together
from trainer.metrics import TrainerMetrics
from trainer.pipeline import Outputs, train


def page(address: str) -> dict[str, float]:
    """name{labels} -> value."""
    with urllib.request.urlopen(address, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            sample.name.removeprefix("turnpoint_trainer_") + "".join(sample.labels.values()): (
                sample.value
            )
            for family in families
            for sample in family.samples
            if sample.name.startswith("turnpoint_")
        }


def test_a_run_is_counted(data, tmp_path):  # noqa: F811
    metrics, ticks = TrainerMetrics(), []
    outputs = Outputs(registry=str(tmp_path), publish_every=2)
    with metrics.served("127.0.0.1", 0) as address:
        before = page(address)
        train(data, CONFIG, outputs, together(metrics.watcher, Watcher(on_step=ticks.append)))
        after = page(address)
    assert set(before) == set(after) - {
        f"{name}{part}" for name in ("loss", "nonfinite_total") for part in ("encoder", "diffusion")
    }
    assert before["steps_total"] == before["publish_totalok"] == 0
    assert after["steps_total"] == len(ticks) == 4 * ticks[0].steps
    assert after["pairs_total"] == 4 * len(data.train)
    assert after["publish_totalok"] == 3
    assert after["publish_totalrefused"] == after["publish_totalfailed"] == 0
    for part in ("encoder", "diffusion"):
        assert after[f"loss{part}"] == float(ticks[-1].losses[part])
        assert after[f"nonfinite_total{part}"] == 0


def test_being_watched_changes_nothing(data):  # noqa: F811
    assert same_weights(run_of(data, CONFIG), run_of(data, CONFIG, TrainerMetrics().watcher))


def test_lag_is_since_the_last_publication(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    metrics = TrainerMetrics()

    def lag() -> float:
        return metrics.registry.get_sample_value("turnpoint_trainer_lag_seconds")

    clock[0] = 130.0
    assert lag() == 30
    metrics.watcher.on_publish("refused", "not finite")
    assert lag() == 30
    metrics.watcher.on_publish("ok", "1")
    clock[0] = 131.0
    assert lag() == 1


def test_one_step_that_is_not_finite_stays_in_the_count():
    metrics = TrainerMetrics()
    values = [1.0, math.nan, math.inf, 2.0]
    for step, value in enumerate(values):
        losses = {"encoder": torch.tensor(value), "diffusion": torch.tensor(1.0)}
        metrics.watcher.on_step(Tick(0, step, 4, 8, losses))
    value = metrics.registry.get_sample_value
    assert value("turnpoint_trainer_nonfinite_total", {"part": "encoder"}) == 2
    assert value("turnpoint_trainer_nonfinite_total", {"part": "diffusion"}) == 0
    assert value("turnpoint_trainer_loss", {"part": "encoder"}) == 2
    assert value("turnpoint_trainer_pairs_total") == 32


def test_a_run_that_diverges_shows_it_and_publishes_nothing(data, tmp_path):  # noqa: F811
    metrics = TrainerMetrics()
    wild = replace(CONFIG, diffusion_learning_rate=1e30)
    outputs = Outputs(registry=str(tmp_path), publish_every=1)
    with pytest.raises(CheckpointError):
        train(data, wild, outputs, metrics.watcher)
    value = metrics.registry.get_sample_value
    assert value("turnpoint_trainer_nonfinite_total", {"part": "diffusion"}) > 0
    assert value("turnpoint_trainer_publish_total", {"result": "refused"}) == 5  # 4 and the last
    assert not list(tmp_path.iterdir())


def test_a_registry_that_fails_for_a_while_does_not_end_the_run(
    data,  # noqa: F811
    tmp_path,
):
    place = tmp_path / "registry"
    place.write_text("a file where the folder should be")
    told = []

    def mend(result: str, why: str) -> None:
        told.append(result)
        if place.is_file():
            place.unlink()

    outputs = Outputs(registry=str(place), publish_every=2)
    result = train(data, CONFIG, outputs, Watcher(on_publish=mend))
    assert told == ["failed", "ok", "ok"]
    assert len(result.report["versions"]["published"]) == 2


def test_a_port_that_is_taken_is_one_readable_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = f"metrics on 127.0.0.1:{port}: .*in use; choose another with --metrics-host"
        with (
            pytest.raises(ConfigError, match=told),
            TrainerMetrics().served("127.0.0.1", port),
        ):
            pass
