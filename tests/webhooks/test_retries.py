"""When a delivery is tried again, and how an endpoint that fails is spared."""

from __future__ import annotations

from itertools import pairwise

import pytest

from billing_server.domain.webhook_retries import (
    GIVE_UP_SECONDS,
    JITTER,
    RETRY_SECONDS,
    SICK_FAILURES,
    SICK_SECONDS,
    failures_after,
    wait_of_delivery,
    wait_of_endpoint,
)

MIDDLE = 0.5


def test_tries_of_three_days() -> None:
    """The whole life of a delivery that never arrives, on a clock of its own."""
    now, tries, at = 0, 0, []
    while True:
        tries += 1
        at.append(now)
        wait = wait_of_delivery(tries, now, MIDDLE)
        if wait is None:
            break
        now += wait
    assert at[:8] == [0, 5, 35, 155, 755, 2_555, 6_155, 13_355]
    assert [later - earlier for earlier, later in pairwise(at[9:])] == [21_600] * (len(at) - 10)
    assert at[-2] < GIVE_UP_SECONDS <= at[-1]
    assert len(at) == 20


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 27), (0.5, 30), (0.999, 33)])
def test_jitter_keeps_what_failed_together_apart(chance: float, expected: int) -> None:
    assert wait_of_delivery(2, 0, chance) == expected
    assert JITTER == 0.1


@pytest.mark.parametrize(("retry_after", "expected"), [(None, 5), (0, 5), (3, 5), (90, 90), (10**9, RETRY_SECONDS[-1])])
def test_a_receiver_may_ask_for_more_time_within_bounds(retry_after: int | None, expected: int) -> None:
    assert wait_of_delivery(1, 0, MIDDLE, retry_after) == expected


def test_given_up_after_three_days_whatever_the_receiver_asks_for() -> None:
    assert wait_of_delivery(9, GIVE_UP_SECONDS - 1, MIDDLE) == RETRY_SECONDS[-1]
    assert wait_of_delivery(9, GIVE_UP_SECONDS, MIDDLE, 60) is None


def test_an_endpoint_is_spared_longer_and_longer() -> None:
    waits = [wait_of_endpoint(failures) for failures in range(SICK_FAILURES + len(SICK_SECONDS) + 2)]
    assert waits[:SICK_FAILURES] == [None] * SICK_FAILURES
    assert waits[SICK_FAILURES:] == [*SICK_SECONDS, SICK_SECONDS[-1], SICK_SECONDS[-1]]
    assert list(SICK_SECONDS) == sorted(SICK_SECONDS)


@pytest.mark.parametrize(
    ("before", "failed", "after"),
    [(0, 0, 0), (0, 1, 1), (3, 1, 4), (0, 10, SICK_FAILURES), (4, 10, SICK_FAILURES), (5, 1, 6), (9, 10, 10)],
)
def test_tries_made_at_once_count_up_to_being_sick(before: int, failed: int, after: int) -> None:
    assert failures_after(before, failed) == after
