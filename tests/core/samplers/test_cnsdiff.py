"""CNSDiff: schedule, weights and KL by hand; its chains against a loop; the adjustment."""

import math

import pytest
import torch

from core.checkpoint import pack, unpack, warm_up
from core.errors import ConfigError
from core.noise import Noise
from core.samplers import CNSDiff, CNSDiffConfig, Generates, Query, draw
from core.samplers.cnsdiff import VARIANTS, gaussian_kl
from core.schedule import linear_variance
from tests.reference import cnsdiff as reference


def make_sampler(variant="causal", num_steps=20, dtype=torch.float64, **config) -> CNSDiff:
    torch.manual_seed(5)
    sampler = CNSDiff(CNSDiffConfig(6, num_steps, variant, hidden=8, **config))
    torch.nn.init.normal_(sampler.denoiser.strata)
    sampler = sampler.to(dtype).eval()
    sampler.expose(torch.arange(1, sampler.strata + 1))
    return sampler


def make_query(rows=8, dtype=torch.float64, **conditions) -> Query:
    generator = torch.Generator().manual_seed(0)
    users, positives = 0.1 * torch.randn(2, rows, 6, generator=generator, dtype=dtype)
    return Query(users, positives, **conditions)


def noise_of(rows, seed=1) -> Noise:
    return Noise([torch.Generator().manual_seed(seed)], [rows])


def test_the_schedule_by_hand():
    schedule = linear_variance(3, 0.1, 0.3)
    assert schedule.alpha_bar.tolist() == pytest.approx([1, 0.9, 0.8, 0.7])
    assert schedule.alpha.tolist() == pytest.approx([1, 0.9, 8 / 9, 7 / 8])
    assert schedule.snr.tolist() == pytest.approx([math.inf, 9, 4, 7 / 3])
    # Ho et al. (2020), Eq. 7 at t = 2: beta_2 = 1/9.
    of_clean, of_state = schedule.posterior_mean
    assert float(of_clean[2]) == pytest.approx(math.sqrt(0.9) * (1 / 9) / 0.2)
    assert float(of_state[2]) == pytest.approx(math.sqrt(8 / 9) * 0.1 / 0.2)
    assert float(schedule.ancestral_variance[2]) == pytest.approx((1 / 9) * 0.1 / 0.2)
    ends = linear_variance(20).alpha_bar
    assert (1 - ends[1]).item() == pytest.approx(1e-5)
    assert (1 - ends[20]).item() == pytest.approx(2e-3)


def test_weights_and_variances_by_hand():
    sampler = make_sampler(num_steps=3)
    left = [1e-5, 1.005e-3, 2e-3]
    snr = [(1 - v) / v for v in left]
    assert sampler.loss_weight[1:].tolist() == pytest.approx([1, snr[0] - snr[1], snr[1] - snr[2]])
    second = (1 - (1 - left[1]) / (1 - left[0])) * left[0] / left[1]
    third = (1 - (1 - left[2]) / (1 - left[1])) * left[1] / left[2]
    assert sampler.variance[1:].tolist() == pytest.approx([second, second, third])
    assert make_sampler(num_steps=1).variance[1].item() == pytest.approx(1e-5)


def test_kl_by_hand():
    told = gaussian_kl(*(torch.full((1, 1), float(v)) for v in (1.0, 4.0, -1.0, 2.0)))
    assert told.item() == pytest.approx(0.5 * (math.log(2 / 4) + 4 / 2 - 1 + 2**2 / 2))
    same = torch.ones(1, 1)
    assert gaussian_kl(same, same, same, same).item() == 0
    p, q = torch.distributions.Normal(0.3, 1.5), torch.distributions.Normal(-1.0, 0.4)
    parts = (torch.full((1, 1), v) for v in (0.3, 1.5**2, -1.0, 0.4**2))
    expected = torch.distributions.kl_divergence(p, q).item()
    assert gaussian_kl(*parts).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 20])
def test_the_loss_by_hand_without_dropout(num_steps):
    """Row by row, from the same t and noise."""
    sampler = make_sampler(num_steps=num_steps, dropout=0.0)
    positives = make_query(16).positives
    popularity = torch.arange(16) % 5
    got = sampler.loss(positives, torch.Generator().manual_seed(2), popularity)
    sampler.requires_grad_(requires_grad=False)  # what is below are numbers
    generator = torch.Generator().manual_seed(2)
    steps = torch.randint(1, num_steps + 1, (16,), generator=generator)
    noise = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    reconstruction, causal = [], []
    for x_0, t, eps, stratum in zip(positives, steps.tolist(), noise, popularity, strict=True):
        x_t = reference.noised(sampler, x_0, t, eps)
        predicted = reference.predicted(sampler, x_t, t, int(stratum))
        reconstruction.append(sampler.loss_weight[t] * (x_0 - predicted).square().mean())
        other = reference.noised(sampler, x_0, max(t - 1, 1), eps)
        ahead = 1.0 if t == 1 else sampler.variance[t - 1]
        v = sampler.variance[t]
        kl = 0.5 * (math.log(ahead / v) + v / ahead - 1 + (predicted - other).square() / ahead)
        causal.append(0.1 * kl.mean())
    assert got.reconstruction.item() == pytest.approx(float(sum(reconstruction)) / 16, rel=1e-9)
    assert got.causal.item() == pytest.approx(float(sum(causal)) / 16, rel=1e-6)
    assert got.total.item() == pytest.approx((got.reconstruction + got.causal).item())


