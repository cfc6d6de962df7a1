"""From phase to phase: what entering one does to the subscription, and what time does to a schedule (semantics 4)."""

from __future__ import annotations

from typing import Any

from billing_server.domain import pending_update, schedule_status, signup
from billing_server.domain.change import change_by_schedule
from billing_server.domain.commands import CreateSubscription, ItemChange, ItemParams, UpdateSubscription
from billing_server.domain.metadata import KEYS_MAX
from billing_server.domain.schedule import (
    EXPIRING_SECONDS,
    CurrentPhase,
    Phase,
    SubscriptionSchedule,
)
from billing_server.domain.subscription import CollectionMethod, ProrationBehavior, Subscription
from billing_server.domain.turn import Turn


def wake(turn: Turn, schedule: SubscriptionSchedule) -> None:
    """Do what is due at `turn.now`, one thing at a time; what stays due wakes the schedule again."""
    if schedule.expiring_at is not None and schedule.expiring_at <= turn.now:
        turn.emit("subscription_schedule.expiring", turn.note(schedule, expiring_at=None))
    elif schedule.status == "not_started":
        start(turn, schedule)
    else:
        _end_phase(turn, schedule)


def announce_end(turn: Turn, schedule: SubscriptionSchedule) -> SubscriptionSchedule:
    """Plan `subscription_schedule.expiring` for seven days before the end, or tell it at once when that is past."""
    moment = schedule.end_date - EXPIRING_SECONDS
    if moment > turn.now:
        return turn.note(schedule, expiring_at=moment)
    schedule = turn.note(schedule, expiring_at=None)
    turn.emit("subscription_schedule.expiring", schedule)
    return schedule


def start(turn: Turn, schedule: SubscriptionSchedule) -> SubscriptionSchedule:
    """Begin the first phase: the schedule is active, and so is its new subscription."""
    phase = schedule.phases[0]
    active = schedule_status.begin(turn, schedule, turn.new_id("sub"))
    method, days = _collection(schedule, phase)
    command = CreateSubscription(
        customer=schedule.customer,
        items=tuple(
            ItemParams(price=item.price, quantity=item.quantity, metadata=item.metadata) for item in phase.items
        ),
        collection_method=method,
        days_until_due=days,
        proration_behavior=phase.proration_behavior,
        cancel_at=active.ends_subscription_at,
        trial_end=phase.trial_end,
        default_payment_method=_payment_method(turn, schedule, phase),
        add_invoice_items=phase.add_invoice_items,
        description=phase.description or schedule.default_settings.description,
        metadata=phase.metadata,
    )
    signup.begin(turn, command, identity=active.subscription, schedule=schedule.id)
    turn.updated(active)
    return active


def _end_phase(turn: Turn, schedule: SubscriptionSchedule) -> None:
    following = schedule.following
    if following is None:
        schedule_status.release(turn, schedule)
        return
    current = CurrentPhase(start_date=following.start_date, end_date=following.end_date)
    schedule = turn.alter(schedule, current_phase=current)
    turn.updated(schedule)
    subscription = turn.subscription(schedule.subscription or "")
    if subscription.pending_update is not None:
        subscription = pending_update.drop(turn, subscription)
    _enter(turn, schedule, subscription, following)


# --- what a phase makes of the subscription


def _enter(turn: Turn, schedule: SubscriptionSchedule, subscription: Subscription, phase: Phase) -> Subscription:
    """Make the subscription what the phase says, over whatever it was changed to meanwhile."""
    changes = _contents(turn, schedule, subscription, phase) | _cancellation(schedule, subscription)
    if subscription.status == "trialing" and (phase.trial_end is None or phase.trial_end <= turn.now):
        subscription = end_trial(turn, subscription, phase)
    elif subscription.status != "paused":
        changes |= _cycle(turn, subscription, phase)
    return change_by_schedule(
        turn,
        subscription,
        UpdateSubscription(
            id=subscription.id,
            proration_behavior=phase.proration_behavior,
            add_invoice_items=phase.add_invoice_items,
            **changes,
        ),
    )


def adapt(
    turn: Turn,
    schedule: SubscriptionSchedule,
    before: Phase,
    proration_behavior: ProrationBehavior,
) -> Subscription:
    """Bring the subscription in line with its current phase after the schedule was changed.

    `before` is the phase as it was. What has not changed of it leaves direct changes of the subscription alone.
    """
    subscription = turn.subscription(schedule.subscription or "")
    phase = schedule.phases[schedule.position]
    changes = _cancellation(schedule, subscription)
    if _lasting(phase) != _lasting(before):
        if subscription.pending_update is not None:
            subscription = pending_update.drop(turn, subscription)
        changes |= _contents(turn, schedule, subscription, phase)
    if phase.trial_end != before.trial_end and subscription.status != "paused":
        if phase.trial_end is not None and phase.trial_end > turn.now:
            changes["trial_end"] = phase.trial_end
        elif subscription.status == "trialing":
            subscription = end_trial(turn, subscription, phase)
    if not changes:
        return subscription
    command = UpdateSubscription(id=subscription.id, proration_behavior=proration_behavior, **changes)
    return change_by_schedule(turn, subscription, command)


