"""Prorations of a subscription: what a change in the middle of a period gives back and asks for (semantics 5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from billing_server.domain import calendar, cycle
from billing_server.domain.errors import invalid
from billing_server.domain.invoice import InvoiceItem, InvoiceLine
from billing_server.domain.invoicing import check_amount, describe_item
from billing_server.domain.pricing import exact_amount_for_quantity
from billing_server.domain.proration import credit_for_unused, debit_for_remaining
from billing_server.domain.subscription import Subscription, SubscriptionItem
from billing_server.domain.turn import Turn


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """One prorated amount: negative for unused time, positive for remaining time."""

    item: SubscriptionItem
    amount: int
    description: str
    period_start: int
    period_end: int


def proration_moment(turn: Turn, subscription: Subscription, wished: int | None) -> int:
    """The moment that is prorated from: now, or a wished one inside the current period."""
    if wished is None and turn.now >= subscription.current_period_start:
        return turn.now
    if wished is None or not subscription.current_period_start <= wished <= subscription.current_period_end:
        raise invalid(
            "proration_date",
            "time_out_of_range",
            f"must be inside the current period, {calendar.written(subscription.current_period_start)} to "
            f"{calendar.written(subscription.current_period_end)}",
        )
    return wished


def billed_period(subscription: Subscription) -> cycle.Period | None:
    """The current period as it was billed, or None when its days are free."""
    period = cycle.period_from(subscription, subscription.current_period_start)
    if subscription.status in ("trialing", "paused") or (subscription.free_stub and period.stub):
        return None
    return msgspec.structs.replace(period, end=subscription.current_period_end)


def credits_for(turn: Turn, subscription: Subscription, items: Iterable[SubscriptionItem], at: int) -> list[Adjustment]:
    """The unused time of these items from `at` to the end of the period, given back."""
    return _adjust(turn, subscription, items, at, subscription.current_period_end, unused=True)


def debits_for(turn: Turn, subscription: Subscription, items: Iterable[SubscriptionItem], at: int) -> list[Adjustment]:
    """The remaining time of these items from `at` to the end of the period, asked for."""
    return _adjust(turn, subscription, items, at, subscription.current_period_end, unused=False)


def of_changed_items(
    turn: Turn,
    subscription: Subscription,
    items: Sequence[SubscriptionItem],
    at: int,
) -> list[Adjustment]:
    """A credit for each item as it was and a debit for each as it is, where price or quantity differ."""
    before = {item.id: item for item in subscription.items}
    after = {item.id: item for item in items}
    old = [item for item in subscription.items if _differs(item, after.get(item.id))]
    new = [item for item in items if _differs(item, before.get(item.id))]
    return [*credits_for(turn, subscription, old, at), *debits_for(turn, subscription, new, at)]


def of_moved_end(turn: Turn, subscription: Subscription, new_end: int) -> list[Adjustment]:
    """What it means for the items that the current period ends earlier (credit) or later (debit)."""
    end = subscription.current_period_end
    if new_end < end:
        return _adjust(turn, subscription, subscription.items, new_end, end, unused=True)
    return _adjust(turn, subscription, subscription.items, end, new_end, unused=False)


def _differs(item: SubscriptionItem, other: SubscriptionItem | None) -> bool:
    return other is None or other.price != item.price or other.quantity != item.quantity


def _adjust(
    turn: Turn,
    subscription: Subscription,
    items: Iterable[SubscriptionItem],
    start: int,
    end: int,
    *,
    unused: bool,
) -> list[Adjustment]:
    period = billed_period(subscription)
    if period is None or end <= start:
        return []
    return [
        _adjustment(turn, item, start, end, period.full, unused=unused) for item in items if item.quantity is not None
    ]


def _adjustment(turn: Turn, item: SubscriptionItem, start: int, end: int, full: int, *, unused: bool) -> Adjustment:
    price = turn.catalog.price(item.price)
    whole = exact_amount_for_quantity(price, item.quantity or 0)
    share = credit_for_unused if unused else debit_for_remaining
    date = datetime.fromtimestamp(start, UTC).strftime("%d %b %Y")
    prefix = "Unused time on" if unused else "Remaining time on"
    return Adjustment(
        item=item,
        amount=check_amount(share(whole, end - start, full), "items"),
        description=f"{prefix} {describe_item(turn, price, item.quantity)} after {date}",
        period_start=start,
        period_end=end,
    )


def as_pending_items(turn: Turn, subscription: Subscription, adjustments: Iterable[Adjustment]) -> list[InvoiceItem]:
    """Put the adjustments into the book as pending invoice items of the subscription, and tell them."""
    created = []
    for adjustment in adjustments:
        item = turn.put(
            InvoiceItem(
                id=turn.new_id("ii"),
                created=turn.now,
                customer=subscription.customer,
                currency=subscription.currency,
                amount=adjustment.amount,
                description=adjustment.description,
                quantity=adjustment.item.quantity or 0,
                price=adjustment.item.price,
                subscription=subscription.id,
                subscription_item=adjustment.item.id,
                proration=True,
                discountable=False,
                period_start=adjustment.period_start,
                period_end=adjustment.period_end,
            )
        )
        turn.emit("invoiceitem.created", item)
        created.append(item)
    return created


def as_lines(turn: Turn, adjustments: Iterable[Adjustment]) -> list[InvoiceLine]:
    """The adjustments as lines of an invoice, newest first, without pending items."""
    lines = [
        InvoiceLine(
            id=turn.new_id("il"),
            type="subscription_item",
            amount=adjustment.amount,
            description=adjustment.description,
            quantity=adjustment.item.quantity,
            period_start=adjustment.period_start,
            period_end=adjustment.period_end,
            price=adjustment.item.price,
            subscription_item=adjustment.item.id,
            proration=True,
            discountable=False,
        )
        for adjustment in adjustments
    ]
    lines.reverse()
    return lines
