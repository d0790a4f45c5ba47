"""DMNS: its law in closed form against the paper's loop, by computation and by sampling."""

import pytest
import torch
from scipy import stats

from core.checkpoint import pack, unpack, warm_up
from core.errors import ConfigError
from core.noise import Noise
from core.samplers import DMNS, DMNSConfig, Generates, HasLaw, Query, draw
from tests.reference.dmns import exact_law, sampled


def make_sampler(num_steps=20, dtype=torch.float64, **config) -> DMNS:
    torch.manual_seed(5)
    sampler = DMNS(DMNSConfig(dim=6, num_steps=num_steps, **config))
    torch.nn.init.normal_(sampler.denoiser.film.weight, std=0.05)
    torch.nn.init.normal_(sampler.denoiser.film.bias, std=0.05)
    users, positives = torch.randn(2, 256, 6)
    sampler.observe(0.3 * users, 2 * positives)
    return sampler.to(dtype).eval()


def make_query(rows=8, dtype=torch.float64) -> Query:
    generator = torch.Generator().manual_seed(0)
    users, positives = torch.randn(2, rows, 6, generator=generator, dtype=dtype)
    return Query(0.3 * users, 2 * positives)


def noise_of(rows, seed=1) -> Noise:
    return Noise([torch.Generator().manual_seed(seed)], [rows])


def test_generates_and_has_no_single_law():
    assert isinstance(make_sampler(), Generates)
    assert not isinstance(make_sampler(), HasLaw)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("num_steps", [1, 2, 20, 50])
@pytest.mark.parametrize("rows", [1, 5])
def test_every_levels_law_is_that_of_the_loop(num_steps, rows, dtype, bound):
    """Two answers to one noise differ by the deviation times the difference of the noise."""
    sampler, query = make_sampler(num_steps, dtype), make_query(rows, dtype)
    twin = make_sampler(num_steps)
    condition = query.users.double() / twin.user_rms
    laws = exact_law(twin.denoiser, twin.schedule, condition)
    ends = []
    for value in (0.0, 1.0):
        constant = noise_of(rows)
        constant.normal = lambda *shape, dtype, value=value: torch.full((rows, *shape), value).to(
            dtype
        )
        ends.append(sampler.generate(query, 4, constant).negatives.double())
    for place, divisor in enumerate((10, 8, 4, 2)):
        mean, variance = laws[num_steps // divisor]
        mean, std = twin.item_rms * mean, twin.item_rms * variance.sqrt()
        assert (ends[0][:, place] - mean).norm() <= bound * mean.norm()
        assert (ends[1][:, place] - ends[0][:, place] - std).norm() <= bound * std.norm()


@pytest.mark.parametrize("place", [0, 3])
def test_draws_of_a_level_are_those_of_the_looped_ancestral_sampler(place):
    """40,000 looped draws standardised by the closed form, and 40,000 of our own, are N(0, 1).

    Kolmogorov-Smirnov rejects a 7 % error in the deviation at p < 1e-6, which is checked.
    """
    sampler = make_sampler()
    step = sampler.config.stops[place]
    user = make_query(1).users
    condition = user / sampler.user_rms
    mean, variance = exact_law(sampler.denoiser, sampler.schedule, condition)[step]
    generator = torch.Generator().manual_seed(3)
    rows = condition.expand(7_000, 6)
    z, *noise = torch.randn(22, *rows.shape, generator=generator, dtype=torch.float64)
    looped = sampled(sampler.denoiser, sampler.schedule, rows, z, noise)[step]
    ours = sampler.generate(Query(user.expand(7_000, 6), user.expand(7_000, 6)), 4, noise_of(7_000))
    for drawn in (looped, ours.negatives[:, place] / sampler.item_rms):
        standard = ((drawn - mean) / variance.sqrt()).detach().flatten().numpy()
        assert stats.kstest(standard, "norm").pvalue > 1e-4
        assert stats.kstest(standard / 1.07, "norm").pvalue < 1e-6


@pytest.mark.parametrize("n", [1, 3, 4, 6])
def test_levels_come_in_turn_the_hardest_first_with_their_weights(n):
    sampler, query = make_sampler(50), make_query(3)
    got = sampler.generate(query, n, noise_of(3))
    assert got.negatives.shape == (3, n, 6)
    levels = [(5, 1.0), (6, 0.9), (12, 0.8), (25, 0.7)]
    wanted = [levels[j % 4] for j in range(n)]
    assert got.weights.tolist()[2] == pytest.approx([weight for _, weight in wanted])
    assert got.transition.tolist() == [round(sum(step for step, _ in wanted) / n)] * 3


@pytest.mark.parametrize("num_steps", [1, 20])
@pytest.mark.parametrize("n", [1, 4])
def test_a_batch_of_8_is_8_singles(num_steps, n):
    sampler, query = make_sampler(num_steps), make_query(8)
    generators = [torch.Generator().manual_seed(seed) for seed in range(8)]
    together = sampler.generate(query, n, Noise(generators, [1] * 8))
    for row in range(8):
        one = slice(row, row + 1)
        single = sampler.generate(
            Query(query.users[one], query.positives[one]), n, noise_of(1, seed=row)
        )
        assert torch.allclose(single.negatives[0], together.negatives[row], rtol=1e-9)


def test_training_lowers_the_loss_and_recovers_the_data():
    """On N(m, s^2) given one user, T = 200: the state at t = 0 has that law, to a few per cent."""
    torch.manual_seed(0)
    sampler = DMNS(DMNSConfig(dim=2, num_steps=200, divisors=(1000,), weights=(1.0,)))
    mean, std = torch.tensor([1.0, -0.5]), torch.tensor([0.3, 0.8])
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=3e-3)
    users = torch.ones(2048, 2)
    losses = []
    for _ in range(600):
        positives = mean + std * torch.randn(2048, 2, generator=generator)
        loss = sampler.loss(users, positives, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    drawn = sampler.generate(Query(users, users), 8, noise_of(2048)).negatives.flatten(0, 1)
    assert sum(losses[-50:]) < 0.9 * sum(losses[:50])
    assert torch.allclose(drawn.mean(0), mean, atol=0.1)
    assert torch.allclose(drawn.std(0), std, atol=0.1)


def test_a_checkpoint_comes_back():
    sampler = make_sampler(dtype=torch.float32)
    back, manifest = unpack(pack(sampler))
    assert manifest.method == "dmns"
    assert isinstance(back, DMNS)
    assert back.config == sampler.config
    warm_up(back)
    query, generators = make_query(5, torch.float32), [torch.Generator() for _ in range(2)]
    one, two = (draw(s, query, 4, g) for s, g in zip((sampler, back), generators, strict=True))
    assert torch.equal(one.negatives, two.negatives)
    assert torch.equal(one.weights, two.weights)


@pytest.mark.parametrize(
    "values",
    [{"divisors": (2,)}, {"divisors": (0, 1, 2, 4)}, {"weights": (1.0, 1.1, 0.5, 0.5)}],
)
def test_refuses_levels_that_do_not_fit(values):
    with pytest.raises(ConfigError, match="divisors = "):
        DMNSConfig(dim=4, **values)


def test_refuses_bad_sizes():
    with pytest.raises(ConfigError, match="dim = 0"):
        DMNS(DMNSConfig(dim=0))