def end_trial(turn: Turn, subscription: Subscription, phase: Phase) -> Subscription:
    """Let a trial end now: the wake-up of its end, at the same second, bills the first period."""
    if subscription.trial_end == turn.now and phase.billing_cycle_anchor == "automatic":
        return subscription
    return turn.alter(
        subscription,
        trial_end=turn.now,
        current_period_end=turn.now,
        billing_cycle_anchor=turn.now,
        billing_cycle_anchor_config=None,
    )


def _lasting(phase: Phase) -> tuple[object, ...]:
    """What of a phase holds as long as it lasts, and is therefore set again when it changes."""
    return (
        phase.items,
        phase.collection_method,
        phase.days_until_due,
        phase.default_payment_method,
        phase.description,
        phase.metadata,
    )


def _cycle(turn: Turn, subscription: Subscription, phase: Phase) -> dict[str, Any]:
    """A trial or a new anchor; a trial that is only the old one goes on."""
    if phase.trial_end is not None and phase.trial_end > turn.now:
        same = subscription.status == "trialing" and subscription.trial_end == phase.trial_end
        return {} if same else {"trial_end": phase.trial_end}
    return {"billing_cycle_anchor_now": True} if phase.billing_cycle_anchor == "phase_start" else {}


def _cancellation(schedule: SubscriptionSchedule, subscription: Subscription) -> dict[str, Any]:
    """The subscription ends with the last phase, or with none."""
    wanted = schedule.ends_subscription_at
    changes: dict[str, Any] = {}
    if subscription.cancel_at_period_end:
        changes["cancel_at_period_end"] = False
    if wanted != subscription.cancel_at:
        changes["cancel_at"] = wanted
    return changes


def _contents(turn: Turn, schedule: SubscriptionSchedule, subscription: Subscription, phase: Phase) -> dict[str, Any]:
    """Items and settings of the phase, as an update says them."""
    method, days = _collection(schedule, phase)
    changes: dict[str, Any] = {"collection_method": method}
    if days is not None:
        changes["days_until_due"] = days
    items = _item_changes(subscription, phase)
    if items:
        changes["items"] = items
    payment_method = _payment_method(turn, schedule, phase)
    if payment_method is not None:
        changes["default_payment_method"] = payment_method
    description = phase.description or schedule.default_settings.description
    if description is not None:
        changes["description"] = description
    if phase.metadata:
        changes["metadata"] = _fitting(subscription, phase)
    return changes


def _item_changes(subscription: Subscription, phase: Phase) -> tuple[ItemChange, ...]:
    """Items of the same price stay and get the phase's quantity; others go, and new ones come."""
    known = {item.price: item for item in subscription.items}
    changes = []
    for wanted in phase.items:
        item = known.pop(wanted.price, None)
        if item is None:
            changes.append(ItemChange(price=wanted.price, quantity=wanted.quantity, metadata=wanted.metadata))
        elif (item.quantity, item.metadata) != (wanted.quantity, wanted.metadata):
            metadata = {**dict.fromkeys(item.metadata, ""), **wanted.metadata}
            changes.append(ItemChange(id=item.id, quantity=wanted.quantity, metadata=metadata))
    return (*changes, *(ItemChange(id=item.id, deleted=True) for item in known.values()))


def _collection(schedule: SubscriptionSchedule, phase: Phase) -> tuple[CollectionMethod, int | None]:
    if phase.collection_method is not None:
        return phase.collection_method, phase.days_until_due
    return schedule.default_settings.collection_method, schedule.default_settings.days_until_due


def _payment_method(turn: Turn, schedule: SubscriptionSchedule, phase: Phase) -> str | None:
    """The payment method of the phase or of all phases; none that was detached since it was named."""
    wanted = phase.default_payment_method or schedule.default_settings.default_payment_method
    method = turn.payment_methods.get(wanted or "")
    return None if method is None or method.detached_at is not None else wanted


def _fitting(subscription: Subscription, phase: Phase) -> dict[str, str]:
    """The phase's metadata; where both together are too many, the last keys of the subscription make room."""
    merged = {key for key, value in (subscription.metadata | phase.metadata).items() if value}
    surplus = max(len(merged) - KEYS_MAX, 0)
    others = [key for key in subscription.metadata if key not in phase.metadata]
    return {**phase.metadata, **dict.fromkeys(others[len(others) - surplus :], "")}
