"""The ends of a subscription: canceled, and expired without a first payment (semantics 2.2 and 2.6)."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from billing_server.domain import automation_runs
from billing_server.domain.invoice import InvoiceItem
from billing_server.domain.invoicing import invoices_of, stop_collection, void
from billing_server.domain.schedule_status import subscription_ended
from billing_server.domain.subscription import CancellationReason, Subscription
from billing_server.domain.turn import Turn


def end(
    turn: Turn, subscription: Subscription, reason: CancellationReason, *, billed_last: Collection[InvoiceItem] = ()
) -> Subscription:
    """Cancel now: `customer.subscription.deleted`, and no more automatic collection of what is still owed.

    A pending update falls with the subscription, and its schedule ends. Pending items lose their tie to it, so that
    the customer's next invoice takes them, but for those that its final invoice bills.
    """
    pending = subscription.pending_update
    details = msgspec.structs.replace(subscription.cancellation_details, reason=reason)
    subscription = turn.alter(
        subscription,
        status="canceled",
        canceled_at=subscription.canceled_at or turn.now,
        ended_at=turn.now,
        cancellation_details=details,
        pending_update=None,
        resumption_invoice=None,
        next_pending_invoice_item_invoice=None,
        expires_at=None,
        upcoming_at=None,
        trial_will_end_at=None,
        trial_reminder_at=None,
    )
    turn.emit("customer.subscription.deleted", subscription)
    if pending is not None and pending.invoice in turn.invoices:
        void(turn, turn.invoices[pending.invoice])
        turn.emit("customer.subscription.pending_update_expired", subscription)
    subscription_ended(turn, subscription, reason)
    stop_collection(turn, invoices_of(turn, subscription))
    _release_items(turn, subscription, billed_last)
    automation_runs.trigger(turn, "subscription_canceled", "customer.subscription.deleted", subscription=subscription)
    return subscription


def _release_items(turn: Turn, subscription: Subscription, kept: Collection[InvoiceItem] = ()) -> None:
    """What waits for an invoice of the subscription goes onto the customer's next one."""
    staying = {item.id for item in kept}
    for item in turn.invoice_items.values():
        if item.invoice is None and item.subscription == subscription.id and item.id not in staying:
            turn.alter(item, subscription=None)


def expire(turn: Turn, subscription: Subscription) -> Subscription:
    """End an incomplete subscription for good: what it has not paid is void, nothing is billed any more."""
    for invoice in invoices_of(turn, subscription):
        if invoice.status in ("draft", "open"):
            void(turn, invoice)
    subscription = turn.alter(
        subscription, status="incomplete_expired", ended_at=turn.now, expires_at=None, pending_update=None
    )
    turn.updated(subscription)
    _release_items(turn, subscription)
    return subscription
