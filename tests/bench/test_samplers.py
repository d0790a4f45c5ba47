"""The benchmark of the samplers times every method, and fewer steps of a chain cost more error."""

from bench.samplers import asked, ddim_errors, made, timed
from core.samplers import METHODS


def test_every_method_is_timed_and_fewer_steps_err_more(monkeypatch):
    monkeypatch.setattr("bench.samplers.TAUGHT_STEPS", 60)
    samplers, query = made(8), asked(64, 8)
    assert {sampler.method for sampler in samplers.values()} == set(METHODS)
    taken = timed(samplers, query, 2, rounds=2)
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in taken.values())
    errors = ddim_errors(samplers, query)
    for kind in ("mlp", "linear"):
        by_steps = [errors[f"gdnsm {kind}, ddim {steps}"] for steps in (25, 8, 4)]
        assert by_steps == sorted(by_steps)
        assert 0 < by_steps[0] < 1
