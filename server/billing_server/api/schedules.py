"""SubscriptionScheduleService: what subscriptions will be like, phase by phase."""

from __future__ import annotations

from typing import Any, Final

from billing_server.api.endpoints import command, get, listing, span, word_of
from billing_server.domain import commands as c
from billing_server.domain.errors import invalid
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.store.schedule import ScheduleFilter


def _schedules(request: Any) -> ScheduleFilter:
    created_from, created_before = span(request, "created")
    enum_type = request.DESCRIPTOR.fields_by_name["statuses"].enum_type
    if 0 in request.statuses:
        raise invalid("statuses", "parameter_invalid_empty", "must not hold the unspecified status")
    statuses = tuple(word_of(enum_type, number) for number in request.statuses)
    return ScheduleFilter(
        customer=request.customer or None,
        statuses=statuses or None,  # type: ignore[arg-type]  # the enum's words are the Literal's
        subscription=request.subscription or None,
        test_clock=request.test_clock or None,
        created_from=created_from,
        created_before=created_before,
    )


ENDPOINTS: Final = (
    command("SubscriptionScheduleService/CreateSubscriptionSchedule", c.CreateSubscriptionSchedule),
    get("SubscriptionScheduleService/GetSubscriptionSchedule", SubscriptionSchedule, "subscription_schedule"),
    listing("SubscriptionScheduleService/ListSubscriptionSchedules", "subscription_schedules", _schedules),
    command("SubscriptionScheduleService/UpdateSubscriptionSchedule", c.UpdateSubscriptionSchedule),
    command("SubscriptionScheduleService/CancelSubscriptionSchedule", c.CancelSubscriptionSchedule),
    command("SubscriptionScheduleService/ReleaseSubscriptionSchedule", c.ReleaseSubscriptionSchedule),
)
