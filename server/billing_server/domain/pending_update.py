"""A change that waits for its payment: applied when paid, dropped after 23 hours (semantics 2.4)."""

from __future__ import annotations

from billing_server.domain import cycle, trial_notices, usage
from billing_server.domain.invoicing import void
from billing_server.domain.subscription import PendingUpdate, Subscription
from billing_server.domain.turn import Turn

_APPLIED = (
    "billing_cycle_anchor",
    "trial_end",
    "current_period_start",
    "current_period_end",
    "interval",
    "interval_count",
)


def apply(turn: Turn, subscription: Subscription, pending: PendingUpdate) -> Subscription:
    """The invoice was paid: the change takes effect."""
    changes: dict[str, object] = {"pending_update": None, "status_invoice": pending.invoice}
    if pending.subscription_items:
        changes["items"] = usage.begun(turn, subscription.items, pending.subscription_items)
    for name in _APPLIED:
        value = getattr(pending, name)
        if value is not None:
            changes[name] = value
    if pending.trial_end is not None and pending.trial_end > turn.now:
        changes["status"] = "trialing"
        again = subscription.billing_mode == "flexible" and subscription.status != "trialing"
        changes["trial_start"] = turn.now if again else subscription.trial_start or turn.now
    elif subscription.status in ("past_due", "unpaid") or pending.trial_end is not None:
        changes["status"] = "active"
    if pending.billing_cycle_anchor is not None:
        changes["billing_cycle_anchor_config"] = None
        changes["free_stub"] = False
    subscription = turn.alter(subscription, **changes)
    subscription = turn.note(subscription, upcoming_at=cycle.upcoming_at(subscription, turn.settings, turn.now))
    turn.updated(subscription)
    turn.emit("customer.subscription.pending_update_applied", subscription)
    return subscription if pending.trial_end is None else trial_notices.announce(turn, subscription)


def drop(turn: Turn, subscription: Subscription) -> Subscription:
    """Too late, voided or replaced: the invoice is void and the subscription stays as it was."""
    pending = subscription.pending_update
    if pending is None:
        return subscription
    subscription = turn.alter(subscription, pending_update=None)
    invoice = turn.invoices.get(pending.invoice)
    if invoice is not None and invoice.status in ("draft", "open"):
        void(turn, invoice)
    turn.updated(subscription)
    turn.emit("customer.subscription.pending_update_expired", subscription)
    return subscription
