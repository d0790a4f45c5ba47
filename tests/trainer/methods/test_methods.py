"""Every method in the loop: it trains, resumes, leaves the encoder's randomness be, publishes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.checkpoint import unpack
from core.errors import ConfigError
from core.registry import Registry
from core.samplers import METHODS, Query, TakesFeatures, draw
from core.transition import Transition
from tests.trainer.test_cotrain import CONFIG, same_weights
from tests.trainer.test_cotrain import data as plain_data  # noqa: F401
from trainer.config import TrainConfig
from trainer.cotrain import Watcher, cotrain, new_run
from trainer.data import Interactions
from trainer.encoders import Options, make
from trainer.pipeline import Outputs, train
from trainer.run import Run
from trainer.sampling import make_picker

CASES = {
    "adar": {},
    "dmns": {},
    "cnsdiff": {"cnsdiff_variant": "causal"},
    "described": {"method": "cnsdiff", "cnsdiff_variant": "described"},
    "released": {"method": "cnsdiff", "cnsdiff_variant": "released"},
    "gdnsm": {"gdnsm_start": 1},
    "gdnsm linear, ddim": {
        "method": "gdnsm",
        "gdnsm_start": 0,
        "gdnsm_denoiser": "linear",
        "ddim_steps": 3,
    },
}

LOOPS = {**CASES, "catalogue": {"transition": Transition("random")}}  # one has nothing to train


class StoppedError(Exception):
    """A run is killed."""


@pytest.fixture(scope="module")
def data(plain_data) -> Interactions:  # noqa: F811
    return featured(plain_data)


def featured(data: Interactions) -> Interactions:
    rng = np.random.default_rng(0)
    shapes = {"image": (80, 3), "audio": (80, 5)}
    features = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return replace(data, features=features)


def config_of(case: str, **changes) -> TrainConfig:
    return replace(CONFIG, **{"method": case, **LOOPS.get(case, {}), **changes})


def start(data: Interactions, config: TrainConfig, seed: int = 0) -> Run:
    encoder = make(config.encoder, data, config.dim, seed, Options(config.dropout))
    return new_run(encoder, config, data)


def go_on(run: Run, data: Interactions, config: TrainConfig, watcher: Watcher | None = None) -> Run:
    return cotrain(run, data, make_picker(config.negatives, data), config, watcher)


def test_every_method_is_here():
    assert {config_of(case).method for case in LOOPS} == set(METHODS)


@pytest.mark.parametrize("case", LOOPS)
@pytest.mark.parametrize("encoder", ["mf", "lightgcn", "gru4rec"])
def test_trains_and_meets_the_encoders_own_batches(data, case, encoder):
    """Its randomness is its own: the encoder's generators end where no method leaves them."""
    config = config_of(case, encoder=encoder, dropout=0.2, epochs=2, num_steps=10)
    ticks = []
    run = go_on(start(data, config), data, config, Watcher(on_step=ticks.append))
    end = torch.get_rng_state()
    assert all(loss.isfinite() for tick in ticks for loss in tick.losses.values())
    assert torch.cat(run.encoder.tables()).isfinite().all()
    told = [name for name in run.history[-1] if name.startswith(("cosine", "margin", "hardness"))]
    assert len(told) in {3, 6, 9, 12}
    assert all(np.isfinite(run.history[-1][name]) for name in told)
    plain = replace(config, method="none")
    alone = go_on(start(data, plain), data, plain)
    assert torch.equal(alone.generator.get_state(), run.generator.get_state())
    assert torch.equal(torch.get_rng_state(), end)
    assert not same_weights_of_encoders(alone, run)


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("case", LOOPS)
def test_one_step_chains_train(data, case, num_steps):
    steps = {"ddim_steps": 1} if "ddim" in case else {}
    config = config_of(case, epochs=2, num_steps=num_steps, **steps)
    run = go_on(start(data, config), data, config)
    assert torch.cat(run.encoder.tables()).isfinite().all()


