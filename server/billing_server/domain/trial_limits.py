"""How long a trial may last (semantics 4); apart because new subscriptions, changes and phases all have trials."""

from __future__ import annotations

from typing import Final

from billing_server.domain.calendar import DAY, written
from billing_server.domain.errors import invalid
from billing_server.domain.turn import Turn

TRIAL_DAYS_MAX: Final = 730


def check_trial_end(turn: Turn, end: int) -> None:
    """A trial ends in the future, within 730 days."""
    if end <= turn.now:
        raise invalid(
            "trial_end",
            "time_out_of_range",
            f"must be after now, {written(turn.now)}; end a trial at once by trial_end_now",
        )
    if end > turn.now + TRIAL_DAYS_MAX * DAY:
        raise invalid("trial_end", "time_out_of_range", f"a trial lasts at most {TRIAL_DAYS_MAX} days")
