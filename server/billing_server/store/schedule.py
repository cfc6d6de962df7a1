"""How subscription schedules are stored and listed."""

from __future__ import annotations

from billing_server.domain.schedule import ScheduleStatus, SubscriptionSchedule
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

SCHEDULES = Rows(SubscriptionSchedule, "schedule", "subscription_schedules", "subscription_schedule_row")


class ScheduleFilter(Filter[SubscriptionSchedule], frozen=True, kw_only=True):
    """Which schedules to list. `subscription` also finds those that were released from it."""

    customer: str | None = None
    statuses: tuple[ScheduleStatus, ...] | None = None
    subscription: str | None = None
    test_clock: str | None = None
    created_from: int | None = None
    created_before: int | None = None