def test_dropout_keeps_its_share_and_comes_from_the_generator():
    sampler, positives = make_sampler(), make_query(64).positives
    one, two, other = (
        sampler.loss(positives, torch.Generator().manual_seed(seed), None).total.item()
        for seed in (1, 1, 2)
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_steps", [1, 2, 20])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("n", [1, 3])
def test_the_hardest_candidate_of_the_looped_chain_is_the_negative(variant, num_steps, rows, n):
    sampler, query = make_sampler(variant, num_steps), make_query(rows)
    got = sampler.generate(query, n, noise_of(rows))
    shape = (n, 3, 6) if variant == "released" else (n, 6)
    z = noise_of(rows).normal(*shape, dtype=torch.float64)
    chain = reference.released if variant == "released" else reference.described
    for row in range(rows):
        taken = []
        for j in range(n):
            candidates = chain(sampler, query.positives[row], z[row, j])
            best = int((candidates @ query.users[row]).argmax())
            assert torch.allclose(got.negatives[row, j], candidates[best], rtol=1e-9, atol=1e-12)
            taken.append(sampler.config.levels[best])
        assert got.transition[row] == round(sum(taken) / n)


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_change_nothing_and_a_batch_of_8_is_8_singles(variant, monkeypatch):
    sampler, query = make_sampler(variant), make_query(8)
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    monkeypatch.setattr("core.samplers.cnsdiff.CHUNK_ROWS", 6)
    together = sampler.generate(query, 2, Noise(generators, [1] * 8))
    for row in range(8):
        one = slice(row, row + 1)
        alone = Query(query.users[one], query.positives[one])
        single = sampler.generate(alone, 2, noise_of(1, seed=row))
        assert torch.allclose(single.negatives[0], together.negatives[row], rtol=1e-9)


def test_a_stratum_conditions_and_the_adjustment_averages_over_all_of_them():
    """With P(E) all on one stratum the adjusted chain is the one conditioned on it."""
    sampler = make_sampler()
    for stratum in (0, 4):
        given = torch.full((8,), stratum)
        conditioned = sampler.generate(make_query(8, popularity=given), 2, noise_of(8))
        sampler.expose(torch.nn.functional.one_hot(torch.tensor(stratum), 5))
        adjusted = sampler.generate(make_query(8), 2, noise_of(8))
        assert torch.allclose(conditioned.negatives, adjusted.negatives, rtol=1e-9)
    sampler.expose(torch.ones(5, dtype=torch.int64))
    averaged = sampler.generate(make_query(8), 2, noise_of(8))
    assert not torch.allclose(averaged.negatives, adjusted.negatives, rtol=1e-3)


def test_training_learns_what_a_stratum_does_to_length():
    """The input is normalised, so only the stratum can tell how long x_0 was (T = 1: all of it)."""
    torch.manual_seed(0)
    sampler = CNSDiff(CNSDiffConfig(4, 1, "causal", strata=2, hidden=16, dropout=0.0))
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=1e-2)
    direction = torch.nn.functional.normalize(torch.randn(512, 4, generator=generator), dim=1)
    popularity = torch.arange(512) % 2
    positives = direction * torch.tensor([0.5, 2.0])[popularity, None]
    for _ in range(400):
        loss = sampler.loss(positives, generator, popularity).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    lengths = []
    for stratum in (0, 1):
        query = Query(positives, positives, popularity=torch.full((512,), stratum))
        lengths.append(sampler.generate(query, 1, noise_of(512)).negatives.norm(dim=-1).mean())
    between = sampler.generate(Query(positives, positives), 1, noise_of(512)).negatives
    assert lengths[0] < 0.8 < 1.2 < lengths[1]
    assert lengths[0] < between.norm(dim=-1).mean() < lengths[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_checkpoint_comes_back(variant):
    sampler = make_sampler(variant, dtype=torch.float32)
    back, manifest = unpack(pack(sampler))
    assert manifest.method == "cnsdiff"
    assert manifest.denoiser == variant
    assert back.config == sampler.config
    assert isinstance(back, Generates)
    assert ("popularity" in back.inputs) == (variant == "causal")
    assert torch.equal(back.exposure, sampler.exposure)
    warm_up(back)
    query = make_query(5, torch.float32)
    one, two = (draw(s, query, 2, torch.Generator().manual_seed(1)) for s in (sampler, back))
    assert torch.equal(one.negatives, two.negatives)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"variant": "literal"}, "variant = 'literal'; known: released, described, causal"),
        ({"strata": 0}, "strata = 0"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"num_steps": 0}, "num_steps = 0"),
    ],
)
def test_refuses_bad_configs(values, message):
    with pytest.raises(ConfigError, match=message):
        CNSDiff(CNSDiffConfig(dim=4, **values))
