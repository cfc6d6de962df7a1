"""The simulation itself: it keeps quiet about the engine, and does not about planted bugs."""

from __future__ import annotations

import os

import pytest

from tests.simulation.life import Life
from tests.simulation.plan import FAULTS, make_plan
from tests.simulation.run import simulate
from tests.simulation.shrinking import live, shrink

YEARS = float(os.environ.get("BILLING_TEST_YEARS", "300"))
"""Subscription-years; `make simulate` lives more of them."""

PLANTS = {
    "charge-twice": "was charged again|no money moved|is no attempt",
    "silence-is-failure": "is failed, but money moved|which is failed",
    "forget-event": "changed without an event|never told",
    "forget-key": "had 2 effects",
}


def test_every_promise_is_kept_at_every_step() -> None:
    tally = simulate(YEARS, first_seed=1, processes=1)
    assert tally.failure is None, tally.failure
    assert tally.years >= YEARS
    happened = {"killed before commit", "killed after commit", "engine away", "gateway away", "check", "refunds"}
    assert happened <= tally.steps.keys(), "too little went wrong to be believed"


@pytest.mark.parametrize("plant", PLANTS)
def test_planted_bugs_are_caught_and_made_small(plant: str) -> None:
    """The calibration. The failing seed fails again, and less of it fails as well."""
    failure = next(found for seed in range(1, 60) if (found := live(make_plan(seed, 5, plant))[1]) is not None)
    assert isinstance(failure.error, AssertionError)
    with pytest.raises(AssertionError, match=PLANTS[plant]):
        Life(failure.plan).run()
    small = shrink(failure, tries_max=60)
    with pytest.raises(type(small.error)):
        Life(small.plan).run()
    size = len(small.plan.deeds) + len(small.plan.outages) + len(small.plan.faults)
    assert size < len(failure.plan.deeds) + len(failure.plan.outages) + len(FAULTS)


def test_a_seed_is_lived_the_same_again() -> None:
    first, second = Life(make_plan(7, 3)), Life(make_plan(7, 3))
    first.run()
    second.run()
    assert (first.steps, first.book) == (second.steps, second.book)
