"""Dunning schedules: when a failed payment is tried again, and which declines make a charge pointless.

Owns the times of semantics section 6 only; what a failure does to invoices and subscriptions is decided
elsewhere. Instants are integer UTC seconds. A retry never counts the first attempt (decisions 12 and 13).
"""

from __future__ import annotations

from typing import Final, Literal, Protocol

import msgspec

from billing_server.domain.calendar import DAY

RetryWindow = Literal["one_week", "two_weeks", "three_weeks", "one_month", "two_months"]
"""Span over which smart retries are spread, counted from the first failure."""

WINDOW_DAYS: Final[dict[RetryWindow, int]] = {
    "one_week": 7,
    "two_weeks": 14,
    "three_weeks": 21,
    "one_month": 30,
    "two_months": 60,
}
"""Length of each window in days; months are thirty days here (semantics section 6)."""

CUSTOM_RETRIES_MAX: Final = 3
CUSTOM_RETRY_DAYS_MAX: Final = 365
SMART_RETRIES_MAX: Final = 8

HARD_DECLINE_CODES: Final = frozenset(
    {
        "incorrect_number",
        "lost_card",
        "pickup_card",
        "stolen_card",
        "revocation_of_authorization",
        "revocation_of_all_authorizations",
        "authentication_required",
        "highest_risk_level",
        "transaction_not_allowed",
    }
)
"""Decline codes after which the same payment method is not charged again (semantics section 6)."""


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often, and when, an automatic payment is tried again after its first failure."""

    kind: Literal["custom", "smart"]
    """custom follows `retry_days`; smart asks a model for times within `window`."""
    retry_days: tuple[int, ...] = ()
    """custom: days between each retry and the attempt before it, at most three; empty means no retries."""
    max_retries: int = SMART_RETRIES_MAX
    """smart: number of retries, 1 to 8."""
    window: RetryWindow = "two_weeks"
    """smart: the last retry comes when this span has passed since the first failure."""


DEFAULT_RETRY_POLICY: Final = RetryPolicy(kind="custom", retry_days=(3, 5, 7))
"""Policy of an account that has set none (decision 12)."""


class SmartRetryModel(Protocol):
    """Chooses the times of smart retries; pure, and increasing in `k` for the same other arguments."""

    def __call__(self, first_failure_at: int, window_seconds: int, max_retries: int, k: int) -> int:
        """Return the instant of the k-th of `max_retries` retries, k counting from 1."""


def evenly_spaced(first_failure_at: int, window_seconds: int, max_retries: int, k: int) -> int:
    """Spread the retries evenly, the last one at the end of the window: the first model (decision 13).

    Where the window does not divide evenly, a retry is at the whole second before its exact time; errors do
    not add up, since each time is computed from the first failure.
    """
    return first_failure_at + k * window_seconds // max_retries


def next_retry_at(
    policy: RetryPolicy,
    first_failure_at: int,
    last_attempt_due_at: int,
    retries_done: int,
    model: SmartRetryModel = evenly_spaced,
) -> int | None:
    """Return the instant of the next retry, or None when the policy has none left.

    Attempts are counted from when they were due, not from when they ran, so that a late worker does not
    shift a schedule. `retries_done` counts retries only, also those that made no charge. Times of a smart policy
    that are over, because it came later or an outcome was unknown for long, are left out.

    Raises:
        ValueError: `retries_done` is negative.
    """
    if retries_done < 0:
        raise ValueError(f"retries done must not be negative: {retries_done}")
    if policy.kind == "custom":
        if retries_done >= len(policy.retry_days):
            return None
        return last_attempt_due_at + policy.retry_days[retries_done] * DAY
    window_seconds = WINDOW_DAYS[policy.window] * DAY
    for k in range(retries_done + 1, policy.max_retries + 1):
        moment = model(first_failure_at, window_seconds, policy.max_retries, k)
        if moment > last_attempt_due_at:
            return moment
    return None


def check_retry_policy(policy: RetryPolicy) -> None:
    """Refuse a policy outside the limits of semantics section 6.

    Raises:
        ValueError: with the rule that is broken.
    """
    if policy.kind == "smart":
        if not 1 <= policy.max_retries <= SMART_RETRIES_MAX:
            raise ValueError(f"smart retries must number 1 to {SMART_RETRIES_MAX}, not {policy.max_retries}")
        return
    if len(policy.retry_days) > CUSTOM_RETRIES_MAX:
        raise ValueError(f"custom retries must number at most {CUSTOM_RETRIES_MAX}")
    if any(not 1 <= days <= CUSTOM_RETRY_DAYS_MAX for days in policy.retry_days):
        raise ValueError(f"custom retries must be 1 to {CUSTOM_RETRY_DAYS_MAX} days apart")


def is_hard_decline(code: str | None) -> bool:
    """Tell whether a decline code rules out charging the same payment method again; None is no code."""
    return code in HARD_DECLINE_CODES
