"""Every scenario of the soak in a short form; what depends on the machine's speed is not judged."""

import pytest
from turnpoint_client import Retries

from bench.soak import restart
from bench.soak.__main__ import SCENARIOS, scenario, why_not
from bench.soak.findings import Findings, Size
from service.settings import fields

# Seconds of each; above some ten in all, with starting and stopping, it is slow.
QUICK = {"chaos": 4, "swaps": 3, "strangers": 4, "malformed": 1}
SLOW = {"restart": 12, "overload": 10, "memory": 3, "keys": 6, "livez": 5}


def held(findings: Findings) -> None:
    failed = findings.failed(timing=False)
    assert findings.checks, "it checked nothing"
    assert not failed, "\n".join(f"{one.what}: {one.found}" for one in failed)


def test_every_scenario_is_here():
    assert set(QUICK) | set(SLOW) == set(SCENARIOS)


@pytest.mark.parametrize("name", QUICK)
def test_quick(name):
    held(scenario(name, Size(QUICK[name])))


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_slow(name):
    if why := why_not(name):
        pytest.skip(why)
    held(scenario(name, Size(SLOW[name])))


def test_chaos_with_a_redis_that_dies():
    if "TURNPOINT_REDIS__URL" not in fields():
        pytest.skip("the service has no Redis yet")
    held(scenario("chaos", Size(6, redis=True)))


def test_callers_without_retries_lose_requests():
    """The negative control of `restart`: who does not ask again is not answered."""
    findings = restart.run(Size(3), retries=Retries(limit=0))
    failed = [one.what for one in findings.failed(timing=False)]
    assert "no well-behaved caller loses a request or gets a wrong answer" in failed
