"""The attributes of a subscription that are simply set, and which may be set in which status (semantics 2.6)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from billing_server.domain import calendar
from billing_server.domain.collection import chargeable_method
from billing_server.domain.commands import UpdateSubscription
from billing_server.domain.errors import InvalidArgument, Violation, WrongState, invalid
from billing_server.domain.metadata import merged_metadata
from billing_server.domain.subscription import PauseCollection, Subscription
from billing_server.domain.turn import Turn

_ALWAYS = frozenset({"metadata", "cancellation_comment", "cancellation_feedback"})
_WHILE_INCOMPLETE = frozenset({"metadata", "description", "save_default_payment_method", "default_payment_method"})
_WITH_PENDING_UPDATE = frozenset(
    {
        "items",
        "billing_cycle_anchor_now",
        "trial_end",
        "trial_end_now",
        "trial_from_plan",
        "proration_behavior",
        "proration_date",
        "add_invoice_items",
    }
)
_NOT_WHILE_PAUSED = frozenset({"trial_end", "trial_end_now", "trial_from_plan", "billing_cycle_anchor_now"})
_NOT_A_CHANGE = frozenset({"id", "etag", "payment_behavior"})
_NO_CHANGE_ALONE = _NOT_A_CHANGE | {"proration_behavior", "proration_date"}


def refuse_unchangeable(subscription: Subscription, command: UpdateSubscription) -> None:
    """Refuse what the subscription's status, or the wished payment behavior, does not allow."""
    given = _given(command)
    if subscription.terminal:
        _only(
            given - _NO_CHANGE_ALONE,
            _ALWAYS,
            "subscription_terminal",
            f"the subscription is {subscription.status} for good",
            subscription,
        )
    if subscription.status == "incomplete":
        _only(
            given - _NO_CHANGE_ALONE,
            _WHILE_INCOMPLETE,
            "subscription_incomplete",
            "the subscription is incomplete until its first invoice is paid",
            subscription,
        )
    if subscription.status == "paused" and given & _NOT_WHILE_PAUSED:
        raise WrongState(
            "subscription_paused",
            "trial and anchor of a paused subscription cannot be changed; resume it first",
            subject=subscription.id,
            field=min(given & _NOT_WHILE_PAUSED),
        )
    if subscription.schedule is not None and given & {"cancel_at", "cancel_at_period_end"}:
        raise WrongState(
            "subscription_scheduled",
            f"the schedule '{subscription.schedule}' decides when this subscription ends; change its phases or "
            "end_behavior, or release it first",
            subject=subscription.id,
            field=min(given & {"cancel_at", "cancel_at_period_end"}),
        )
    if command.billing_cycle_anchor_now and subscription.status == "trialing" and not command.trial_end_now:
        raise WrongState(
            "subscription_state_invalid",
            "the anchor of a trial is its end; move it by trial_end, or end the trial by trial_end_now",
            subject=subscription.id,
            field="billing_cycle_anchor_now",
        )
    if command.trial_end_now and subscription.status != "trialing":
        raise WrongState(
            "subscription_state_invalid",
            f"only a trial can be ended; this subscription is {subscription.status}",
            subject=subscription.id,
            field="trial_end_now",
        )
    if command.payment_behavior == "pending_if_incomplete":
        _check_pending_update(given, subscription)


def _check_pending_update(given: frozenset[str], subscription: Subscription) -> None:
    violations = [
        Violation(
            name,
            "parameters_exclusive",
            "payment_behavior=pending_if_incomplete does not allow this; change it by a second update",
        )
        for name in sorted(given - _NOT_A_CHANGE - _WITH_PENDING_UPDATE)
    ]
    if subscription.collection_method != "charge_automatically":
        violations.append(
            Violation("payment_behavior", "parameters_exclusive", "pending updates need charge_automatically")
        )
    if violations:
        raise InvalidArgument(*violations)


def _given(command: UpdateSubscription) -> frozenset[str]:
    """The names of the attributes that the command sets to anything but their defaults."""
    defaults = UpdateSubscription(id=command.id)
    return frozenset(name for name in command.__struct_fields__ if getattr(command, name) != getattr(defaults, name))


def _only(given: frozenset[str], allowed: frozenset[str], reason: str, state: str, subscription: Subscription) -> None:
    refused = sorted(given - allowed)
    if refused:
        raise WrongState(
            reason,
            f"{state}; only {', '.join(sorted(allowed))} may be changed, not {', '.join(refused)}",
            subject=subscription.id,
            field=refused[0],
        )


