"""When a webhook is tried again, and when an endpoint is left in peace for a while. Waits are in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from billing_server.domain.calendar import DAY

RETRY_SECONDS: Final = (5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 21_600)
"""Pauses after failed tries of one delivery; the last one again and again."""

GIVE_UP_SECONDS: Final = 3 * DAY
JITTER: Final = 0.1
"""By which part a pause is longer or shorter, so that what failed together does not come back together."""

SICK_FAILURES: Final = 5
"""After so many failures in a row an endpoint is sick: it is only sounded out, by one delivery at a time."""

SICK_SECONDS: Final = (5, 10, 30, 60, 120, 300)
"""Pauses between those; the last one again and again."""


def wait_of_delivery(
    tries: int, age_seconds: int, chance: float, retry_after: int | None = None, waits: Sequence[int] = RETRY_SECONDS
) -> int | None:
    """How long to wait after the last of so many tries failed; None when three days have been enough.

    `chance` is 0 to below 1; `retry_after` is what the receiver asked for, which is heeded up to the longest wait.
    """
    if age_seconds >= GIVE_UP_SECONDS:
        return None
    wait = waits[min(tries, len(waits)) - 1]
    wait = round(wait * (1 + JITTER * (2 * chance - 1)))
    return max(wait, min(retry_after or 0, RETRY_SECONDS[-1]))


def is_sick(failures: int) -> bool:
    """Whether an endpoint with so many failures in a row is sick."""
    return failures >= SICK_FAILURES


def failures_after(failures: int, failed: int) -> int:
    """Failures in a row after some tries made at once failed: these can make an endpoint sick, but no sicker."""
    return min(failures + failed, max(SICK_FAILURES, failures + 1))


def wait_of_endpoint(failures: int, waits: Sequence[int] = SICK_SECONDS) -> int | None:
    """How long an endpoint is left in peace after so many failures in a row; None while it is not sick."""
    return waits[min(failures - SICK_FAILURES, len(waits) - 1)] if is_sick(failures) else None
