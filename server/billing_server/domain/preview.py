"""Invoices that do not exist yet: the upcoming one, also after a change. Nothing of it is kept."""

from __future__ import annotations

import msgspec

from billing_server.domain import cycle, schedule_status
from billing_server.domain.errors import WrongState
from billing_server.domain.invoice import Invoice
from billing_server.domain.invoicing import (
    line_of,
    metered_lines,
    pending_items,
    period_lines,
    settled_amounts,
)
from billing_server.domain.subscription import BILLED, Subscription
from billing_server.domain.turn import Turn
from billing_server.domain.usage import CHARGED


def preview_renewal(turn: Turn, subscription: Subscription) -> Invoice:
    """The invoice of the next renewal, as it would be if nobody changes anything until then; with the usage so far."""
    if subscription.status not in BILLED or cycle.ends_with_period(subscription):
        raise WrongState(
            "invoice_upcoming_none",
            f"no invoice is coming: the subscription is {subscription.status}"
            + (" and ends with its period" if cycle.ends_with_period(subscription) else ""),
            subject=subscription.id,
        )
    subscription = _as_of(turn, subscription, subscription.current_period_end)
    period = cycle.period_from(subscription, subscription.current_period_end)
    if subscription.status == "trialing" and subscription.free_stub and period.stub:
        period = cycle.period_from(subscription, period.end)
    usage_start = subscription.current_period_start if subscription.status in CHARGED else period.start
    lines = [
        *(
            line_of(turn, item)
            for item in pending_items(turn, subscription=subscription.id, currency=subscription.currency)
        ),
        *period_lines(turn, subscription, period.start, period.end, full=period.full),
        *metered_lines(turn, subscription, usage_start, period.start),
    ]
    total = sum(line.amount for line in lines)
    due, ending = settled_amounts(total, turn.customer.balance, subscription.currency)
    return Invoice(
        id=f"upcoming_{subscription.id}",
        created=period.start,
        customer=subscription.customer,
        currency=subscription.currency,
        status="draft",
        billing_reason="upcoming",
        collection_method=subscription.collection_method,
        auto_advance=True,
        period_start=subscription.current_period_start,
        period_end=period.start,
        lines=tuple(lines),
        subscription=subscription.id,
        subscription_metadata=subscription.metadata,
        subtotal=total,
        total=total,
        starting_balance=turn.customer.balance,
        ending_balance=ending,
        amount_due=due,
        amount_remaining=due,
        next_payment_attempt=(
            period.start + turn.settings.finalization_delay_seconds
            if subscription.collection_method == "charge_automatically"
            else None
        ),
        test_clock=subscription.test_clock,
    )


def as_preview(turn: Turn, invoice: Invoice) -> Invoice:
    """An invoice that a command would make, as it would look after finalization."""
    if invoice.status != "draft":
        starting, ending, due = invoice.starting_balance, invoice.ending_balance, invoice.amount_due
    else:
        starting = turn.customer.balance
        due, ending = settled_amounts(invoice.total, starting, invoice.currency)
    return msgspec.structs.replace(
        invoice,
        status="draft",
        billing_reason="upcoming",
        number=None,
        starting_balance=starting,
        ending_balance=ending,
        amount_due=due,
        amount_paid=0,
        amount_remaining=due,
        payment_intent=None,
        attempted=False,
        attempt_count=0,
        finalized_at=None,
        effective_at=None,
        paid_at=None,
        voided_at=None,
        marked_uncollectible_at=None,
    )


def _as_of(turn: Turn, subscription: Subscription, moment: int) -> Subscription:
    """The subscription with the items that its schedule will have given it at a moment."""
    schedule = schedule_status.schedule_of(turn, subscription)
    if schedule is None:
        return subscription
    ahead = [phase for phase in schedule.phases[schedule.position + 1 :] if phase.start_date <= moment < phase.end_date]
    if not ahead:
        return subscription
    known = {item.price: item for item in subscription.items}
    # What only begins then has no usage so far.
    begun = msgspec.structs.replace(subscription.items[0], usage_from=moment)
    items = tuple(
        msgspec.structs.replace(known.get(item.price, begun), price=item.price, quantity=item.quantity)
        for item in ahead[0].items
    )
    return msgspec.structs.replace(subscription, items=items)
