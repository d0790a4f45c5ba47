"""A learner notices another space, forgets the old one, and resumes bit for bit."""

import math

import pytest
import torch

from core.samplers import ADAR
from tests.trainer.following.world import CONFIG, DIM, World
from trainer.following.expectation import WINDOW_ROWS, Expectation
from trainer.following.learner import Learner
from trainer.following.publisher import Publications
from trainer.following.state import State


def new_learner() -> Learner:
    torch.manual_seed(0)
    return Learner(ADAR(CONFIG.sampler(DIM)), CONFIG)


def feed(learner: Learner, world: World, entries: int, rows: int = 128) -> list[str | None]:
    return [learner.take(*world.rows(rows)).jump for _ in range(entries)]


def test_every_row_is_judged_on_first_and_then_learnt_from():
    learner, world = new_learner(), World()
    taken = learner.take(*world.rows(CONFIG.held_out_rows))
    assert taken.losses == []
    assert math.isfinite(taken.loss_before)
    taken = learner.take(*world.rows(256))
    assert len(taken.losses) == CONFIG.replays  # 256 rows left the held-out ring, a batch has 256
    assert len(learner.held_out) == CONFIG.held_out_rows
    assert len(learner.replay) == 256


def test_a_space_that_stays_is_no_surprise():
    """The negative control of the tests below: 100 windows, no false alarm."""
    learner, world = new_learner(), World()
    assert feed(learner, world, 400) == [None] * 400


@pytest.mark.parametrize("change", ["rotated", "larger", "smaller"])
def test_another_space_is_noticed_within_a_window_and_learnt_anew(change):
    learner, world = new_learner(), World()
    feed(learner, world, 120)
    settled = learner.take(*world.rows(128)).loss_before
    if change == "rotated":
        world.rotate()
    world.scale *= {"rotated": 1, "larger": 5, "smaller": 0.2}[change]
    entries = 2 * WINDOW_ROWS // 128
    jumps = feed(learner, world, entries)
    first = next(at for at, jump in enumerate(jumps) if jump)
    assert first < entries / 2 + 1
    assert len([jump for jump in jumps if jump]) == learner.counts.jumps == 1
    assert len(learner.replay) + len(learner.held_out) <= 128 * (entries - first)
    feed(learner, world, 120)
    assert learner.counts.jumps == 1
    again = learner.take(*world.rows(2048)).loss_before
    assert again < 1.2 * settled


def test_a_nan_is_a_surprise():
    expectation = Expectation()
    for _ in range(10):
        assert expectation.surprise(1.0, WINDOW_ROWS) is None
    assert "nan" in (expectation.surprise(math.nan, WINDOW_ROWS) or "")


def test_a_diverged_learner_takes_the_live_weights_back():
    learner, live = new_learner(), new_learner().sampler
    with torch.no_grad():
        learner.sampler.denoiser.out.bias.fill_(torch.nan)
    assert not learner.finite()
    learner.revert(live)
    assert learner.finite()
    feed(learner, World(), 20)
    assert learner.finite()


def test_resumed_is_uninterrupted(tmp_path):
    """Saved at an odd moment and read back, it ends bit for bit as if nothing had happened."""
    world = World()
    recorded = [world.rows(100) for _ in range(60)]
    whole = new_learner()
    for entry in recorded:
        whole.take(*entry)
    first = new_learner()
    for entry in recorded[:33]:
        first.take(*entry)
    cloud = first.cloud()
    assert cloud is not None
    published = Publications("v1", 7, 9, 0.5, cloud)
    State(tmp_path).save(first, published, ["1-0", "2-0"], "2-0")
    loaded = State(tmp_path).load(CONFIG)
    assert loaded is not None
    second, memory, settled, last = loaded
    assert (memory.version, memory.step, memory.attempt, memory.loss) == ("v1", 7, 9, 0.5)
    assert torch.equal(memory.cloud.covariance, cloud.covariance)
    assert (settled, last) == (["1-0", "2-0"], "2-0")
    for entry in recorded[33:]:
        second.take(*entry)
    assert second.counts == whole.counts
    assert second.expectation == whole.expectation
    for name, tensor in whole.sampler.state_dict().items():
        assert torch.equal(tensor, second.sampler.state_dict()[name]), name


def test_a_state_is_ours_until_somebody_else_writes_it(tmp_path):
    learner, ours, theirs = new_learner(), State(tmp_path), State(tmp_path)
    assert ours.is_ours()
    assert ours.load(CONFIG) is None
    ours.save(learner, Publications(), [], "")
    assert ours.is_ours()
    assert not theirs.is_ours()
