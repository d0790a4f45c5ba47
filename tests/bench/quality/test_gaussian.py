"""Each part that a variant changes, by hand; and that what changes nothing is ADAR."""

import json
from dataclasses import replace

import pytest
import torch
from scipy.stats import norm
from torch.nn.functional import logsigmoid

from bench.quality.gaussian import __main__ as command
from bench.quality.gaussian import parts as gaussian
from bench.quality.gaussian.__main__ import UNIFORM, main, table, told, trained
from bench.quality.gaussian.parts import EXACT, VARIANTS, Altered, Parts
from core.chain import Law
from core.transition import Transition
from trainer.batches import Batch
from trainer.cotrain import cotrain, new_run
from trainer.defaults import config_for
from trainer.encoders import Encoded
from trainer.encoders.lookup import rows_of
from trainer.methods import Rows
from trainer.pipeline import encoder_of, picker_of

SMALL = {"epochs": 2, "eval_every": 1, "dim": 8, "batch_size": 256, "num_steps": 10}
ROWS, D = 64, 8


def altered(data, parts: Parts, **changes) -> Altered:
    config = config_for("mf", method="adar", **{**SMALL, **changes})
    diffusion = new_run(encoder_of(config, data), config, data).diffusion
    return Altered(parts, diffusion.sampler, diffusion, config, data.num_items)


@pytest.fixture
def rows(data) -> Rows:
    generator = torch.Generator().manual_seed(0)
    e_u, e_i, e_j = torch.randn(3, ROWS, D, generator=generator)
    users, items = torch.from_numpy(data.train[:ROWS]).unbind(1)
    e_u, e_i, e_j = (table.requires_grad_() for table in (e_u, e_i, e_j))
    catalogue = rows_of(torch.randn(data.num_items, D, generator=generator).requires_grad_())
    scores = (e_u * e_i).sum(-1), (e_u * e_j).sum(-1)
    return Rows(Batch(users, users, items), Encoded(e_u, catalogue), e_u, e_i, e_j, *scores)


@pytest.fixture
def law() -> Law:
    generator = torch.Generator().manual_seed(1)
    mean, std = torch.randn(2, ROWS, D, generator=generator)
    return Law(torch.arange(ROWS) % 11, mean, std.abs())


@pytest.mark.parametrize("rule", ["score_aware", "exact"])
def test_what_changes_nothing_is_adar(data, rule):
    mine, config = trained("Eq. 11 and 12", data, "mf", {**SMALL, "transition.rule": rule})
    assert config == replace(config_for("mf", method="adar", **SMALL), transition=Transition(rule))
    theirs = new_run(encoder_of(config, data), config, data)
    cotrain(theirs, data, picker_of(config, data), config)
    assert mine.history == theirs.history
    for one, other in (
        (mine.encoder, theirs.encoder),
        (mine.diffusion.sampler, theirs.diffusion.sampler),
    ):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    other, _ = trained("calibrated", data, "mf", {**SMALL})
    assert not torch.equal(mine.encoder.tables()[0], other.encoder.tables()[0])


def test_every_variant_trains(data):
    names = [UNIFORM, *VARIANTS]
    found = {name: told(*trained(name, data, "mf", SMALL)) for name in names}
    assert found[UNIFORM]["t*"] is None
    assert all(0 <= row["t*"] <= 10 for name, row in found.items() if name != UNIFORM)
    assert table(found).count("\n") == len(names) + 1
    assert "| uniform | " in table(found)


