import pytest

from core.errors import ConfigError
from core.samplers.queue import DifficultyQueue


def opened(epoch: int, start: int = 30, levels: int = 3, per_level: int = 2, power: float = 1.0):
    queue = DifficultyQueue(levels, per_level, power)
    return queue.open(queue.progress(epoch, start))


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0), (29, 0), (30, 2), (45, 3), (60, 4), (90, 6), (500, 6)]
)
def test_g_as_published(epoch, expected):
    assert opened(epoch) == expected


@pytest.mark.parametrize("start", [1, 7, 30])
@pytest.mark.parametrize("levels", [1, 3, 4])
@pytest.mark.parametrize("per_level", [1, 2, 5])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_g_is_its_formula_at_every_epoch(start, levels, per_level, power):
    """In whole numbers: int((epoch / S)^power M), 0 before S, at most L M."""
    for epoch in range(6 * start):
        exact = int(epoch**power * per_level // start**power) if epoch >= start else 0
        assert opened(epoch, start, levels, per_level, power) == min(exact, levels * per_level)


def test_negatives_come_from_the_hardest_that_is_open_to_the_easiest():
    queue = DifficultyQueue(3, 2)
    assert queue.places(6, None) == [2, 2, 1, 1, 0, 0]
    assert queue.places(8, 1.0) == [2, 2, 1, 1, 0, 0, 2, 2]
    assert queue.places(3, 0.5) == [1, 0, 0]
    assert queue.places(1, 0.5) == [1]
    assert queue.open(0.0) == 0
    assert queue.places(2, 0.0) == [0, 0]


@pytest.mark.parametrize("values", [{"levels": 0}, {"per_level": 0}, {"power": 0.0}])
def test_refuses_bad_values(values):
    with pytest.raises(ConfigError, match="levels = "):
        DifficultyQueue(**{"levels": 3, **values})
