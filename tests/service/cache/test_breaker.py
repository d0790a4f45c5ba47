"""Closed until it fails often in a row; open until a probe succeeds; then on trial."""

import pytest

from service.cache.breaker import Breaker


def closed(failures: int = 3) -> Breaker:
    breaker = Breaker(failures)
    breaker.probed()
    breaker.succeeded()
    assert breaker.state == "closed"
    return breaker


def test_begins_open_and_lets_nobody_wait() -> None:
    assert not Breaker(3).lets_through


def test_opens_after_so_many_failures_in_a_row_and_no_earlier() -> None:
    breaker = closed(3)
    for _ in range(10):  # two failures and a success are never three in a row
        breaker.failed()
        breaker.failed()
        assert breaker.lets_through
        breaker.succeeded()
    for _ in range(3):
        assert breaker.lets_through
        breaker.failed()
    assert breaker.state == "open"


def test_open_only_a_probe_helps() -> None:
    breaker = closed(1)
    breaker.failed()
    breaker.succeeded()  # the late answer to a look-up that was given up
    assert breaker.state == "open"
    breaker.probed()
    assert breaker.state == "half open"
    assert breaker.lets_through


@pytest.mark.parametrize(("works", "then"), [(True, "closed"), (False, "open")])
def test_half_open_one_request_decides(works: bool, then: str) -> None:
    breaker = closed(3)
    for _ in range(3):
        breaker.failed()
    breaker.probed()
    breaker.succeeded() if works else breaker.failed()
    assert breaker.state == then


def test_a_probe_of_a_closed_one_changes_nothing() -> None:
    breaker = closed(3)
    breaker.failed()
    breaker.failed()
    breaker.probed()
    breaker.failed()
    assert breaker.state == "open"
