"""How invoices move the status of their subscription, and whether the customer is delinquent.

The rule (semantics 2.1): the status follows the most recent invoice that is not void; older open invoices do
not matter. `Subscription.status_invoice` names that invoice. Drafts, and open invoices of which nothing is
missing yet, say nothing: the newest one that does, decides.

Invoices that are settled are not loaded as a rule. So nothing here looks at them, but for what the walk after a
voided invoice has loaded (`Reach.history`).
"""

from __future__ import annotations

from billing_server.domain import cycle, pending_update, resumption, trial_notices
from billing_server.domain.account import SubscriptionFinalAction
from billing_server.domain.invoice import Invoice
from billing_server.domain.invoicing import invoices_of, stop_collection
from billing_server.domain.subscription import Subscription
from billing_server.domain.termination import end, expire
from billing_server.domain.turn import Turn


def invoice_paid(turn: Turn, invoice: Invoice, *, paid_with: str | None = None) -> None:
    """An invoice was paid: its subscription may become active, the customer is no longer delinquent.

    `paid_with` is the payment method that paid it, kept as default when the subscription asks for that.
    """
    subscription = turn.subscription_of(invoice)
    if subscription is not None and not subscription.terminal:
        if paid_with is not None and subscription.save_default_payment_method == "on_subscription":
            subscription = turn.alter(subscription, default_payment_method=paid_with)
        _activate(turn, subscription, invoice)
    clear_delinquency(turn)


def _activate(turn: Turn, subscription: Subscription, invoice: Invoice) -> None:
    pending = subscription.pending_update
    if pending is not None and pending.invoice == invoice.id:
        pending_update.apply(turn, subscription, pending)
    elif subscription.status == "incomplete" and invoice.id == subscription.first_invoice:
        trialing = subscription.trial_end is not None and subscription.trial_end > turn.now
        subscription = turn.alter(subscription, status="trialing" if trialing else "active", expires_at=None)
        _plan_notice(turn, subscription, since=subscription.current_period_start)
        trial_notices.announce(turn, turn.subscriptions[subscription.id])
    elif subscription.status == "paused" and invoice.id == subscription.resumption_invoice:
        resumption.activate(turn, subscription, invoice.period_start, invoice.period_end)
    elif subscription.status in ("past_due", "unpaid") and _speaks_last(turn, subscription, invoice):
        _plan_notice(turn, turn.alter(subscription, status="active"))


def _plan_notice(turn: Turn, subscription: Subscription, since: int | None = None) -> None:
    """Tell that the subscription is active, and plan the notice of its next renewal.

    What would have been told since a moment, had it been active, is told now.
    """
    moment = cycle.upcoming_at(subscription, turn.settings, turn.now if since is None else since)
    turn.updated(turn.note(subscription, upcoming_at=None if moment is None else max(moment, turn.now)))


# --- which invoice decides


def _counts(subscription: Subscription, invoice: Invoice) -> bool:
    """Whether an invoice can decide the status: one of a period or of a change that has taken effect."""
    pending = subscription.pending_update
    waits = pending is not None and pending.invoice == invoice.id
    return invoice.billing_reason != "manual" and not invoice.collection_paused and not waits


def _speaks_last(turn: Turn, subscription: Subscription, invoice: Invoice) -> bool:
    """Whether an invoice decides the status now: it counts, and no newer one says anything."""
    if not _counts(subscription, invoice):
        return False
    newest = subscription.status_invoice
    if newest is not None and newest > invoice.id:
        found = turn.invoices.get(newest)
        if found is None or found.status not in ("draft", "open"):
            return False
    return not any(
        _missing(turn, other) and (other.created, other.id) > (invoice.created, invoice.id)
        for other in _counting(turn, subscription)
    )


def _missing(turn: Turn, invoice: Invoice) -> bool:
    """Whether the money of an invoice should be there and is not."""
    if invoice.status != "open":
        return False
    unconfirmed = (
        invoice.billing_reason == "subscription_update"
        and invoice.collection_method == "charge_automatically"
        and not (invoice.attempted or invoice.charging)
    )
    return unconfirmed or invoice.first_failure_at is not None or invoice.overdue(turn.now)


def _counting(turn: Turn, subscription: Subscription) -> list[Invoice]:
    """The loaded, finalized invoices of the subscription that count and are not void, newest first."""
    return [
        invoice
        for invoice in reversed(invoices_of(turn, subscription))
        if invoice.status not in ("draft", "void") and _counts(subscription, invoice)
    ]


# --- what happens to invoices


def clear_delinquency(turn: Turn) -> None:
    """Any paid invoice, or one marked uncollectible by the API, makes the customer good again."""
    if turn.customer.delinquent:
        turn.updated(turn.alter(turn.customer, delinquent=False))


