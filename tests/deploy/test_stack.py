"""The stack as real processes: every query has data, and a crash raises the alarm."""

import math

import pytest

from deploy.grafana.reading import dashboards, panels, queries
from deploy.stack import StackError, running
from deploy.tools import find
from tests.deploy.alerts import ALERTS, RECORDED

MISSING = [name for name in ("prometheus", "redis-server") if find(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not here: {MISSING}; `make tools`"),
]
WINDOW = "30s"  # in place of $__rate_interval, of scrapes a second apart
QUERIES = [
    pytest.param(query, id=f"{uid}: {panel['title']}")
    for uid, dashboard in dashboards().items()
    for panel in panels(dashboard)
    for query in queries(panel, dashboard, WINDOW)
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    with running(tmp_path_factory.mktemp("stack")) as one:
        yield one


def has_data(stack, query):
    """Whether a series has a number now; only NaN is a division of nothing by nothing."""
    return any(not math.isnan(float(one["value"][1])) for one in stack.query(query))


@pytest.mark.parametrize("query", QUERIES)
def test_every_panel_has_data(stack, query):
    stack.wait_for(f"data for {query}", lambda: has_data(stack, query), 60)


@pytest.mark.parametrize("name", RECORDED)
def test_every_recording_rule_has_data(stack, name):
    stack.wait_for(f"data for {name}", lambda: has_data(stack, name), 60)


def test_prometheus_knows_every_alert(stack):
    groups = stack.get("rules", type="alert")["groups"]
    told = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert set(told) == set(ALERTS)
    assert {rule["health"] for rule in told.values()} == {"ok"}


def test_redis_that_is_gone_raises_its_alarms_and_fails_nobody(stack):
    wanted = {"TurnpointRedisDown", "TurnpointPairsUnreadable"}
    assert not wanted & stack.firing()
    stack.stop("redis", at_once=True)
    stack.wait_for("Redis is missed", lambda: wanted <= stack.firing(), 60)
    unserved = 'sum(turnpoint_requests_total{route="/negatives", code=~"5.."}) or vector(0)'
    assert float(stack.query(unserved)[0]["value"][1]) == 0


def test_a_service_that_is_killed_raises_the_alarm(stack):
    assert not {"TurnpointAllReplicasGone", "TurnpointReplicaDown"} & stack.firing()
    stack.stop("service", at_once=True)
    wanted = {"TurnpointAllReplicasGone", "TurnpointReplicaDown"}
    stack.wait_for("all replicas are missed", lambda: wanted <= stack.firing(), 60)
    assert "TurnpointNoReadyReplica" not in stack.firing()  # none is there to be ready
    alerts = {alert["labels"]["alertname"]: alert for alert in stack.get("alerts")["alerts"]}
    instance = stack.service.removeprefix("http://")
    told = alerts["TurnpointReplicaDown"]["annotations"]["summary"]
    assert told == f"{instance} cannot be scraped"


def test_a_part_that_ends_is_told_with_its_log(stack):
    stack.parts["traffic"].kill()
    with pytest.raises(StackError, match="traffic ended with -9"):
        stack.wait_for("never", lambda: False, 20)
    stack.stop("traffic")
