"""Leaving `paused`: the call, the resumption invoice, and the moment it is really resumed (semantics 4)."""

from __future__ import annotations

import msgspec

from billing_server.domain import adjustments, calendar, cycle, usage
from billing_server.domain.commands import ResumeSubscription
from billing_server.domain.errors import WrongState, invalid
from billing_server.domain.invoice import InvoiceLine
from billing_server.domain.invoicing import (
    create_invoice,
    finalize,
    metered_lines,
    pending_items,
    period_lines,
    tell_created,
    void,
)
from billing_server.domain.pause import handle_born_paused
from billing_server.domain.subscription import INCOMPLETE_LIFETIME_SECONDS, Subscription
from billing_server.domain.turn import Turn


def activate(turn: Turn, subscription: Subscription, start: int, end: int) -> Subscription:
    """The subscription is active in the period from `start` to `end` and says so.

    Only now its cycle moves on, and its usage counts again.
    """
    changes: dict[str, object] = {}
    cycle_of = (subscription.billing_cycle_anchor, subscription.interval, subscription.interval_count)
    if calendar.period_around(*cycle_of, start)[0] != start:
        changes |= {"billing_cycle_anchor": start, "billing_cycle_anchor_config": None}
    every, moment = subscription.pending_invoice_item_interval, subscription.next_pending_invoice_item_invoice
    if every is not None and moment is not None and moment <= turn.now:
        changes["next_pending_invoice_item_invoice"] = calendar.next_boundary(
            moment, every.interval, every.interval_count, turn.now
        )
    subscription = turn.alter(
        subscription,
        status="active",
        items=usage.resumed(turn, subscription.items),
        current_period_start=start,
        current_period_end=end,
        resumption_invoice=None,
        expires_at=None,
        free_stub=False,
        **changes,
    )
    subscription = turn.note(subscription, upcoming_at=cycle.upcoming_at(subscription, turn.settings, turn.now))
    turn.updated(subscription)
    turn.emit("customer.subscription.resumed", subscription)
    return subscription


def resume_subscription(turn: Turn, command: ResumeSubscription) -> Subscription:
    """Begin to resume a paused subscription: active at once when nothing is due, else when that is paid."""
    subscription = _resumable(turn, command)
    if subscription.resumption_invoice is not None:
        subscription = _drop_earlier(turn, subscription)
    # Only the end of a trial pauses a subscription, and nothing has been charged since.
    subscription = msgspec.structs.replace(subscription, trial_over_untold=True)
    if command.billing_cycle_anchor == "unchanged":
        return _unchanged(turn, subscription, command)
    anchored = msgspec.structs.replace(subscription, billing_cycle_anchor=turn.now)
    period = cycle.period_from(anchored, turn.now)
    lines = period_lines(turn, subscription, period.start, period.end, full=period.full)
    lines += metered_lines(turn, subscription, turn.now, turn.now)
    return _with_invoice(turn, subscription, period.start, period.end, lines)


def _resumable(turn: Turn, command: ResumeSubscription) -> Subscription:
    subscription = turn.subscription(command.id)
    if subscription.status != "paused":
        raise WrongState(
            "subscription_not_paused",
            f"only paused subscriptions are resumed; it is {subscription.status}",
            subject=subscription.id,
        )
    if subscription.collection_method != "charge_automatically":
        raise WrongState(
            "subscription_collection_method",
            "only charge_automatically can be resumed; change collection_method first",
            subject=subscription.id,
        )
    if command.proration_date is not None and command.proration_date > turn.now:
        raise invalid("proration_date", "time_out_of_range", f"must not be after now, {calendar.written(turn.now)}")
    return subscription


def _drop_earlier(turn: Turn, subscription: Subscription) -> Subscription:
    """A second call replaces the resumption invoice of the first."""
    invoice = turn.invoices.get(subscription.resumption_invoice or "")
    if invoice is not None and invoice.status in ("draft", "open"):
        void(turn, invoice)
    return turn.note(subscription, resumption_invoice=None)


def _unchanged(turn: Turn, subscription: Subscription, command: ResumeSubscription) -> Subscription:
    """Periods advance along the old anchor until they surround now; the rest of this one is prorated."""
    at = turn.now if command.proration_date is None else command.proration_date
    start, end = calendar.period_around(
        subscription.billing_cycle_anchor, subscription.interval, subscription.interval_count, turn.now
    )
    if subscription.cancel_at is not None:
        end = min(end, subscription.cancel_at)
    if command.proration_behavior == "none":
        return activate(turn, subscription, start, end)
    moved = msgspec.structs.replace(
        subscription, status="active", free_stub=False, current_period_start=start, current_period_end=end
    )
    asked = adjustments.debits_for(turn, moved, moved.items, max(at, start))
    if command.proration_behavior == "always_invoice":
        return _with_invoice(turn, subscription, start, end, adjustments.as_lines(turn, asked))
    adjustments.as_pending_items(turn, subscription, asked)
    return activate(turn, subscription, start, end)


def _with_invoice(
    turn: Turn, subscription: Subscription, start: int, end: int, lines: list[InvoiceLine]
) -> Subscription:
    """Invoice the resumption; it must be paid (or given up) within 23 hours to take effect.

    The period of the invoice is the one that the subscription will then be in. While collection is paused nobody is
    asked to pay, so it takes effect at once, and the invoice is handled as the pause says (as decision 18 does).
    """
    sweep = pending_items(turn, subscription=subscription.id, currency=subscription.currency)
    if not lines and not sweep:
        return activate(turn, subscription, start, end)
    paused = subscription.paused_at(turn.now)
    invoice_id = turn.new_id("in")
    counts = {} if paused else {"status_invoice": invoice_id}
    subscription = turn.alter(subscription, latest_invoice=invoice_id, **counts)
    if paused:
        subscription = activate(turn, subscription, start, end)
    invoice = create_invoice(
        turn,
        invoice_id=invoice_id,
        reason="subscription_update",
        currency=subscription.currency,
        lines=lines,
        period=(start, end),
        subscription=subscription,
        sweep=sweep,
        collection_method="charge_automatically",
        auto_advance=False,
    )
    if paused:
        handle_born_paused(turn, subscription, invoice)
        return subscription
    tell_created(turn, invoice)
    invoice = finalize(turn, invoice)
    if invoice.status == "paid":
        return activate(turn, subscription, start, end)
    return turn.alter(
        turn.subscriptions[subscription.id],
        resumption_invoice=invoice_id,
        expires_at=turn.now + INCOMPLETE_LIFETIME_SECONDS,
    )


def expire_resumption(turn: Turn, subscription: Subscription) -> Subscription:
    """Nobody paid the resumption invoice within 23 hours: it is void, the subscription stays paused (decision 2)."""
    return give_up(turn, _drop_earlier(turn, subscription))


def give_up(turn: Turn, subscription: Subscription) -> Subscription:
    """The resumption came to nothing: the subscription stays paused, and may be resumed again."""
    subscription = turn.alter(subscription, resumption_invoice=None, expires_at=None)
    turn.updated(subscription)
    return subscription
