"""Subscriptions against their times, their invoices and their periods (semantics sections 2 and 4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from billing.v1.catalog_model_pb2 import UsageType
from billing.v1.invoice_model_pb2 import BillingReason, Invoice, InvoiceLine, LineType
from billing.v1.subscription_model_pb2 import MissingPaymentMethod, Subscription, SubscriptionStatus
from billing_client.audit.book import ENDED, UNRESOLVED, Book, Shared
from billing_client.audit.check import Fault, check
from billing_client.audit.invoice_checks import DRAFT, OPEN, PAID, SENT, VOID

ACTIVE = SubscriptionStatus.SUBSCRIPTION_STATUS_ACTIVE
PAST_DUE = SubscriptionStatus.SUBSCRIPTION_STATUS_PAST_DUE
UNPAID = SubscriptionStatus.SUBSCRIPTION_STATUS_UNPAID
TRIALING = SubscriptionStatus.SUBSCRIPTION_STATUS_TRIALING
INCOMPLETE = SubscriptionStatus.SUBSCRIPTION_STATUS_INCOMPLETE
PAUSED = SubscriptionStatus.SUBSCRIPTION_STATUS_PAUSED
CANCELED = SubscriptionStatus.SUBSCRIPTION_STATUS_CANCELED

MANUAL = BillingReason.BILLING_REASON_MANUAL
UPDATE = BillingReason.BILLING_REASON_SUBSCRIPTION_UPDATE

_GRACE_SECONDS = 3600
"""How far a renewal in real time may lag before it counts as missed."""


@check
def subscription_times(book: Book, _shared: Shared) -> Iterator[Fault]:
    """The status fits to the times of the subscription."""
    for subscription in book.subscriptions:
        name = _status(subscription)
        ended = subscription.status in ENDED
        if ended != subscription.HasField("ended_at"):
            yield subscription.id, f"it is {name}, but it {'has no' if ended else 'has an'} ended_at"
        if subscription.status == CANCELED and not subscription.HasField("canceled_at"):
            yield subscription.id, "it is canceled without canceled_at"
        if subscription.status == INCOMPLETE and not subscription.HasField("expires_at"):
            yield subscription.id, "it is incomplete and never expires"
        if subscription.status == TRIALING and not subscription.HasField("trial_end"):
            yield subscription.id, "it is trialing without an end of the trial"
        if subscription.current_period_end.seconds <= subscription.current_period_start.seconds:
            yield subscription.id, "its current period ends before it starts"
        for item in subscription.items:
            if item.current_period_end != subscription.current_period_end:
                yield item.id, "its period ends at another time than that of its subscription"


@check
def subscription_period(book: Book, shared: Shared) -> Iterator[Fault]:
    """A subscription that is billed is in its current period: no renewal was missed."""
    now = book.now(shared)
    if now is None:
        return
    grace = 0 if book.customer.test_clock else _GRACE_SECONDS
    for subscription in book.subscriptions:
        if subscription.status not in (ACTIVE, PAST_DUE, UNPAID, TRIALING):
            continue
        if subscription.current_period_end.seconds + grace <= now:
            yield subscription.id, "its current period is over, and it was not renewed"
        if subscription.current_period_start.seconds > now + grace:
            yield subscription.id, "its current period has not begun yet"


@check
def subscription_status(book: Book, _shared: Shared) -> Iterator[Fault]:
    """The status follows the newest invoice that is not void, as far as that one tells something."""
    for subscription in book.subscriptions:
        newest = _newest(book, subscription)
        if newest is None or subscription.status in ENDED:
            continue
        name = _status(subscription)
        if newest.status == PAID and subscription.status in (PAST_DUE, UNPAID, INCOMPLETE):
            yield subscription.id, f"it is {name}, but its newest invoice {newest.id} is paid"
        if subscription.status == ACTIVE and _failed(book, subscription, newest):
            yield subscription.id, f"it is active, but the payment of its newest invoice {newest.id} failed"
        if subscription.status == INCOMPLETE and newest.status not in (OPEN, PAID):
            yield subscription.id, f"it is incomplete, but its invoice {newest.id} does not wait for a payment"


@check
def subscription_latest_invoice(book: Book, _shared: Shared) -> Iterator[Fault]:
    """The latest invoice is the newest one that billed the subscription."""
    for subscription in book.subscriptions:
        made = [invoice.id for invoice in book.invoices_of(subscription) if invoice.billing_reason != MANUAL]
        if subscription.latest_invoice != (made[-1] if made else ""):
            yield subscription.id, f"its latest invoice is not {made[-1] if made else 'none'}"


@check
def periods_tile(book: Book, shared: Shared) -> Iterator[Fault]:
    """The periods billed for an item join: each is billed once, none is left out.

    A change that begins a cycle anew, a trial whose end moved, and a pause after a trial may break the row.
    """
    for subscription in book.subscriptions:
        spans_of_items = _spans(book, subscription)
        for item, spans in spans_of_items.items():
            for index, after in enumerate(spans):
                joined = after.resets or _paused_once(subscription) or _joins(spans[:index], after)
                before = spans[index - 1]
                if not joined and not _prorated(book, item, before.end, after.start):
                    what = "billed twice" if after.start < before.end else "not billed"
                    yield after.invoice, f"the time from {before.end} to {after.start} of item {item} is {what}"
        yield from _reaches_end(book, shared, subscription, spans_of_items)


def _reaches_end(
    book: Book, shared: Shared, subscription: Subscription, spans: dict[str, list[_Span]]
) -> Iterator[Fault]:
    """The newest period of each item that was ever billed is the current one."""
    if subscription.status not in (ACTIVE, PAST_DUE, UNPAID) or _paused_once(subscription):
        return
    for item in subscription.items:
        price = shared.prices.get(item.price)
        if price is None or price.recurring.usage_type == UsageType.USAGE_TYPE_METERED or item.id not in spans:
            continue
        end = max(span.end for span in spans[item.id])
        if end < subscription.current_period_end.seconds and not _prorated(
            book, item.id, end, subscription.current_period_end.seconds
        ):
            yield subscription.id, f"item {item.id} is billed until {end}, before the current period ends"


@dataclass(frozen=True, slots=True)
class _Span:
    """A period that was billed for an item.

    resets: it began a cycle anew. dropped: its invoice is void, so the change that it was for may never have
    happened. free: it cost nothing, as trials do, whose end may move.
    """

    start: int
    end: int
    invoice: str
    resets: bool
    dropped: bool
    free: bool


def _joins(earlier: list[_Span], span: _Span) -> bool:
    """Whether a period begins where the one before it ended; changes that were dropped count for nothing."""
    for before in reversed(earlier):
        if before.end == span.start or before.free:
            return True
        if not before.dropped:
            return False
    return True


def _spans(book: Book, subscription: Subscription) -> dict[str, list[_Span]]:
    """The whole periods billed for each item, oldest first; credits and debits within periods are none."""
    spans: dict[str, list[_Span]] = defaultdict(list)
    for invoice in book.invoices_of(subscription):
        if invoice.billing_reason == MANUAL:
            continue
        for line in invoice.lines:
            adjusts = line.proration and invoice.billing_reason == UPDATE
            if line.type == LineType.LINE_TYPE_SUBSCRIPTION_ITEM and not adjusts:
                spans[line.subscription_item].append(_span(line, invoice))
    for found in spans.values():
        found.sort(key=lambda span: (span.start, span.end))
    return spans


def _span(line: InvoiceLine, invoice: Invoice) -> _Span:
    resets = invoice.billing_reason == UPDATE
    return _Span(
        start=line.period_start.seconds,
        end=line.period_end.seconds,
        invoice=invoice.id,
        resets=resets,
        dropped=resets and invoice.status == VOID,
        free=line.amount == 0,
    )


def _prorated(book: Book, item: str, start: int, end: int) -> bool:
    """Whether a proration made up for the span between two periods of an item."""
    return any(
        entry.period_start.seconds <= min(start, end) and entry.period_end.seconds >= max(start, end)
        for entry in book.prorations.get(item, [])
    )


def _paused_once(subscription: Subscription) -> bool:
    """Whether time may have stood still for the subscription: paused after a trial."""
    pausing = subscription.missing_payment_method == MissingPaymentMethod.MISSING_PAYMENT_METHOD_PAUSE
    return subscription.status == PAUSED or (pausing and subscription.HasField("trial_end"))


def _newest(book: Book, subscription: Subscription) -> Invoice | None:
    """The newest invoice that can decide the status: not void, no draft, and not made by hand."""
    for invoice in reversed(book.invoices_of(subscription)):
        if invoice.status not in (VOID, DRAFT) and invoice.billing_reason != MANUAL:
            return invoice
    return None


def _failed(book: Book, subscription: Subscription, invoice: Invoice) -> bool:
    """Whether the payment of an open invoice failed, and counts for the status."""
    waits = subscription.pending_update.invoice == invoice.id
    unresolved = any(attempt.state in UNRESOLVED for attempt in book.attempts_of(invoice))
    charged = invoice.status == OPEN and invoice.collection_method != SENT and invoice.attempt_count > 0
    return charged and not waits and not unresolved


def _status(subscription: Subscription) -> str:
    return SubscriptionStatus.Name(subscription.status).removeprefix("SUBSCRIPTION_STATUS_").lower()
