"""What callers do with subscription schedules: create, change, cancel and release them (semantics 1 and 4)."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET

from billing_server.domain import calendar, phase_change, phases, schedule_status
from billing_server.domain.cancellation import cancel_subscription
from billing_server.domain.change import change_by_schedule
from billing_server.domain.collection import chargeable_method
from billing_server.domain.commands import (
    CancelSubscription,
    CancelSubscriptionSchedule,
    CreateSubscriptionSchedule,
    ReleaseSubscriptionSchedule,
    UpdateSubscription,
    UpdateSubscriptionSchedule,
)
from billing_server.domain.errors import WrongState, invalid
from billing_server.domain.etag import check_etag
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.schedule import (
    CurrentPhase,
    Phase,
    ScheduleDefaults,
    SubscriptionSchedule,
)
from billing_server.domain.signup import check_number, fix_currency, refuse_deleted
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn


def create_schedule(turn: Turn, command: CreateSubscriptionSchedule) -> SubscriptionSchedule:
    """A schedule that begins a subscription now or later, or one that takes over what there is."""
    refuse_deleted(turn.customer)
    if command.from_subscription is not None:
        return _take_over(turn, turn.subscription(command.from_subscription, "from_subscription"), command)
    check_number(turn)
    begins = turn.now if command.start_date is None else command.start_date
    if begins < turn.now:
        raise invalid("start_date", "time_out_of_range", "a schedule begins now or later; leave it out for now")
    resolved = phases.resolve(turn, command.phases, begins)
    defaults = _checked(turn, command.default_settings or ScheduleDefaults())
    fix_currency(turn, turn.catalog.price(resolved[0].items[0].price).currency, "phases[0].items[0].price")
    schedule = turn.put(
        SubscriptionSchedule(
            id=turn.new_id("sub_sched"),
            created=turn.now,
            customer=turn.customer.id,
            phases=resolved,
            end_behavior=command.end_behavior,
            default_settings=defaults,
            metadata=initial_metadata(command.metadata),
            test_clock=turn.customer.test_clock,
        )
    )
    turn.emit("subscription_schedule.created", schedule)
    if begins == turn.now:
        schedule = phase_change.start(turn, schedule)
    return phase_change.announce_end(turn, schedule)


def _checked(turn: Turn, defaults: ScheduleDefaults) -> ScheduleDefaults:
    if defaults.default_payment_method is not None:
        chargeable_method(turn, defaults.default_payment_method, "default_settings.default_payment_method")
    return defaults


# --- from a subscription


def _take_over(turn: Turn, subscription: Subscription, command: CreateSubscriptionSchedule) -> SubscriptionSchedule:
    """A schedule whose only phase is the subscription as it is, until the end of its current period."""
    _refuse_unschedulable(subscription)
    end = subscription.current_period_end if subscription.cancel_at is None else subscription.cancel_at
    ends = subscription.cancel_at is not None or subscription.cancel_at_period_end
    phase = Phase(
        start_date=subscription.current_period_start,
        end_date=end,
        items=phases.as_phase_items(subscription.items),
        trial_end=min(subscription.trial_end or end, end) if subscription.status == "trialing" else None,
        default_payment_method=subscription.default_payment_method,
    )
    schedule = turn.put(
        SubscriptionSchedule(
            id=turn.new_id("sub_sched"),
            created=turn.now,
            customer=turn.customer.id,
            status="active",
            phases=(phase,),
            current_phase=CurrentPhase(start_date=phase.start_date, end_date=phase.end_date),
            end_behavior="cancel" if ends else command.end_behavior,
            default_settings=ScheduleDefaults(
                collection_method=subscription.collection_method, days_until_due=subscription.days_until_due
            ),
            subscription=subscription.id,
            metadata=initial_metadata(command.metadata),
            test_clock=turn.customer.test_clock,
        )
    )
    turn.emit("subscription_schedule.created", schedule)
    turn.alter(subscription, schedule=schedule.id)
    phase_change.adapt(turn, schedule, phase, "create_prorations")
    return phase_change.announce_end(turn, schedule)


def _refuse_unschedulable(subscription: Subscription) -> None:
    for status, reason, text in (
        ("incomplete", "subscription_incomplete", "its first invoice is not paid; schedule it after that"),
        ("paused", "subscription_paused", "its billing cycle stands still; resume it first"),
    ):
        if subscription.status == status:
            raise WrongState(reason, text, subject=subscription.id, field="from_subscription")
    if subscription.terminal:
        raise WrongState(
            "subscription_terminal",
            f"the subscription is {subscription.status} for good; create a schedule for the customer instead",
            subject=subscription.id,
            field="from_subscription",
        )
    if subscription.schedule is not None:
        raise WrongState(
            "subscription_scheduled",
            f"the subscription already has the schedule '{subscription.schedule}'; change that one",
            subject=subscription.id,
            field="from_subscription",
        )


# --- changes


def update_schedule(turn: Turn, command: UpdateSubscriptionSchedule) -> SubscriptionSchedule:
    """Change what is not past: the current and later phases, what happens at the end, the settings."""
    before = _living(turn, command.id)
    check_etag(command.etag, before.version)
    changes: dict[str, Any] = {}
    if command.metadata is not UNSET:
        changes["metadata"] = merged_metadata(before.metadata, command.metadata)
    if command.end_behavior is not UNSET:
        changes["end_behavior"] = command.end_behavior
    if command.default_settings is not UNSET:
        changes["default_settings"] = _checked(turn, command.default_settings)
    if command.phases is not UNSET:
        changes |= _other_phases(turn, before, command)
    changes = {name: value for name, value in changes.items() if value != getattr(before, name)}
    if not changes:
        return before
    schedule = turn.alter(before, **changes)
    turn.updated(schedule)
    if schedule.status == "active":
        phase_change.adapt(turn, schedule, before.phases[before.position], command.proration_behavior)
    if schedule.end_date != before.end_date:
        schedule = phase_change.announce_end(turn, schedule)
    return schedule


def _other_phases(turn: Turn, schedule: SubscriptionSchedule, command: UpdateSubscriptionSchedule) -> dict[str, Any]:
    """The phases that are past, as they are, and those that were given in the place of the others."""
    assert command.phases is not UNSET
    begins = schedule.phases[0].start_date
    if schedule.status == "not_started":
        begins = _new_start(turn, begins, command.phases[0].start_date)
        resolved = phases.resolve(turn, command.phases, begins)
        currency = turn.catalog.price(resolved[0].items[0].price).currency
        fix_currency(turn, currency, "phases[0].items[0].price")
        return {"phases": resolved}
    subscription = turn.subscription(schedule.subscription or "")
    cycle = phases.Cycle(subscription.billing_cycle_anchor, subscription.interval, subscription.interval_count)
    current = schedule.phases[schedule.position]
    resolved = phases.resolve(turn, command.phases, current.start_date, cycle)
    currency = turn.catalog.price(resolved[0].items[0].price).currency
    if currency != subscription.currency:
        raise invalid(
            "phases[0].items[0].price",
            "currency_mismatch",
            f"the subscription is billed in {subscription.currency}; use prices in it",
        )
    first = resolved[0]
    if first.end_date <= turn.now:
        raise invalid(
            "phases[0].end_date",
            "time_out_of_range",
            f"the first phase given is the current one: it must end after now, {calendar.written(turn.now)}",
        )
    current_phase = CurrentPhase(start_date=first.start_date, end_date=first.end_date)
    return {"phases": (*schedule.phases[: schedule.position], *resolved), "current_phase": current_phase}


def _new_start(turn: Turn, known: int, wished: int | None) -> int:
    if wished is None or wished == known:
        return known
    if wished <= turn.now:
        raise invalid("phases[0].start_date", "time_out_of_range", f"must be after now, {calendar.written(turn.now)}")
    return wished


# --- ends


def cancel_schedule(turn: Turn, command: CancelSubscriptionSchedule) -> SubscriptionSchedule:
    """End the schedule and, if there is one, its subscription with it."""
    schedule = _living(turn, command.id)
    if schedule.subscription is None:
        return schedule_status.cancel(turn, schedule)
    cancel_subscription(
        turn,
        CancelSubscription(id=schedule.subscription, invoice_now=command.invoice_now, prorate=command.prorate),
    )
    return turn.schedule(schedule.id)


def release_schedule(turn: Turn, command: ReleaseSubscriptionSchedule) -> SubscriptionSchedule:
    """Leave the subscription to itself; the end that the schedule has set for it goes, unless it is kept."""
    schedule = _living(turn, command.id)
    planned = None if schedule.status == "not_started" else schedule.ends_subscription_at
    subscription_id = schedule.subscription
    schedule = schedule_status.release(turn, schedule)
    if planned is not None and subscription_id is not None and not command.preserve_cancel_date:
        subscription = turn.subscription(subscription_id)
        change_by_schedule(turn, subscription, UpdateSubscription(id=subscription_id, cancel_at=None))
    return schedule


def _living(turn: Turn, schedule_id: str) -> SubscriptionSchedule:
    schedule = turn.schedule(schedule_id)
    if schedule.ended:
        raise WrongState("schedule_ended", f"the schedule is {schedule.status} for good", subject=schedule.id)
    return schedule
