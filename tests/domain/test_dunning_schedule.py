"""When failed payments are tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_server.domain.calendar import DAY
from billing_server.domain.dunning import (
    DEFAULT_RETRY_POLICY,
    HARD_DECLINE_CODES,
    WINDOW_DAYS,
    RetryPolicy,
    RetryWindow,
    check_retry_policy,
    is_hard_decline,
    next_retry_at,
)

FIRST_FAILURE = 1738371600
"""2025-02-01T01:00, the first failure F of the scenarios."""


def schedule(policy: RetryPolicy, first_failure_at: int = FIRST_FAILURE) -> list[int]:
    """Follow a policy from its first failure until it gives up."""
    times: list[int] = []
    last = first_failure_at
    while (due := next_retry_at(policy, first_failure_at, last, len(times))) is not None:
        times.append(due)
        last = due
    return times


@pytest.mark.parametrize(
    ("policy", "times"),
    [
        pytest.param(DEFAULT_RETRY_POLICY, [1738630800, 1739062800, 1739667600], id="Feb 4, 9 and 16, 01:00"),
        pytest.param(
            RetryPolicy(kind="smart", max_retries=8, window="two_months"),
            [1739019600, 1739667600, 1740315600, 1740963600, 1741611600, 1742259600, 1742907600, 1743555600],
            id="scenario 1: every 7.5 days until Apr 2, 01:00",
        ),
        pytest.param(
            RetryPolicy(kind="smart", max_retries=7, window="one_month"),
            [FIRST_FAILURE + seconds for seconds in (370285, 740571, 1110857, 1481142, 1851428, 2221714)]
            + [FIRST_FAILURE + 30 * DAY],
            id="uneven division does not drift",
        ),
        pytest.param(RetryPolicy(kind="smart", max_retries=1, window="one_week"), [FIRST_FAILURE + 7 * DAY]),
        pytest.param(RetryPolicy(kind="custom", retry_days=(1,)), [FIRST_FAILURE + DAY]),
        pytest.param(RetryPolicy(kind="custom"), []),
    ],
)
def test_schedules(policy: RetryPolicy, times: list[int]) -> None:
    check_retry_policy(policy)
    assert schedule(policy) == times


def test_custom_retries_count_from_when_the_last_attempt_was_due() -> None:
    moved = FIRST_FAILURE + 4 * DAY
    assert next_retry_at(DEFAULT_RETRY_POLICY, FIRST_FAILURE, moved, 1) == moved + 5 * DAY


def test_smart_retries_ask_the_model_given() -> None:
    asked: list[tuple[int, int, int, int]] = []

    def at_noon(first_failure_at: int, window_seconds: int, max_retries: int, k: int) -> int:
        asked.append((first_failure_at, window_seconds, max_retries, k))
        return first_failure_at + 12

    policy = RetryPolicy(kind="smart", max_retries=4, window="three_weeks")
    assert next_retry_at(policy, FIRST_FAILURE, FIRST_FAILURE, 2, at_noon) == FIRST_FAILURE + 12
    assert next_retry_at(policy, FIRST_FAILURE, FIRST_FAILURE, 4, at_noon) is None
    assert asked == [(FIRST_FAILURE, 21 * DAY, 4, 3)]


@given(st.integers(0, 2**40), st.integers(1, 8), st.sampled_from(sorted(WINDOW_DAYS)))
def test_smart_retries_ascend_evenly_to_the_end_of_the_window(
    first_failure_at: int, max_retries: int, window: RetryWindow
) -> None:
    times = schedule(RetryPolicy(kind="smart", max_retries=max_retries, window=window), first_failure_at)
    gaps = [later - earlier for earlier, later in zip([first_failure_at, *times], times, strict=False)]
    assert len(times) == max_retries
    assert times[-1] == first_failure_at + WINDOW_DAYS[window] * DAY
    assert max(gaps) - min(gaps) <= 1


@given(st.lists(st.integers(1, 365), max_size=3))
def test_custom_retries_add_up_their_days(retry_days: list[int]) -> None:
    policy = RetryPolicy(kind="custom", retry_days=tuple(retry_days))
    check_retry_policy(policy)
    expected = [FIRST_FAILURE + sum(retry_days[: n + 1]) * DAY for n in range(len(retry_days))]
    assert schedule(policy) == expected


@pytest.mark.parametrize(
    "policy",
    [
        RetryPolicy(kind="custom", retry_days=(1, 1, 1, 1)),
        RetryPolicy(kind="custom", retry_days=(3, 0)),
        RetryPolicy(kind="custom", retry_days=(366,)),
        RetryPolicy(kind="smart", max_retries=0),
        RetryPolicy(kind="smart", max_retries=9),
    ],
)
def test_policies_beyond_the_limits_are_refused(policy: RetryPolicy) -> None:
    with pytest.raises(ValueError, match="retries must"):
        check_retry_policy(policy)


def test_a_negative_count_of_retries_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        next_retry_at(DEFAULT_RETRY_POLICY, FIRST_FAILURE, FIRST_FAILURE, -1)


def test_hard_declines_are_those_of_the_specification() -> None:
    listed = """incorrect_number lost_card pickup_card stolen_card revocation_of_authorization
        revocation_of_all_authorizations authentication_required highest_risk_level transaction_not_allowed"""
    assert set(listed.split()) == HARD_DECLINE_CODES
    assert all(is_hard_decline(code) for code in HARD_DECLINE_CODES)


@pytest.mark.parametrize(
    "code",
    [
        "insufficient_funds",
        "do_not_honor",
        "generic_decline",
        "processing_error",
        "issuer_not_available",
        "try_again_later",
        "card_velocity_exceeded",
        "reenter_transaction",
        "expired_card",
    ],
)
def test_soft_declines_may_be_charged_again(code: str) -> None:
    assert not is_hard_decline(code)


def test_a_failure_without_a_code_is_soft() -> None:
    assert not is_hard_decline(None)
