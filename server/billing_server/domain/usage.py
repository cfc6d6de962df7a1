"""Usage in the book: which spans of it the metered items need, and how much of it is billed (semantics 4, Metered).

The book holds the usage of its customer by meter and span of time, loaded from the tallies of meter events. What is
needed follows from the book alone, so it is asked for here, before anything is decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from billing_server.domain import schedule as schedule_module
from billing_server.domain.automation import AutomationRun
from billing_server.domain.book import Book, UsageSpan
from billing_server.domain.catalog import Catalog, Price
from billing_server.domain.errors import invalid
from billing_server.domain.invoice import Invoice, InvoiceLine
from billing_server.domain.money import INT64_MAX
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription, SubscriptionItem, SubscriptionStatus
from billing_server.domain.turn import Turn

CHARGED: Final[frozenset[SubscriptionStatus]] = frozenset({"active", "past_due", "unpaid"})
"""Statuses in which usage is billed: neither within a trial, nor while paused (semantics 4)."""


class UsageNotLoaded(Exception):
    """A decision needs usage that its book was not loaded with: the engine asked for too little."""


# --- what has to be loaded


def spans(book: Book, catalog: Catalog, now: int) -> set[UsageSpan]:
    """The usage that commands at `now`, and whatever time does next to each object, may need.

    A proposal is carried out as of the moment at which it was made.
    """
    wanted: set[UsageSpan] = set()
    if not catalog.meters:
        return wanted
    moments = {now, *(attempt.due_at for attempt in book.attempts.values() if attempt.proposal is not None)}
    for subscription in book.subscriptions.values():
        if subscription.status in CHARGED:
            ends = moments.union(_ends(subscription), _phase_ends(book.schedules.get(subscription.schedule or "")))
            wanted.update(span for end in ends for span in _of_items(subscription, catalog, end))
    for invoice in book.invoices.values():
        wanted.update(_of_draft(invoice, catalog))
    return wanted


def is_loaded(turn: Turn, item: Subscription | Invoice | SubscriptionSchedule | AutomationRun) -> bool:
    """Whether time can do to an object what it does next, as far as usage goes."""
    if turn.book.usage_complete or not turn.catalog.meters:
        return True
    needed: Iterable[UsageSpan] = ()
    if isinstance(item, Invoice):
        needed = _of_draft(item, turn.catalog)
    elif isinstance(item, SubscriptionSchedule):
        subscription = turn.subscriptions.get(item.subscription or "")
        if subscription is not None and subscription.status in CHARGED:
            ends = _phase_ends(item)
            needed = (span for end in ends for span in _of_items(subscription, turn.catalog, end))
    elif isinstance(item, Subscription) and item.status in CHARGED:
        needed = (span for end in _ends(item) for span in _of_items(item, turn.catalog, end))
    return all(span in turn.book.usage for span in needed)


def _ends(subscription: Subscription) -> list[int]:
    """Where the usage of the current period may end without anybody's doing."""
    ends = [subscription.current_period_end]
    if subscription.cancel_at is not None and subscription.cancel_at < subscription.current_period_end:
        ends.append(subscription.cancel_at)
    return ends


def _phase_ends(schedule: SubscriptionSchedule | None) -> list[int]:
    """When the schedule of a subscription may bill its usage before its period ends."""
    moment = None if schedule is None else schedule_module.wake_at(schedule)
    return [] if moment is None else [moment]


def _of_items(subscription: Subscription, catalog: Catalog, end: int) -> Iterator[UsageSpan]:
    for item in subscription.items:
        meter = catalog.meter_of_price(catalog.price(item.price))
        start = counts_from(item, subscription.current_period_start)
        if meter is not None and start < end:
            yield UsageSpan(meter.id, start, end)


def _of_draft(invoice: Invoice, catalog: Catalog) -> Iterator[UsageSpan]:
    if invoice.status != "draft":
        return
    for line in invoice.lines:
        if is_of_usage(line, catalog) and line.period_start < line.period_end:
            meter = catalog.meter_of_price(catalog.price(line.price or ""))
            if meter is not None:
                yield UsageSpan(meter.id, line.period_start, line.period_end)


def is_of_usage(line: InvoiceLine, catalog: Catalog) -> bool:
    """Whether the line bills a metered item's usage of its period; the line of a trial has no quantity."""
    if line.type != "subscription_item" or line.price is None or line.quantity is None:
        return False
    return catalog.price(line.price).metered


# --- how much is billed


def counts_from(item: SubscriptionItem, period_start: int) -> int:
    """From when on an item's usage is billed in a period: not from before it was there, or was resumed."""
    return period_start if item.usage_from is None else max(period_start, item.usage_from)


def quantity(turn: Turn, price: Price, start: int, end: int) -> int:
    """The usage in [start, end) that a metered price bills; never less than nothing.

    Raises:
        UsageNotLoaded: the book does not know this span.
        InvalidArgument: the usage does not fit into 64 bits.
    """
    meter = turn.catalog.meter_of_price(price)
    if meter is None or start >= end:
        return 0
    known = turn.book.usage.get(UsageSpan(meter.id, start, end))
    if known is None:
        if not turn.book.usage_complete:
            raise UsageNotLoaded(f"the usage of {meter.id} from {start} to {end} is not loaded")
        known = _so_far(turn.book, meter.id, start)
    if known > INT64_MAX:
        raise invalid("quantity", "amount_too_large", f"the usage of {meter.id} does not fit into 64 bits")
    return max(known, 0)


def _so_far(book: Book, meter: str, start: int) -> int:
    """All known usage from a moment on; what ends it may come otherwise than was known when it was loaded."""
    longest = max((span for span in book.usage if span.meter == meter and span.start == start), default=None)
    return 0 if longest is None else book.usage[longest]


def begun(
    turn: Turn, before: Iterable[SubscriptionItem], after: Iterable[SubscriptionItem]
) -> tuple[SubscriptionItem, ...]:
    """The items after a change. What is metered anew, or by another meter, counts from now on."""
    meters = {item.id: turn.catalog.meter_of_price(turn.catalog.price(item.price)) for item in before}
    items = []
    for item in after:
        meter = turn.catalog.meter_of_price(turn.catalog.price(item.price))
        known = meters.get(item.id)
        if meter is not None and (known is None or known.id != meter.id):
            item = msgspec.structs.replace(item, usage_from=turn.now)
        items.append(item)
    return tuple(items)


def resumed(turn: Turn, items: Iterable[SubscriptionItem]) -> tuple[SubscriptionItem, ...]:
    """The items of a subscription that was paused: what was used until now is never billed (semantics 4)."""
    return tuple(
        msgspec.structs.replace(item, usage_from=turn.now) if turn.catalog.price(item.price).metered else item
        for item in items
    )


def left_behind(turn: Turn, before: Subscription, after: Iterable[SubscriptionItem]) -> list[SubscriptionItem]:
    """The metered items that a change takes away, or puts on another meter: their usage so far has to be billed."""
    if before.status not in CHARGED:
        return []
    kept = {item.id: turn.catalog.meter_of_price(turn.catalog.price(item.price)) for item in after}
    gone = []
    for item in before.items:
        meter = turn.catalog.meter_of_price(turn.catalog.price(item.price))
        now = kept.get(item.id)
        if meter is not None and (now is None or now.id != meter.id):
            gone.append(item)
    return gone