def test_a_quantile_is_of_the_users_own_scores(data, rows, monkeypatch):
    monkeypatch.setattr(gaussian, "SHOWN", 20_000)  # each of the items 250 times
    everything = rows.e_u @ rows.encoded.items(torch.arange(data.num_items)).T
    method = altered(data, Parts(EXACT))
    for at in (0.5, 0.9):
        found = gaussian.quantile(at)(method, rows.detached)
        below = (everything < found.unsqueeze(1)).float().mean(1)
        assert (below - at).abs().max() < 0.02  # 80 items, and sampling
    on_ramp = gaussian.quantile(0.5, 0.9)
    for epoch, at in ((0, 0.5), (gaussian.RAMP // 2, 0.7), (2 * gaussian.RAMP, 0.9)):
        method.begin(epoch)
        below = (everything < on_ramp(method, rows.detached).unsqueeze(1)).float().mean(1)
        assert abs(below.mean() - at) < 0.02
    assert not on_ramp(method, rows.detached).requires_grad


def test_the_hardest_of_the_draws(data, rows, law):
    method = altered(data, Parts())
    state = method.generator.get_state()
    chosen = gaussian.hardest_of(8)(method, rows, law)
    method.generator.set_state(state)
    drawn = law.draw(8, method.generator)
    scores = (drawn * rows.e_u.unsqueeze(1)).sum(-1)
    assert torch.equal((chosen * rows.e_u.unsqueeze(1)).sum(-1).squeeze(1), scores.max(1).values)
    assert not torch.equal(scores[:, 0], scores.max(1).values)


def test_forward_keeps_the_gradient_of_the_positive(data, rows, law):
    method = altered(data, Parts())
    method.sampler.item_rms.fill_(0.5)
    e_d = gaussian.forward(method, rows, law)
    (gradient,) = torch.autograd.grad(e_d.sum(), rows.e_i)
    signal = method.sampler.schedule.alpha_bar[law.transition].sqrt().float()
    torch.testing.assert_close(gradient, (gaussian.DRAWS * signal).unsqueeze(1).expand(-1, D))
    left = (e_d - signal[:, None, None] * rows.e_i.unsqueeze(1))[law.transition == 10]
    assert left.std().item() == pytest.approx(0.5, rel=0.15)  # about 190 variates, z = 3


def test_losses_by_hand(data, rows, law):
    method = altered(data, Parts())
    s_ud = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(2))
    base = -logsigmoid(rows.s_ui - rows.s_uj)
    own = -logsigmoid(rows.s_ui.unsqueeze(1) - s_ud).mean(1)
    found = gaussian.own_losses(method, rows, law, s_ud)
    torch.testing.assert_close(found, ((base + own) / 2).mean())
    seen = rows.detached
    score = (seen.e_u * law.mean).sum(1).numpy()
    deviation = ((seen.e_u * law.std) ** 2).sum(1).sqrt().numpy()
    likely = torch.from_numpy(1 - norm.cdf(seen.s_ui.numpy(), score, deviation))
    assert 0.01 < likely.mean() < 0.99
    found = gaussian.weighted(method, rows, law, s_ud)
    torch.testing.assert_close(found, ((base + likely * own) / (1 + likely)).mean().float())
    for epoch, weight in ((0, 0.3), (gaussian.RAMP // 2, 0.15), (gaussian.RAMP, 0.0)):
        method.begin(epoch)
        found = gaussian.ramped(0.3, 0.0)(method, rows, law, s_ud[:, :1])
        expected = -logsigmoid(rows.s_ui - rows.s_uj - weight * s_ud[:, 0]).mean()
        torch.testing.assert_close(found, expected)


def test_a_model_of_the_pair_learns_and_generates_under_the_same_condition(data, rows):
    seen = []
    method = altered(data, Parts({"transition.rule": "calibrated"}, condition=gaussian.on_pair))
    prepare = method.sampler.denoiser.prepare
    method.sampler.denoiser.prepare = lambda condition: seen.append(condition) or prepare(condition)
    method.learn(rows)
    method.loss(rows)
    scales = method.sampler.user_rms, method.sampler.item_rms
    wanted = rows.e_u / scales[0] + rows.e_i / scales[1]
    for condition in seen:
        torch.testing.assert_close(condition.sort(0).values, wanted.sort(0).values)
    assert len(seen) >= 2


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch, capsys):
    arguments = [UNIFORM, "calibrated", "--set", "generated", "--epochs", "1", "--out"]
    main([*arguments, str(tmp_path)])
    (file,) = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert list(kept) == [UNIFORM, "calibrated"]
    monkeypatch.setattr(command, "trained", None)
    capsys.readouterr()
    main([*arguments, str(tmp_path)])
    assert table(kept) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Eq. 99", "--set", "generated"], "no variant is called Eq. 99"),
        (["--set", "books"], "invalid choice: 'books'"),
        (["--set", "beauty"], "beauty is read from amazon/beauty.txt: name its folder"),
        (["--set", "generated", "--encoder", "bert"], "no encoder is called 'bert'"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, message, monkeypatch, capsys):
    monkeypatch.delenv("TURNPOINT_DATA", raising=False)
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err
