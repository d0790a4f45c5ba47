"""Each measure sees its own kind of motion, and no other."""

import pytest
import torch

from tests.trainer.following.world import World
from trainer.following.drift import Cloud, drift

ROWS = 2048


def cloud(world: World) -> Cloud:
    return Cloud.of(*world.rows(ROWS))


def test_what_does_not_move_has_not_moved():
    world = World()
    assert max(drift(cloud(world), cloud(world)).values()) < 0.08


def test_a_cloud_without_a_shape_seems_not_to_turn():
    """Without the correction for sampling its covariances would be 2d/n = 12 % apart."""
    first, second = torch.randn(2, 2, 512, 32, generator=torch.Generator().manual_seed(0))
    assert drift(Cloud.of(*first), Cloud.of(*second))["direction"] < 0.02


@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_scale_is_variance_alone(factor):
    world = World()
    then = cloud(world)
    world.scale *= factor
    found = drift(cloud(world), then)
    assert found["variance"] == pytest.approx(2 * abs(torch.tensor(factor).log().item()), rel=0.05)
    assert found["direction"] < 0.02


def test_a_rotation_is_direction():
    world = World()
    then = cloud(world)
    world.rotate()
    found = drift(cloud(world), then)
    assert found["direction"] > 0.2
    assert found["variance"] < 0.1


def test_a_shift_is_mean_alone():
    world = World()
    then = cloud(world)
    world.offset += 1.0
    found = drift(cloud(world), then)
    assert found["mean"] > 0.3
    assert max(found["variance"], found["direction"]) < 0.08


def test_one_point_is_no_error():
    point = Cloud.of(torch.ones(64, 4), torch.ones(64, 4))
    assert drift(point, point)["mean"] == 0
