from dataclasses import replace

import pytest
import torch

from core.errors import ConfigError
from core.samplers import ADAR, ADARConfig, Generates, HasLaw, Query, draw, rebuild
from core.transition import RULES, Transition
from tests.reference.looped import looped_chain


def make_sampler(num_steps=20, denoiser="film", **config) -> ADAR:
    torch.manual_seed(5)
    sampler = ADAR(ADARConfig(dim=6, num_steps=num_steps, denoiser=denoiser, hidden=16, **config))
    torch.nn.init.normal_(sampler.denoiser.out.weight, std=0.1)
    users, positives, negatives = torch.randn(3, 256, 6)
    sampler.observe(0.3 * users, 2 * positives + 0.5, negatives)
    return sampler.eval()


def make_query(rows=8, rule="score_aware", seed=0, **parameters) -> Query:
    generator = torch.Generator().manual_seed(seed)
    users, positives = torch.randn(2, rows, 6, generator=generator)
    return Query(0.3 * users, 2 * positives, Transition(rule, **parameters))


def law(sampler, query, seed=1):
    return sampler.law(query, torch.Generator().manual_seed(seed))


def test_has_a_law_and_is_drawn_from_it():
    sampler, query = make_sampler(), make_query(rule="random")
    assert isinstance(sampler, HasLaw)
    assert not isinstance(sampler, Generates)
    drawn = draw(sampler, query, 3, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    expected = sampler.law(query, generator)
    assert torch.equal(drawn.transition, expected.transition)
    assert torch.equal(drawn.negatives, expected.draw(3, generator))
    assert drawn.weights is None


@pytest.mark.parametrize("rule", ["score_aware", "calibrated", "theorem", "random", "fixed"])
@pytest.mark.parametrize("num_steps", [1, 2, 20])
@pytest.mark.parametrize("denoiser", ["film", "moment"])
@pytest.mark.parametrize("rows", [1, 8])
def test_the_law_is_that_of_the_looped_sample_at_t_star(rule, num_steps, denoiser, rows):
    """Algorithm 1 by the loop, in the encoder's units: deviation and mean from z = 0 and z = 1."""
    sampler, query = make_sampler(num_steps, denoiser), make_query(rows, rule)
    got = law(sampler, query)
    condition = query.users / sampler.user_rms
    ends = []
    for z in (torch.zeros(rows, 6), torch.ones(rows, 6)):
        states = looped_chain(sampler.denoiser, sampler.schedule, condition, z)
        picked = [states[int(t)][row] for row, t in enumerate(got.transition)]
        ends.append(sampler.item_rms * torch.stack(picked))
    assert torch.allclose(got.mean, ends[0], rtol=1e-3, atol=1e-4)
    assert torch.allclose(got.std, (ends[1] - ends[0]).abs(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", [r for r in RULES if r != "random"])
@pytest.mark.parametrize("denoiser", ["film", "moment"])
def test_a_batch_of_8_is_8_singles(rule, denoiser):
    sampler, query = make_sampler(denoiser=denoiser), make_query(8, rule)
    threshold = torch.linspace(-1, 1, 8)
    together = law(sampler, replace(query, threshold=threshold))
    for row in range(8):
        one = slice(row, row + 1)
        alone = Query(query.users[one], query.positives[one], query.transition, threshold[one])
        single = law(sampler, alone)
        assert single.transition[0] == together.transition[row]
        assert torch.allclose(single.mean[0], together.mean[row], rtol=1e-5, atol=1e-6)
        assert torch.allclose(single.std[0], together.std[row], rtol=1e-5, atol=1e-6)


def test_exact_meets_its_threshold_and_no_earlier_step_would():
    sampler, query = make_sampler(), make_query(64, "exact")
    threshold = torch.full((64,), -0.05)
    got = law(sampler, replace(query, threshold=threshold))
    score = (query.users * got.mean).sum(-1)
    inside = got.transition < sampler.num_steps
    assert inside.any()
    assert (score[inside] <= threshold[inside]).all()
    for t in range(sampler.num_steps):
        earlier = law(sampler, make_query(64, "fixed", hardness=1 - t / sampler.num_steps))
        smaller = got.transition > t
        assert ((query.users * earlier.mean).sum(-1)[smaller] > threshold[smaller]).all()


def test_harder_samples_outscore_the_threshold_more_often():
    """`exact` tolerates P(score > mu-) = hardness: measured over draws, it is never exceeded."""
    sampler = make_sampler()
    threshold = torch.full((64,), 0.05)
    previous = torch.full((64,), sampler.num_steps + 1)
    for hardness in (0.05, 0.3, 0.5, 0.7, 0.95):
        query = make_query(64, "exact", hardness=hardness)
        got = law(sampler, replace(query, threshold=threshold))
        assert (got.transition <= previous).all()
        previous = got.transition
        drawn = got.draw(2000, torch.Generator().manual_seed(2))
        above = ((drawn * query.users.unsqueeze(1)).sum(-1) > 0.05).double().mean(1)
        met = got.transition < sampler.num_steps
        # 2,000 draws: four standard errors are at most 0.045.
        assert (above[met] <= hardness + 0.045).all()


@pytest.mark.parametrize(("hardness", "expected"), [(0.0, 20), (1.0, 0)])
def test_the_ends_of_hardness_hold_for_a_user_of_zeros_too(hardness, expected):
    query = make_query(4, "exact", hardness=hardness)
    query.users[2] = 0
    assert (law(make_sampler(), query).transition == expected).all()


def test_without_a_threshold_the_observed_negatives_score_is_used():
    sampler, query = make_sampler(), make_query(8, "exact")
    explicit = replace(query, threshold=sampler.negative_score.expand(8))
    assert torch.equal(law(sampler, query).mean, law(sampler, explicit).mean)


def test_scales_make_the_sampler_indifferent_to_the_encoders_units():
    """Embeddings ten times as large, seen in training: the same law, ten times as large."""
    users, positives, negatives = torch.randn(3, 256, 6)
    laws = []
    for unit in (1.0, 10.0):
        sampler = make_sampler()
        for _ in range(600):
            sampler.observe(unit * users, unit * positives, unit * negatives)
        query = Query(unit * users, unit * positives, Transition("fixed", hardness=0.9))
        laws.append(law(sampler, query))
    assert torch.allclose(10 * laws[0].mean, laws[1].mean, rtol=0.02, atol=1e-3)
    assert torch.allclose(10 * laws[0].std, laws[1].std, rtol=0.02)


def test_literal_reading_leaves_the_scales_alone():
    sampler = make_sampler(standardize=False)
    assert sampler.user_rms == 1
    assert sampler.item_rms == 1
    assert sampler.score_std != 1


def test_first_batch_sets_the_scales_and_later_ones_move_them():
    sampler = ADAR(ADARConfig(dim=2))
    sampler.observe(torch.full((4, 2), 3.0), torch.full((4, 2), 2.0), torch.full((4, 2), -1.0))
    assert sampler.user_rms == pytest.approx(3)
    assert sampler.item_rms == pytest.approx(2)
    assert sampler.score_mean == pytest.approx(12)
    assert sampler.negative_score == pytest.approx(-6)
    sampler.observe(torch.full((4, 2), 1.0), torch.full((4, 2), 2.0), torch.full((4, 2), -1.0))
    assert sampler.user_rms == pytest.approx(5**0.5)
    sampler.observe(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4, 2))
    assert sampler.user_rms > 0


def test_random_draws_its_steps_from_the_requests_generator():
    sampler, query = make_sampler(), make_query(64, "random")
    assert torch.equal(law(sampler, query, 1).transition, law(sampler, query, 1).transition)
    assert not torch.equal(law(sampler, query, 1).transition, law(sampler, query, 2).transition)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dim": 0}, "dim = 0"),
        ({"dim": 4, "denoiser": "unet"}, "denoiser = 'unet'; known: film, moment"),
        ({"dim": 4, "schedule": "flat"}, "unknown schedule 'flat'"),
        ({"dim": 4, "num_steps": 0}, "num_steps = 0"),
    ],
)
def test_refuses_bad_configs(values, message):
    with pytest.raises(ConfigError, match=message):
        ADAR(ADARConfig(**values))


def test_rebuild_refuses_what_it_does_not_know():
    with pytest.raises(ConfigError, match="method = 'gan'; known: adar, cnsdiff, dmns, gdnsm"):
        rebuild("gan", {})
    with pytest.raises(ConfigError, match="does not fit method 'adar'"):
        rebuild("adar", {"dim": 4, "transition": {}, "colour": "red"})