def payment_failed(turn: Turn, invoice: Invoice, *, automatic: bool) -> None:
    """A scheduled payment failed: the subscription is past due if its invoice decides."""
    _fall_behind(turn, invoice)
    if automatic:
        become_delinquent(turn)


def become_delinquent(turn: Turn) -> None:
    """An automatic payment failed, or a due date passed."""
    if not turn.customer.delinquent:
        turn.updated(turn.alter(turn.customer, delinquent=True))


def due_date_passed(turn: Turn, invoice: Invoice) -> None:
    """A sent invoice was not paid in time (semantics 6): past due, without any retry."""
    _fall_behind(turn, invoice)
    become_delinquent(turn)


def _fall_behind(turn: Turn, invoice: Invoice) -> None:
    subscription = turn.subscription_of(invoice)
    if subscription is not None and subscription.status == "active" and _speaks_last(turn, subscription, invoice):
        turn.updated(turn.alter(subscription, status="past_due"))


def marked_uncollectible(turn: Turn, invoice: Invoice) -> None:
    """The API (or an automation) gave the invoice up: a past due subscription is active again."""
    subscription = turn.subscription_of(invoice)
    if subscription is not None:
        pending = subscription.pending_update
        if pending is not None and pending.invoice == invoice.id:
            pending_update.drop(turn, subscription)
        elif subscription.status == "paused" and invoice.id == subscription.resumption_invoice:
            resumption.activate(turn, subscription, invoice.period_start, invoice.period_end)
        elif subscription.status == "past_due" and _speaks_last(turn, subscription, invoice):
            _plan_notice(turn, turn.alter(subscription, status="active"))
    clear_delinquency(turn)


def final_action(turn: Turn, subscription: Subscription, action: SubscriptionFinalAction) -> Subscription:
    """What the settings or an automation do with a subscription whose money does not come in."""
    if subscription.terminal:
        return subscription
    if action == "cancel":
        return end(turn, subscription, "payment_failed")
    if action == "unpaid":
        subscription = turn.alter(subscription, status="unpaid", upcoming_at=None)
        turn.updated(subscription)
        stop_collection(turn, [invoice for invoice in invoices_of(turn, subscription) if _still_tried(invoice)])
    return subscription


def _still_tried(invoice: Invoice) -> bool:
    """Whether time alone would still ask for the money: of what is unpaid, nothing is attempted (semantics 2.1)."""
    return invoice.status == "draft" or invoice.charging or invoice.next_payment_attempt is not None


def invoice_voided(turn: Turn, invoice: Invoice) -> None:
    """The API voided an invoice: derive the status from those that remain (semantics 2.5)."""
    subscription = turn.subscription_of(invoice)
    if subscription is None or subscription.terminal:
        return
    pending = subscription.pending_update
    if pending is not None and pending.invoice == invoice.id:
        pending_update.drop(turn, subscription)
    elif subscription.status == "paused":
        if invoice.id == subscription.resumption_invoice:
            resumption.give_up(turn, subscription)
    elif subscription.status == "incomplete":
        if invoice.id == subscription.first_invoice:
            expire(turn, subscription)
    elif _speaks_last(turn, subscription, invoice):
        _walk_remaining(turn, subscription)


def _walk_remaining(turn: Turn, subscription: Subscription) -> None:
    """Newest to oldest, the first invoice that says something decides; none means active.

    Only the newest settled invoice is loaded, so it ends the walk whatever it was made for.
    """
    remaining: list[Invoice] = []
    for invoice in reversed(invoices_of(turn, subscription)):
        settled = invoice.status in ("paid", "uncollectible")
        if settled or (invoice.status != "void" and _counts(subscription, invoice)):
            remaining.append(invoice)
        if settled:
            break
    subscription = turn.note(subscription, status_invoice=remaining[0].id if remaining else None)
    if subscription.status not in ("active", "past_due", "unpaid"):
        return
    for invoice in remaining:
        if invoice.status != "open":
            continue
        if _retries_exhausted(invoice):
            # What an automation has taken over, the settings do not end (semantics 8.4).
            owned = invoice.automation_run is not None
            _act_on_missing(turn, subscription, "past_due" if owned else turn.settings.subscription_final_action)
            return
        if invoice.overdue(turn.now):
            _act_on_missing(turn, subscription, "past_due")
            return
    if subscription.status != "active":
        _plan_notice(turn, turn.alter(subscription, status="active"))


def _retries_exhausted(invoice: Invoice) -> bool:
    return (
        invoice.collection_method == "charge_automatically"
        and invoice.first_failure_at is not None
        and invoice.next_payment_attempt is None
    )


def _act_on_missing(turn: Turn, subscription: Subscription, action: SubscriptionFinalAction) -> None:
    if action == "past_due":
        turn.updated(turn.alter(subscription, status="past_due"))
    else:
        final_action(turn, subscription, action)
