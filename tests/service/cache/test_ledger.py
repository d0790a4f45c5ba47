"""The cache is on where it pays, off where not, and what finding out costs is bounded."""

import random

import pytest

from service.cache.ledger import ALLOWANCE, EVERY, SAMPLES, SHARE, Ledger

ROWS = 2048


class Run:
    """Batches with given costs through a ledger; what they took, and would have without a cache."""

    def __init__(self, noise: float = 0.0) -> None:
        self.ledger = Ledger()
        self.took = self.plain = 0.0
        self.looked_up = 0
        self._noise, self._random = noise, random.Random(0)

    def batches(self, count: int, computing: float, cached: float) -> "Run":
        """Seconds of a batch computed, and of one through the cache."""
        for _ in range(count):
            jitter = 1 + self._noise * self._random.random()
            self.plain += computing * jitter
            if self.ledger.wants_cache():
                self.looked_up += 1
                self.took += cached * jitter
                self.ledger.cached(ROWS, cached * jitter)
            else:
                self.took += computing * jitter
                self.ledger.computed(ROWS, computing * jitter)
        return self


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_stays_on_where_it_pays(noise: float) -> None:
    run = Run(noise).batches(5000, computing=0.010, cached=0.002)
    assert run.ledger.on
    assert run.looked_up / 5000 > 1 - 1.1 / EVERY - SAMPLES / 5000
    assert run.took < 0.25 * run.plain


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("factor", [1.1, 2, 10, 1000])
@pytest.mark.parametrize("computing", [0.0001, 0.010])
def test_where_it_does_not_pay_the_loss_is_bounded(
    computing: float, factor: float, noise: float
) -> None:
    run = Run(noise).batches(20_000, computing, computing * factor)
    loss = run.took - run.plain
    one_batch = factor * computing * (1 + noise)
    trials = 1 + run.took * SHARE / ALLOWANCE
    unsure = 0.02 * run.took if noise else 0.0  # the cost of computing is a median of nine
    assert loss < ALLOWANCE + SHARE * run.took + trials * one_batch + unsure


def test_the_bound_is_no_truism() -> None:
    """The negative control: looking up always, 10 % dearer, loses more than the bound allows."""
    took = 20_000 * 0.010 * 1.1
    assert took - 20_000 * 0.010 > ALLOWANCE + (SHARE + 0.02) * took + 2 * 0.017


def test_is_tried_again_and_comes_back_when_it_pays_again() -> None:
    run = Run().batches(2000, computing=0.002, cached=0.004)
    assert not run.ledger.on
    before = run.looked_up
    run.batches(2000, computing=0.002, cached=0.004)
    assert run.looked_up == before  # not yet: 25 s of sampling pay for one more trial
    run.batches(20_000, computing=0.002, cached=0.0005)
    assert run.ledger.on
    assert run.looked_up > before + 5000


def test_goes_off_when_computing_becomes_cheap() -> None:
    """t* moves to T, chains end at once: hits save nothing any more, and only samples can tell."""
    run = Run().batches(1000, computing=0.010, cached=0.002)
    assert run.ledger.on
    run.batches(2000, computing=0.0005, cached=0.002)
    assert not run.ledger.on


def test_nothing_is_looked_up_before_the_cost_of_computing_is_known() -> None:
    ledger = Ledger()
    for _ in range(SAMPLES):
        assert not ledger.wants_cache()
        ledger.computed(ROWS, 0.01)
    assert ledger.wants_cache()


def test_one_slow_first_call_does_not_decide() -> None:
    run = Run().batches(1, computing=1.0, cached=1.0)
    run.batches(3000, computing=0.001, cached=0.002)
    assert not run.ledger.on
