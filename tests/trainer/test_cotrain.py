"""Algorithm 1 on a small generated data set."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import CheckpointCorruptError, ConfigError
from core.transition import RULES, Transition
from trainer import synthetic
from trainer.config import TrainConfig
from trainer.cotrain import Watcher, cotrain, new_run
from trainer.data import Interactions
from trainer.encoders import ENCODERS, Encoded, Encoder, Options, make
from trainer.evaluate import evaluate
from trainer.run import STATE_FILE, Run
from trainer.sampling import PICKERS, UniformNegatives, make_picker
from trainer.split import split_off_test, split_off_valid

CONFIG = TrainConfig(
    encoder="mf", method="adar", dim=8, epochs=4, batch_size=256, eval_every=1, num_steps=10
)


@pytest.fixture(scope="module")
def data() -> Interactions:
    torch.set_num_threads(1)
    return small_data()


def small_data() -> Interactions:
    rng = np.random.default_rng(0)
    pairs = synthetic.generate(num_users=120, num_items=80, mean_items=12.0, seed=0)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    train, test = split_off_test(pairs, 0.2, rng)
    train, valid = split_off_valid(train, 0.1, rng)
    labels = [np.arange(size).astype(str) for size in (120, 80)]
    features = synthetic.features(num_users=120, num_items=80, seed=0)
    return Interactions("small", 120, 80, train, valid, test, *labels, features=features)


def run_of(data: Interactions, config: TrainConfig, watcher: Watcher | None = None) -> Run:
    run = new_run(encoder_of(data, config), config)
    picker = make_picker(config.negatives, data, config.device)
    return cotrain(run, data, picker, config, watcher)


def encoder_of(data: Interactions, config: TrainConfig, seed: int = 0) -> Encoder:
    return make(config.encoder, data, config.dim, seed, Options(config.dropout))


def same_weights(a: Run, b: Run) -> bool:
    pairs = zip(a._weights().items(), b._weights().items(), strict=True)
    return all(n == m and torch.equal(v, w) for (n, v), (m, w) in pairs)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_weight_zero_trains_the_encoder_exactly_as_no_method_does(data, encoder):
    """The diffusion has its own generator: batches, e_j and dropout are the same without it."""
    config = replace(CONFIG, encoder=encoder, dropout=0.3, epochs=2)
    plain = run_of(data, replace(config, method="none"))
    with_zero = run_of(data, replace(config, weight=0.0))
    with_some = run_of(data, replace(config, weight=0.5))
    tables = [torch.cat(run.encoder.tables()) for run in (plain, with_zero, with_some)]
    assert torch.equal(tables[0], tables[1])
    assert not torch.allclose(tables[0], tables[2])


def test_plain_training_is_bpr_by_hand(data):
    """One epoch against a loop that is written out here."""
    config = replace(CONFIG, method="none", epochs=1)
    run = run_of(data, config)
    torch.manual_seed(config.seed)
    encoder = make("mf", data, config.dim, config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    source = UniformNegatives(data.train, data.num_users, data.num_items)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=config.learning_rate)
    pairs = torch.from_numpy(data.train)
    for rows in torch.randperm(len(pairs), generator=generator).split(config.batch_size):
        users, items = pairs[rows].unbind(1)
        others = source.sample(users, generator)
        margin = (encoder.users[users] * (encoder.items[items] - encoder.items[others])).sum(-1)
        loss = -torch.nn.functional.logsigmoid(margin).mean()
        loss = loss + config.l2 * encoder.penalty(users, torch.cat([items, others]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for ours, theirs in zip(run.encoder.tables(), encoder.tables(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("negatives", PICKERS)
def test_every_encoder_trains_with_every_picker_and_adar(data, encoder, negatives):
    config = replace(CONFIG, encoder=encoder, negatives=negatives, epochs=1, dropout=0.1)
    ticks = []
    run = run_of(data, config, Watcher(on_step=ticks.append))
    assert all(loss.isfinite() for tick in ticks for loss in tick.losses.values())
    assert torch.cat(run.encoder.tables()).isfinite().all()
    assert ("auxiliary" in ticks[0].losses) == (encoder == "cl4srec")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_every_rule_and_denoiser_trains(data, rule, denoiser):
    config = replace(
        CONFIG, epochs=2, denoiser=denoiser, transition=replace(CONFIG.transition, rule=rule)
    )
    ticks = []
    run = run_of(data, config, Watcher(on_step=ticks.append))
    assert all(loss.isfinite() for tick in ticks for loss in tick.losses.values())
    assert sum(run.best_histogram) == len(data.train)
    assert len(run.best_histogram) == config.num_steps + 1
    assert int(run.diffusion.sampler.batches) == len(ticks)


def test_every_sampler_setting_reaches_the_sampler():
    changed = {
        "dim": 5,
        "num_steps": 7,
        "schedule": "cosine",
        "denoiser": "moment",
        "reconstruction": "chain",
        "standardize": False,
        "ancestral": True,
        "transition": Transition("exact", hardness=0.7),
    }
    sampler = TrainConfig(**changed).sampler()
    assert {name: getattr(sampler, name) for name in changed} == changed
    assert changed.keys() | {"hidden"} == {field.name for field in fields(sampler)}


@pytest.mark.parametrize("num_steps", [1, 2])
@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_one_step_chains_train(data, num_steps, denoiser):
    run = run_of(data, replace(CONFIG, epochs=1, num_steps=num_steps, denoiser=denoiser))
    assert torch.cat(run.encoder.tables()).isfinite().all()


def test_the_diffusion_learns_beside_the_encoder(data):
    """Its loss ends below that of the same sampler, scales included, untrained."""
    config = replace(
        CONFIG, encoder="lightgcn", epochs=100, patience=100, diffusion_learning_rate=5e-3
    )
    run = run_of(data, config)
    users, items = run.encoder.tables()
    users_of, items_of = torch.from_numpy(data.train).unbind(1)
    e_u, e_i = users[users_of], items[items_of]
    trained, fresh = run.diffusion.sampler, new_run(run.encoder, config).diffusion.sampler
    for _ in range(200):
        fresh.observe(e_u, e_i, e_i)
    losses = [
        sampler.loss(
            e_u.repeat(10, 1), e_i.repeat(10, 1), torch.Generator().manual_seed(0)
        ).noise.item()
        for sampler in (trained, fresh)
    ]
    assert losses[0] < 0.9 * losses[1]


def test_the_encoder_learns(data):
    run = run_of(data, replace(CONFIG, epochs=30, learning_rate=1e-2, patience=100))
    run.restore_best()
    fresh = make("mf", data, CONFIG.dim, 0)
    learnt, untrained = (
        evaluate(*encoder.tables(), data, "test")["recall@20"] for encoder in (run.encoder, fresh)
    )
    assert learnt > untrained + 0.1


def test_stops_when_validation_no_longer_improves_and_keeps_the_best(data):
    config = replace(CONFIG, epochs=500, learning_rate=0.1, l2=0.0, patience=3)
    run = run_of(data, config)
    assert run.epoch == run.best_epoch + 3
    values = [entry[config.metric] for entry in run.history]
    assert max(values) == run.best_metric == values[run.best_epoch - 1]
    run.restore_best()
    assert evaluate(*run.encoder.tables(), data, "valid")[config.metric] == run.best_metric


class OwnEncoder(nn.Module):
    """What a user writes to bring a model: here, items share their first half with a user tower."""

    def __init__(self, num_users: int, num_items: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.user_table = nn.Embedding(num_users, dim)
        self.item_table = nn.Embedding(num_items, dim)
        self.tower = nn.Linear(dim, dim)

    def encode(self, users):
        return Encoded(self.tower(self.user_table(users)), self.item_table)

    def penalty(self, users, items):
        return self.item_table(items).square().sum() / len(users)

    @torch.no_grad()
    def tables(self, split="test"):
        return self.tower(self.user_table.weight), self.item_table.weight


def test_a_users_own_module_is_an_encoder(data):
    encoder = OwnEncoder(data.num_users, data.num_items, CONFIG.dim)
    assert isinstance(encoder, Encoder)
    run = cotrain(new_run(encoder, CONFIG), data, make_picker("uniform", data), CONFIG)
    assert run.epoch == CONFIG.epochs


@pytest.mark.parametrize("encoder", ["mf", "lightgcn", "ngcf", "vbpr", "gru4rec", "cl4srec"])
@pytest.mark.parametrize("method", ["none", "adar"])
def test_a_resumed_run_equals_an_uninterrupted_one(data, tmp_path, encoder, method):
    """Dropout, augmentations and candidates included."""
    config = replace(CONFIG, encoder=encoder, method=method, dropout=0.3, negatives="mixgcf")
    whole = run_of(data, config)
    half = replace(config, epochs=2)
    run_of(data, half).save(tmp_path, half.as_dict())
    torch.manual_seed(99)  # another process would not have our random state
    resumed = new_run(encoder_of(data, config, seed=1), config)
    assert resumed.load(tmp_path, config.as_dict())
    cotrain(resumed, data, make_picker(config.negatives, data), config)
    assert resumed.epoch == whole.epoch == 4
    assert same_weights(resumed, whole)
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    for name, tensor in whole.best_state.items():
        assert torch.equal(tensor, resumed.best_state[name])


def test_no_state_means_a_fresh_run(data, tmp_path):
    run = new_run(make("mf", data, 8, 0), CONFIG)
    assert not run.load(tmp_path / "nowhere", CONFIG.as_dict())


def test_another_runs_state_is_refused_by_name(data, tmp_path):
    run_of(data, replace(CONFIG, epochs=1)).save(tmp_path, replace(CONFIG, epochs=1).as_dict())
    other = replace(CONFIG, seed=5, weight=0.4)
    with pytest.raises(ConfigError, match=r"seed: 0 there, 5 now; weight: 0.1 there, 0.4 now"):
        new_run(make("mf", data, 8, 0), other).load(tmp_path, other.as_dict())


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_state_is_refused(data, tmp_path, keep):
    config = replace(CONFIG, epochs=1)
    run_of(data, config).save(tmp_path, config.as_dict())
    file = tmp_path / STATE_FILE
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointCorruptError, match="cannot be read"):
        new_run(make("mf", data, 8, 0), config).load(tmp_path, config.as_dict())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "gan"}, "method = 'gan'; known: none, adar, cnsdiff, dmns, gdnsm, catalogue"),
        ({"weight": 1.5}, "weight = 1.5; lambda"),
        ({"weight": float("nan")}, "weight = nan"),
        ({"epochs": 0}, "epochs = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0"),
        ({"diffusion_learning_rate": -1.0}, "diffusion_learning_rate = -1.0"),
        ({"l2": -1.0}, "l2 = -1.0"),
        ({"candidates": 0}, "candidates = 0"),
    ],
)
def test_refuses_bad_configurations(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**values)


def test_refuses_an_unknown_picker(data):
    with pytest.raises(ConfigError, match="negatives = 'popular'; known: uniform, popularity"):
        make_picker("popular", data)