def plain_changes(turn: Turn, subscription: Subscription, command: UpdateSubscription) -> dict[str, Any]:
    """The attributes to set, checked against the book."""
    changes: dict[str, Any] = {}
    for name in ("description", "save_default_payment_method", "off_session"):
        value = getattr(command, name)
        if value is not UNSET:
            changes[name] = value
    if command.metadata is not UNSET:
        changes["metadata"] = merged_metadata(subscription.metadata, command.metadata)
    if command.default_payment_method is not UNSET:
        if command.default_payment_method is not None:
            chargeable_method(turn, command.default_payment_method, "default_payment_method")
        changes["default_payment_method"] = command.default_payment_method
    changes |= _collection(subscription, command)
    changes |= _cancellation(turn, subscription, command)
    changes |= _pause(turn, command)
    changes |= _item_invoices(turn, command)
    return changes


def _collection(subscription: Subscription, command: UpdateSubscription) -> dict[str, Any]:
    """Collection method and due days go together; the change affects invoices created later only."""
    method = subscription.collection_method if command.collection_method is UNSET else command.collection_method
    days = subscription.days_until_due if command.days_until_due is UNSET else command.days_until_due
    if method == "charge_automatically" and command.days_until_due is UNSET:
        days = None
    if method == "send_invoice" and days is None:
        raise invalid("days_until_due", "parameter_missing", "send_invoice needs days_until_due")
    if method == "charge_automatically" and days is not None:
        raise invalid("days_until_due", "parameters_exclusive", "charge_automatically takes no days_until_due")
    changes: dict[str, Any] = {}
    if method != subscription.collection_method:
        changes["collection_method"] = method
    if days != subscription.days_until_due:
        changes["days_until_due"] = days
    if command.missing_payment_method is not UNSET:
        if method != "charge_automatically" and command.missing_payment_method != "create_invoice":
            raise WrongState(
                "subscription_collection_method",
                "this needs collection_method=charge_automatically",
                subject=subscription.id,
                field="missing_payment_method",
            )
        changes["missing_payment_method"] = command.missing_payment_method
    return changes


def _cancellation(turn: Turn, subscription: Subscription, command: UpdateSubscription) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    details = subscription.cancellation_details
    if command.cancellation_comment is not UNSET:
        details = msgspec.structs.replace(details, comment=command.cancellation_comment)
    if command.cancellation_feedback is not UNSET:
        details = msgspec.structs.replace(details, feedback=command.cancellation_feedback)
    cancel_at = subscription.cancel_at if command.cancel_at is UNSET else command.cancel_at
    at_end = (
        subscription.cancel_at_period_end if command.cancel_at_period_end is UNSET else command.cancel_at_period_end
    )
    if command.cancel_at is not UNSET and command.cancel_at is not None:
        if command.cancel_at <= turn.now:
            raise invalid(
                "cancel_at",
                "time_out_of_range",
                f"must be after now, {calendar.written(turn.now)}; cancel now by CancelSubscription",
            )
        at_end = False
    if command.cancel_at_period_end is True:
        cancel_at = None
    will_end = at_end or cancel_at is not None
    wanted_end = subscription.cancel_at_period_end or subscription.cancel_at is not None
    if (at_end, cancel_at) != (subscription.cancel_at_period_end, subscription.cancel_at):
        changes |= {"cancel_at": cancel_at, "cancel_at_period_end": at_end}
        if will_end and not wanted_end:
            changes["canceled_at"] = turn.now
            details = msgspec.structs.replace(details, reason="cancellation_requested")
        elif not will_end:
            changes["canceled_at"] = None
            details = msgspec.structs.replace(details, reason=None)
    if details != subscription.cancellation_details:
        changes["cancellation_details"] = details
    return changes


def _pause(turn: Turn, command: UpdateSubscription) -> dict[str, Any]:
    pause = command.pause_collection
    if pause is UNSET:
        return {}
    if isinstance(pause, PauseCollection) and pause.resumes_at is not None and pause.resumes_at <= turn.now:
        raise invalid(
            "pause_collection.resumes_at",
            "time_out_of_range",
            f"must be after now, {calendar.written(turn.now)}; to collect again at once, unset pause_collection",
        )
    return {"pause_collection": pause}


def _item_invoices(turn: Turn, command: UpdateSubscription) -> dict[str, Any]:
    every = command.pending_invoice_item_interval
    if every is UNSET:
        return {}
    following = None
    if every is not None:
        following = calendar.boundary(turn.now, every.interval, every.interval_count, 1)
    return {"pending_invoice_item_interval": every, "next_pending_invoice_item_invoice": following}
