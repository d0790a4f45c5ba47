"""The benchmark of the service's overhead asks a real service for every kind of sampler."""

import pytest

from bench.overhead import COMPARED, compared
from bench.samplers import asked, made

pytestmark = pytest.mark.slow  # a service is started


def test_both_sides_are_timed_in_every_round(monkeypatch):
    monkeypatch.setattr("bench.samplers.TAUGHT_STEPS", 20)
    everybody = made(8)
    samplers = {name: everybody[name] for name in COMPARED}
    taken = compared(samplers, asked(32, 8), 2, rounds=2)
    assert set(taken) == set(COMPARED)
    for bare, called in taken.values():
        assert len(bare) == len(called) == 2
        assert min(bare) > 0
        assert min(called) > 0