@pytest.mark.parametrize("case", LOOPS)
def test_a_killed_run_resumes_to_the_uninterrupted_one(data, tmp_path, case):
    picker = "uniform" if case == "catalogue" else "mixgcf"  # catalogue takes no other
    config = config_of(case, dropout=0.3, negatives=picker, encoder="lightgcn")
    whole = go_on(start(data, config), data, config)

    def save_and_stop(run, *_):
        run.save(tmp_path, config.as_dict())
        if run.epoch == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        go_on(start(data, config), data, config, Watcher(on_epoch=save_and_stop))
    torch.manual_seed(99)  # another process would not have our random state
    resumed = start(data, config, seed=1)
    assert resumed.load(tmp_path, config.as_dict())
    go_on(resumed, data, config)
    assert resumed.epoch == 4
    assert same_weights(resumed, whole)
    assert resumed.history == whole.history


@pytest.mark.parametrize("case", CASES)
def test_publishes_what_a_service_can_draw_from(data, tmp_path, case):
    config = config_of(case, epochs=2)
    report = train(data, config, Outputs(registry=str(tmp_path), model="m")).report
    (version,) = report["versions"]["published"]
    sampler, manifest = unpack(Registry(tmp_path).read("m", version))
    assert manifest.method == config.method
    assert manifest.config["training"]["method"] == config.method
    users, positives = torch.randn(2, 3, 8)
    features = {}
    if isinstance(sampler, TakesFeatures):
        features = {name: torch.randn(3, width) for name, width in sampler.features.items()}
    query = Query(users, positives, item_features=features)
    drawn = draw(sampler, query, 5, torch.Generator())
    assert drawn.negatives.shape == (3, 5, 8)
    assert drawn.negatives.isfinite().all()
    assert report["transition"] is not None


@pytest.mark.parametrize("case", ["adar", "dmns", "described", "gdnsm"])
def test_the_diffusion_takes_as_many_steps_as_asked(data, case):
    counts = {}
    for steps in (1, 3):
        config = config_of(case, epochs=1, diffusion_steps=steps)
        run = go_on(start(data, config), data, config)
        state = run.diffusion.optimizer.state_dict()["state"]
        counts[steps] = next(iter(state.values()))["step"].item()
    assert counts[3] == 3 * counts[1]


def test_gdnsm_without_features_is_refused(plain_data):  # noqa: F811
    without = replace(plain_data, features={})
    with pytest.raises(ConfigError, match="needs features of items"):
        start(without, config_of("gdnsm"))
    with pytest.raises(ConfigError, match="needs the interactions"):
        new_run(make("mf", plain_data, 8, 0), config_of("gdnsm"))


def same_weights_of_encoders(a: Run, b: Run) -> bool:
    pairs = zip(a.encoder.tables(), b.encoder.tables(), strict=True)
    return all(torch.equal(v, w) for v, w in pairs)


def test_gdnsm_before_its_queue_opens_is_plain_training(data):
    config = config_of("gdnsm", gdnsm_start=5)
    plain = replace(config, method="none")
    runs = [go_on(start(data, c), data, c) for c in (config, plain)]
    assert same_weights_of_encoders(*runs)
    longer = replace(config, epochs=6, patience=10)
    runs = [go_on(start(data, c), data, c) for c in (longer, replace(longer, method="none"))]
    assert not same_weights_of_encoders(*runs)


def test_only_the_released_variants_denoiser_stays_as_it_began(data):
    for variant in ("released", "described", "causal"):
        config = config_of("cnsdiff", cnsdiff_variant=variant, epochs=1)
        run = start(data, config)
        before = {k: v.clone() for k, v in run.diffusion.sampler.denoiser.state_dict().items()}
        go_on(run, data, config)
        after = run.diffusion.sampler.denoiser.state_dict()
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (variant == "released")
