"""Canceling a subscription now, and the final invoice that this may call for (semantics 2.6)."""

from __future__ import annotations

import msgspec

from billing_server.domain import adjustments, standing
from billing_server.domain.collection import collect
from billing_server.domain.commands import CancelSubscription
from billing_server.domain.errors import WrongState
from billing_server.domain.invoice import Invoice, InvoiceItem
from billing_server.domain.invoicing import (
    create_invoice,
    finalize,
    metered_lines,
    tell_created,
)
from billing_server.domain.pause import handle_born_paused
from billing_server.domain.subscription import CancellationDetails, Subscription
from billing_server.domain.termination import end, expire
from billing_server.domain.turn import Turn
from billing_server.domain.usage import CHARGED


def cancel_subscription(turn: Turn, command: CancelSubscription) -> Subscription:
    """Cancel at once; an incomplete subscription expires instead (decision 22)."""
    subscription = turn.subscription(command.id)
    if subscription.terminal:
        raise WrongState(
            "subscription_terminal",
            f"the subscription is already {subscription.status}",
            subject=subscription.id,
        )
    details = CancellationDetails(
        comment=command.comment or subscription.cancellation_details.comment,
        feedback=command.feedback or subscription.cancellation_details.feedback,
        reason="cancellation_requested",
    )
    subscription = msgspec.structs.replace(subscription, cancellation_details=details, canceled_at=turn.now)
    if subscription.status == "incomplete":
        return expire(turn, subscription)
    return _cancel(turn, subscription, command)


def _cancel(turn: Turn, subscription: Subscription, command: CancelSubscription) -> Subscription:
    given_back = []
    if command.prorate:
        given_back = adjustments.credits_for(turn, subscription, subscription.items, turn.now)
    pending = [
        item for item in turn.invoice_items.values() if item.invoice is None and item.subscription == subscription.id
    ]
    prorations = [item for item in pending if item.proration]
    used = [item for item in pending if not item.proration and item.subscription_item is not None]
    if not command.invoice_now and not command.prorate:
        for item in prorations:
            turn.emit("invoiceitem.deleted", item)
            turn.remove(item)
        prorations = []
    before = subscription
    kept = [*prorations, *used] if command.invoice_now else []
    subscription = end(turn, subscription, "cancellation_requested", billed_last=kept)
    credits_created = adjustments.as_pending_items(turn, before, given_back)
    if not command.invoice_now:
        for item in credits_created:
            turn.alter(item, subscription=None)
        return turn.subscriptions[subscription.id]
    final_invoice(turn, subscription, [*reversed(credits_created), *reversed(kept)], usage=before.status in CHARGED)
    return turn.subscriptions[subscription.id]


def final_invoice(turn: Turn, subscription: Subscription, items: list[InvoiceItem], *, usage: bool) -> Invoice | None:
    """Bill what is left over when a subscription ends: pending prorations, and usage unless it was free.

    It is charged at once.
    """
    start = subscription.current_period_start if usage else turn.now
    lines = metered_lines(turn, subscription, start, turn.now)
    if not items and not any(line.amount for line in lines):
        return None
    automatic = subscription.collection_method == "charge_automatically"
    invoice = create_invoice(
        turn,
        reason="subscription_cycle",
        currency=subscription.currency,
        lines=lines,
        period=(subscription.current_period_start, turn.now),
        subscription=subscription,
        sweep=items,
        collection_method=subscription.collection_method,
        days_until_due=subscription.days_until_due,
        auto_advance=True,
        finalizes_at=None if automatic else turn.now + turn.settings.finalization_delay_seconds,
    )
    turn.updated(turn.alter(turn.subscriptions[subscription.id], latest_invoice=invoice.id))
    if subscription.paused_at(turn.now):
        return handle_born_paused(turn, subscription, invoice)
    tell_created(turn, invoice)
    if not automatic:
        return invoice
    invoice = finalize(turn, invoice)
    if invoice.status == "open":
        invoice = collect(turn, invoice)
    else:
        standing.invoice_paid(turn, invoice)
    return invoice
