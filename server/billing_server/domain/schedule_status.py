"""How a schedule goes from one status to the next; `schedule.FOLLOWING` is the table of what is possible."""

from __future__ import annotations

from typing import Any

from billing_server.domain.schedule import FOLLOWING, CurrentPhase, ScheduleStatus, SubscriptionSchedule
from billing_server.domain.subscription import CancellationReason, Subscription
from billing_server.domain.turn import Turn


def schedule_of(turn: Turn, subscription: Subscription) -> SubscriptionSchedule | None:
    """The schedule that is attached to the subscription, unless it has ended."""
    found = turn.schedules.get(subscription.schedule or "")
    return None if found is None or found.ended else found


def begin(turn: Turn, schedule: SubscriptionSchedule, subscription: str) -> SubscriptionSchedule:
    """The first phase has begun, with this subscription."""
    first = schedule.phases[0]
    current = CurrentPhase(start_date=first.start_date, end_date=first.end_date)
    return _become(turn, schedule, "active", subscription=subscription, current_phase=current)


def release(turn: Turn, schedule: SubscriptionSchedule) -> SubscriptionSchedule:
    """Leave the subscription, if there is one, to itself."""
    subscription = turn.subscriptions.get(schedule.subscription or "")
    schedule = _become(
        turn,
        schedule,
        "released",
        subscription=None,
        released_subscription=schedule.subscription,
        released_at=turn.now,
    )
    turn.emit("subscription_schedule.released", schedule)
    if subscription is not None:
        turn.updated(turn.alter(subscription, schedule=None))
    return schedule


def cancel(turn: Turn, schedule: SubscriptionSchedule) -> SubscriptionSchedule:
    """End it before its time."""
    schedule = _become(turn, schedule, "canceled", canceled_at=turn.now)
    turn.emit("subscription_schedule.canceled", schedule)
    return schedule


def subscription_ended(turn: Turn, subscription: Subscription, reason: CancellationReason) -> None:
    """A schedule ends with its subscription: completed when that was its plan, else canceled.

    When missing payments ended the subscription, `subscription_schedule.aborted` tells it instead.
    """
    schedule = schedule_of(turn, subscription)
    if schedule is None:
        return
    if reason == "payment_failed":
        turn.emit("subscription_schedule.aborted", _become(turn, schedule, "canceled", canceled_at=turn.now))
        return
    planned = schedule.ends_subscription_at
    if planned is not None and planned <= turn.now:
        turn.emit("subscription_schedule.completed", _become(turn, schedule, "completed", completed_at=turn.now))
    else:
        cancel(turn, schedule)


def _become(turn: Turn, schedule: SubscriptionSchedule, status: ScheduleStatus, **changes: Any) -> SubscriptionSchedule:
    if status not in FOLLOWING[schedule.status]:
        raise AssertionError(f"schedule {schedule.id} cannot go from {schedule.status} to {status}")
    if not FOLLOWING[status]:
        changes |= {"current_phase": None, "expiring_at": None}
    return turn.alter(schedule, status=status, **changes)
