import pytest
import torch
from scipy import stats

from core import chain
from core.schedule import SCHEDULES, make_schedule
from core.transition import mixed_stops
from tests.core.conftest import make_denoiser
from tests.core.test_denoiser import Optimal
from tests.reference.looped import ancestral_chain, looped_chain

KINDS = ["film", "moment"]
STEPS = [1, 2, 20, 50]
DTYPES = [(torch.float64, 1e-10), (torch.float32, 1e-4)]


def relative(got: torch.Tensor, reference: torch.Tensor) -> float:
    return float((got.double() - reference).norm() / reference.norm())


def affine_states(denoiser, schedule, condition):
    """(A_t, B_t) for every t, A_t with its sign, from two runs of the loop."""
    zero = looped_chain(denoiser, schedule, condition, torch.zeros_like(condition))
    one = looped_chain(denoiser, schedule, condition, torch.ones_like(condition))
    return {t: (one[t] - zero[t], zero[t]) for t in zero}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("dtype", "bound"), DTYPES)
def test_collapsed_equals_looped(kind, num_steps, rows, dtype, bound, generator):
    """x_t = A_t z + B_t for every t; A_t is rebuilt with its sign from the steps' factors."""
    schedule = make_schedule("linear", num_steps)
    users, z = torch.randn(2, rows, 6, generator=generator, dtype=torch.float64)
    reference = looped_chain(make_denoiser(kind, schedule, 6), schedule, users, z)
    denoiser = make_denoiser(kind, schedule, 6, dtype)
    gain = torch.ones(rows, 6, dtype=dtype)
    seen = []
    for step in chain.reverse(denoiser, schedule, users.to(dtype)):
        gain = gain * step.factor
        assert relative(gain * z.to(dtype) + step.mean, reference[step.t]) <= bound
        assert relative(step.variance, gain.double().square()) <= bound
        seen.append(step.t)
    assert seen == list(range(num_steps, -1, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind, generator, monkeypatch):
    schedule = make_schedule("linear", 20)
    denoiser = make_denoiser(kind, schedule, 6)
    users = torch.randn(11, 6, generator=generator, dtype=torch.float64)
    transition = torch.randint(0, 21, (11,), generator=generator)
    whole = chain.at_step(denoiser, schedule, users, transition)
    monkeypatch.setattr(chain, "CPU_CHUNK_ROWS", 4)
    parts = chain.at_step(denoiser, schedule, users, transition)
    assert torch.allclose(whole.mean, parts.mean, rtol=1e-12)
    assert torch.allclose(whole.std, parts.std, rtol=1e-12)


def test_only_the_steps_that_are_needed_run(generator):
    schedule = make_schedule("linear", 50)
    denoiser = make_denoiser("film", schedule, 6)
    calls = []
    evaluate = denoiser.transfer
    denoiser.transfer = lambda t, prepared: (
        calls.append((t, len(prepared.users[0]))) or evaluate(t, prepared)
    )
    users = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    law = chain.at_step(denoiser, schedule, users, torch.tensor([50, 44, 47]))
    assert calls == [(50, 2), (49, 2), (48, 2), (47, 1), (46, 1), (45, 1)]
    assert not law.mean[0].any()
    assert (law.std[0] == 1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", STEPS)
def test_at_step_picks_each_rows_own_state(kind, name, num_steps, generator):
    """For the moment head this is its closed form, A_t and B_t without a single step."""
    schedule = make_schedule(name, num_steps)
    denoiser = make_denoiser(kind, schedule, 6)
    users = torch.randn(7, 6, generator=generator, dtype=torch.float64)
    transition = torch.randint(0, num_steps + 1, (7,), generator=generator)
    law = chain.at_step(denoiser, schedule, users, transition)
    assert torch.equal(law.transition, transition)
    states = affine_states(denoiser, schedule, users)
    for row, t in enumerate(transition.tolist()):
        gain, shift = states[t]
        assert torch.allclose(law.std[row], gain[row].abs(), rtol=1e-9, atol=1e-12)
        assert torch.allclose(law.mean[row], shift[row], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("quantile", [0.0, 1.2, -1.2, float("inf"), float("-inf")])
def test_at_threshold_finds_the_smallest_step_that_meets_it(num_steps, quantile, generator):
    schedule = make_schedule("linear", num_steps)
    denoiser = make_denoiser("film", schedule, 6)
    users = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    threshold = 2 * torch.randn(40, generator=generator, dtype=torch.float64)
    law = chain.at_threshold(chain.reverse(denoiser, schedule, users), users, threshold, quantile)
    states = affine_states(denoiser, schedule, users)
    for row in range(40):
        expected = num_steps
        for t in range(num_steps, -1, -1):
            gain, shift = states[t][0][row], states[t][1][row]
            deviation = (users[row] * gain).square().sum().sqrt()
            if users[row] @ shift + quantile * deviation <= threshold[row]:
                expected = t
        assert law.transition[row] == expected
        gain, shift = states[expected]
        assert torch.allclose(law.mean[row], shift[row], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_steps", STEPS)
def test_mean_of_steps_is_the_mean_of_one_chains_states(num_steps, generator):
    schedule = make_schedule("linear", num_steps)
    denoiser = make_denoiser("film", schedule, 6)
    users = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    stops = mixed_stops(num_steps)
    law = chain.at_mean_of_steps(chain.reverse(denoiser, schedule, users), stops)
    states = affine_states(denoiser, schedule, users)
    gain = torch.stack([states[t][0] for t in stops]).mean(0)
    shift = torch.stack([states[t][1] for t in stops]).mean(0)
    assert torch.allclose(law.mean, shift, rtol=1e-9, atol=1e-12)
    assert torch.allclose(law.std, gain.abs(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("picker", ["at_step", "mixed"])
def test_ancestral_law_matches_the_ancestral_loop(picker, generator):
    """Standardised draws of the loop are N(0, 1) under the law; a 7 % wrong deviation is not.

    40,000 draws: Kolmogorov-Smirnov rejects a 7 % error at p < 1e-6 (checked below), while a true
    law fails at p < 1e-4 once in 10,000 runs, and the seed is fixed.
    """
    schedule = make_schedule("linear", 20)
    denoiser = make_denoiser("film", schedule, 4)
    user = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    users = user.expand(10_000, 4)
    z = torch.randn(users.shape, generator=generator, dtype=torch.float64)
    states = ancestral_chain(denoiser, schedule, users, z, generator)
    if picker == "at_step":
        stop = torch.tensor([6])
        law = chain.at_step(denoiser, schedule, user, stop, ancestral=True)
        drawn = states[6]
    else:
        stops = mixed_stops(20)
        steps = chain.reverse(denoiser, schedule, user, ancestral=True)
        law = chain.at_mean_of_steps(steps, stops)
        drawn = torch.stack([states[t] for t in stops]).mean(0)
    standard = ((drawn - law.mean) / law.std).flatten().numpy()
    assert stats.kstest(standard, "norm").pvalue > 1e-4
    assert stats.kstest(standard / 1.07, "norm").pvalue < 1e-6


def test_optimal_chain_without_noise_recovers_the_mean_and_shrinks_the_deviation(generator):
    """For Gaussian data Eq. 10 with the optimal denoiser ends at the mean m, exactly as B_0 says.

    With ancestral noise it also recovers the deviation s (T = 1000, to 2 %); without, the samples
    collapse towards m, because Eq. 10 drops the noise that DDPM adds.
    """

    schedule = make_schedule("linear", 1000)
    mean = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    std = torch.rand(1, 3, generator=generator, dtype=torch.float64) + 0.2
    optimal = Optimal(schedule, lambda users: (users, std.expand_as(users)))
    clean = torch.zeros(2, dtype=torch.int64)
    with_noise = chain.at_step(optimal, schedule, mean, clean, ancestral=True)
    without = chain.at_step(optimal, schedule, mean, clean)
    assert torch.allclose(with_noise.mean, mean, atol=0.02)
    assert torch.allclose(with_noise.std, std.expand(2, 3), rtol=0.02)
    assert torch.allclose(without.mean, mean, atol=0.02)
    assert (without.std < 0.5 * std).all()


def test_draws_follow_the_law(generator):
    """20,000 draws of one row; the power: a 10 % error in the deviation is rejected."""
    law = chain.Law(torch.tensor([3]), torch.tensor([[1.5, -2.0]]), torch.tensor([[0.3, 2.0]]))
    drawn = law.draw(20_000, generator)
    assert drawn.shape == (1, 20_000, 2)
    standard = ((drawn[0] - law.mean) / law.std).numpy()
    for column in range(2):
        assert stats.kstest(standard[:, column], "norm").pvalue > 1e-4
        assert stats.kstest(standard[:, column] / 1.1, "norm").pvalue < 1e-6
    assert abs(stats.pearsonr(standard[:, 0], standard[:, 1]).statistic) < 0.03


def test_scaling_a_law_scales_its_draws():
    law = chain.Law(torch.tensor([3]), torch.randn(1, 4), torch.rand(1, 4))
    draws = [one.draw(5, torch.Generator().manual_seed(1)) for one in (law, law.scaled(2.5))]
    assert torch.allclose(draws[0] * 2.5, draws[1], rtol=1e-5)
