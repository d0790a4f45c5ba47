import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core import transition
from core.errors import OutOfRangeError
from core.schedule import SCHEDULES, make_schedule
from core.transition import RULES, Transition
from tests.reference.looped import eq11

scores = st.floats(-20, 20, width=32)
steps = st.sampled_from([1, 2, 20, 50, 200])


@given(scores, steps, st.floats(0.1, 4), st.floats(0.1, 4))
def test_score_aware_is_eq_11_to_the_nearest_integer(score, num_steps, omega, k):
    exact = eq11(score, num_steps, omega, k) if k * score < 700 else float(num_steps)
    got = transition.score_aware(torch.tensor([score]), num_steps, omega, k).item()
    assert abs(got - exact) <= 0.5 + 1e-9


def test_score_aware_of_no_number_is_all_noise():
    got = transition.score_aware(torch.tensor([float("nan"), float("inf"), -float("inf")]), 50)
    assert got.tolist() == [50, 50, 25]


def test_score_aware_saturates_as_the_method_page_says():
    got = transition.score_aware(torch.tensor([0.0, 3.0, 5.0, 1e4, -1e4]), 50)
    assert got.tolist() == [37, 50, 50, 50, 25]


def test_calibrated_spreads_where_the_raw_score_saturates():
    score = 4 + torch.randn(1000, generator=torch.Generator().manual_seed(0))
    mean, std = score.mean(), score.std()
    raw = transition.score_aware(score, 50)
    spread = transition.calibrated(score, mean, std, 50)
    assert raw.double().std() < 0.5
    assert spread.double().std() > 5
    outlier = transition.calibrated(torch.tensor([1e9]), mean, std, 50)
    assert outlier.item() == round(eq11(3.0, 50))


@pytest.mark.parametrize("name", SCHEDULES)
@given(mu_plus=scores, mu_minus=scores, num_steps=steps)
def test_theorem_is_the_nearest_alpha_bar(name, mu_plus, mu_minus, num_steps):
    alpha_bar = make_schedule(name, num_steps).alpha_bar
    got = transition.theorem(torch.tensor([mu_plus]), torch.tensor([mu_minus]), alpha_bar).item()
    if mu_plus <= mu_minus:
        assert got == 0
    elif mu_minus <= 0:
        assert got == num_steps
    else:
        distance = (alpha_bar - (mu_minus / mu_plus) ** 2).abs()
        assert distance[got] == pytest.approx(distance.min().item(), rel=1e-6, abs=1e-12)


def test_theorem_1_higher_scores_turn_later():
    alpha_bar = make_schedule("linear", 50).alpha_bar
    score = torch.linspace(0.5, 20, 100)
    t_star = transition.theorem(score, torch.full((100,), 0.5), alpha_bar)
    assert t_star[0] == 0
    assert (t_star.diff() >= 0).all()
    assert t_star[-1] > 40


def test_random_is_uniform_over_1_to_T():
    generator = torch.Generator().manual_seed(0)
    drawn = transition.random(50_000, 5, generator, torch.device("cpu"))
    counts = drawn.bincount()
    assert counts[0] == 0
    assert len(counts) == 6
    # Binomial(50000, 1/5) has a deviation of 89: five of them are allowed.
    assert (counts[1:] - 10_000).abs().max() < 450


@pytest.mark.parametrize(
    ("num_steps", "hardness", "expected"),
    [(50, 0.5, 25), (50, 1.0, 0), (50, 0.0, 50), (1, 0.5, 1), (2, 0.5, 1), (20, 0.9, 2)],
)
def test_fixed(num_steps, hardness, expected):
    assert transition.fixed(num_steps, hardness) == expected


@pytest.mark.parametrize(
    ("num_steps", "expected"), [(50, [25, 12, 6, 5]), (20, [10, 5, 2, 2]), (1, [0, 0, 0, 0])]
)
def test_mixed_stops(num_steps, expected):
    assert transition.mixed_stops(num_steps) == expected


def test_hardness_is_the_tolerated_probability_of_outscoring():
    quantile = transition.hardness_quantile
    assert quantile(0.5) == 0
    assert quantile(0.1) == pytest.approx(1.2815515655)
    assert quantile(0.9) == pytest.approx(-1.2815515655)
    assert (quantile(0.0), quantile(1.0)) == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rule": "nearest"}, "transition = 'nearest'; known rules: score_aware, calibrated"),
        ({"omega": 0.0}, "omega = 0.0; it must be finite and above 0"),
        ({"omega": math.nan}, "omega = nan"),
        ({"k": -1.0}, "k = -1.0"),
        ({"k": math.inf}, "k = inf"),
        ({"hardness": 1.1}, r"hardness = 1.1; it must lie in \[0, 1\]"),
        ({"hardness": math.nan}, "hardness = nan"),
    ],
)
def test_refuses_parameters_out_of_range(values, message):
    with pytest.raises(OutOfRangeError, match=message):
        Transition(**values)


def test_override_keeps_the_rest_and_refuses_what_the_rule_does_not_take():
    default = Transition("score_aware", omega=2.0, k=0.5)
    assert default.override() is default
    assert default.override(k=3.0) == Transition("score_aware", omega=2.0, k=3.0)
    assert default.override("exact", hardness=0.9).hardness == 0.9
    for rule in RULES:
        assert default.override(rule).rule == rule
    with pytest.raises(OutOfRangeError, match="omega is no parameter of transition rule 'exact'"):
        default.override("exact", omega=1.0)
    with pytest.raises(OutOfRangeError, match="it belongs to exact, fixed"):
        default.override(hardness=0.5)
