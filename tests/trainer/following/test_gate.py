"""What goes through the gate is sound and no worse; what is not does not."""

import copy

import pytest
import torch

from core.samplers import ADAR
from tests.trainer.following.world import CONFIG, DIM, World
from trainer.following.gate import judge, unconditional
from trainer.following.learner import Learner


def learnt(world: World, rows: int, seed: int = 0) -> ADAR:
    """A sampler that has learnt from so many rows."""
    torch.manual_seed(seed)
    learner = Learner(ADAR(CONFIG.sampler(DIM)), CONFIG)
    for _ in range(rows // 256):
        learner.take(*world.rows(256))
    return learner.sampler


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def early(world) -> ADAR:
    return learnt(world, 2560)


@pytest.fixture(scope="module")
def late(world) -> ADAR:
    return learnt(world, 25_600)


@pytest.fixture
def rows(world):
    return world.rows(1024)


def test_better_passes_and_worse_does_not(early, late, rows):
    better, worse = judge(late, early, *rows), judge(early, late, *rows)
    assert better.passed
    assert worse.sound
    assert not worse.passed
    assert better.losses["candidate"] == worse.losses["live"]
    assert better.losses["candidate"] < better.losses["unconditional"]


def test_the_same_model_is_no_worse_than_itself(late, rows):
    assert judge(late, copy.deepcopy(late), *rows).passed


def test_equal_within_noise_passes_and_two_percent_does_not(late, rows):
    """The same weights, disturbed by little and by more; the comparison is paired."""

    def disturbed(by: float) -> ADAR:
        twin = copy.deepcopy(late)
        with torch.no_grad():
            twin.denoiser.out.weight.mul_(1 + by)
        return twin

    assert judge(disturbed(1e-4), late, *rows).passed
    much = judge(disturbed(0.3), late, *rows)
    assert much.losses["candidate"] > 1.02 * much.losses["live"]
    assert not much.passed


def test_nan_weights_are_not_sound(late, rows):
    broken = copy.deepcopy(late)
    with torch.no_grad():
        broken.denoiser.out.bias[0] = torch.nan
    verdict = judge(broken, None, *rows)
    assert not verdict.sound
    assert "not finite: denoiser.out.bias" in verdict.why
    assert judge(late, broken, *rows).passed  # and a live version like that is not compared with


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_wrong_scale_is_not_sound_though_its_loss_may_be_small(late, rows, factor):
    scaled = copy.deepcopy(late)
    scaled.item_rms.mul_(factor)
    verdict = judge(scaled, late, *rows)
    assert not verdict.sound
    assert "item_rms" in verdict.why


def test_samples_too_large_are_not_sound(late, rows):
    wild = copy.deepcopy(late)
    with torch.no_grad():
        wild.denoiser.out.bias[DIM:] += 30.0
    verdict = judge(wild, None, *rows)
    assert not verdict.sound
    assert "samples have an RMS" in verdict.why


def test_where_nothing_is_live_it_must_not_be_hopeless(late, rows):
    assert judge(late, None, *rows).passed
    lost = copy.deepcopy(late)
    with torch.no_grad():
        lost.denoiser.user.weight.mul_(-1)  # takes every user for its opposite
    verdict = judge(lost, None, *rows)
    assert verdict.sound
    assert not verdict.passed


def test_unconditional_is_the_best_that_does_not_look_at_the_user(late, world):
    users, positives = world.rows(4096)
    blind = unconditional(late, positives)
    units = positives.square().mean().sqrt()

    def loss(sampler: ADAR, at: torch.Tensor) -> float:
        noise = torch.Generator().manual_seed(0)
        return sampler.loss(at, positives / units, noise).total.item()

    best = loss(blind, users)
    assert loss(blind, users.roll(1, 0)) == best
    for disturb in (0.05, -0.05):
        other = copy.deepcopy(blind)
        with torch.no_grad():
            other.denoiser.out.bias.add_(disturb)
        assert loss(other, users) > best


def test_the_literal_paper_is_judged_in_its_own_units(world):
    torch.manual_seed(0)
    config = copy.deepcopy(CONFIG.sampler(DIM))
    literal = ADAR(type(config)(**{**vars(config), "standardize": False}))
    assert judge(literal, None, *world.rows(1024)).sound
