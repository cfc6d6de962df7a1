"""What holds in every book at every moment: sums, links, terminal statuses, and one event for every change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from billing_server.domain import invoice as invoices
from billing_server.domain import schedule as schedules
from billing_server.domain import subscription as subscriptions
from billing_server.domain.book import Book
from billing_server.domain.customer import Customer
from billing_server.domain.event import INTERNAL, Event, previous_attributes
from billing_server.domain.invoice import Invoice, InvoiceItem
from billing_server.domain.money import minimum_charge
from billing_server.domain.payment import UNRESOLVED, PaymentIntent
from billing_server.domain.schedule import ENDED, SubscriptionSchedule
from billing_server.domain.subscription import TERMINAL, Subscription
from billing_server.domain.turn import EVENT_PREFIX

# --- one book


def audit(book: Book, before: Book | None = None) -> None:
    """All sums and links of a whole book; only of what has changed since an audited one, if that is given."""
    touched = set() if before is None else _touched(before, book)
    for invoice in book.invoices.values():
        if before is None or invoice.id in touched:
            _invoice_sums(invoice)
            _invoice_status(invoice)
            _attempts(invoice, book)
    for subscription in book.subscriptions.values():
        if before is None or subscription.id in touched:
            _subscription(subscription, book)
    for schedule in book.schedules.values():
        _schedule(schedule, book)
    if before is None or before.balance_transactions.keys() != book.balance_transactions.keys():
        _balance(book)
    for item in book.invoice_items.values():
        if before is None or item.id in touched or item.invoice in touched or item.subscription in touched:
            _item(item, book)


def _touched(before: Book, after: Book) -> set[str]:
    """Ids of what has changed, and of the invoices of attempts and refunds that have, and of their subscriptions."""
    touched: set[str] = set()
    for name in ("subscriptions", "invoices", "invoice_items", "attempts", "refunds"):
        old: Mapping[str, Any] = getattr(before, name)
        for identity, item in getattr(after, name).items():
            if old.get(identity) is not item:
                touched.add(identity)
                touched |= {str(getattr(item, link, None)) for link in ("invoice", "subscription")}
    return touched


def _invoice_sums(invoice: Invoice) -> None:
    what = f"{invoice.id}: {invoice}"
    assert sum(line.amount for line in invoice.lines) == invoice.subtotal == invoice.total, what
    assert invoice.amount_paid + invoice.amount_remaining == invoice.amount_due, what
    assert min(invoice.amount_due, invoice.amount_paid, invoice.amount_remaining) >= 0, what
    if invoice.ending_balance is None:
        assert invoice.finalized_at is None, what
        return
    raw = invoice.total + invoice.starting_balance
    if raw > 0 and raw >= minimum_charge(invoice.currency):
        assert invoice.amount_due == raw - invoice.pre_payment_credit_notes_amount, what
        assert invoice.ending_balance == 0, what
    else:
        assert (invoice.amount_due, invoice.ending_balance) == (0, raw), what


def _invoice_status(invoice: Invoice) -> None:
    what = f"{invoice.id}: {invoice}"
    status = invoice.status
    assert (status == "paid") == (invoice.paid_at is not None), what
    assert (status == "void") == (invoice.voided_at is not None), what
    assert status != "uncollectible" or invoice.marked_uncollectible_at is not None, what
    assert status not in ("open", "paid") or (invoice.finalized_at is not None and invoice.number), what
    assert status != "draft" or (invoice.finalized_at is None and invoice.number is None), what
    assert status in ("draft", "open") or not invoice.auto_advance, what
    assert status in ("draft", "open") or invoices.wake_at(invoice) is None, what
    assert status != "paid" or invoice.amount_remaining == 0, what
    assert invoice.collection_method == "send_invoice" or invoice.due_date is None, what
    if invoice.collection_method == "send_invoice" or not invoice.auto_advance:
        assert invoice.next_payment_attempt is None, what
    if status == "draft" and invoice.auto_advance:
        assert invoice.automatically_finalizes_at is not None, what
        if invoice.collection_method == "charge_automatically":
            assert invoice.next_payment_attempt == invoice.automatically_finalizes_at, what
    else:
        assert invoice.automatically_finalizes_at is None, what


def _attempts(invoice: Invoice, book: Book) -> None:
    """Numbers are dense, one is unresolved at most, and what was paid was charged once.

    Money that came too late is given back, unless that failed, which people have to look at.
    """
    attempts = [item for item in book.attempts.values() if item.invoice == invoice.id]
    looked_at = {item.attempt for item in book.refunds.values() if item.status == "failed" and item.needs_review}
    what = f"{invoice.id}: {attempts}"
    assert [item.number for item in attempts] == list(range(1, invoice.attempts_started + 1)), what
    unresolved = [item for item in attempts if item.state in UNRESOLVED]
    assert len(unresolved) <= 1, what
    assert invoice.charging == bool(unresolved), what
    for item in attempts:
        assert 0 <= item.amount_refunded <= item.amount, what
        assert (item.state in UNRESOLVED) == (item.check_at is not None), what
        assert item.state in UNRESOLVED or not item.needs_review, what
    for given in book.refunds.values():
        assert (given.status in ("pending", "unknown")) == (given.check_at is not None), given
    kept = [item for item in attempts if item.state == "succeeded" and item.amount_refunded == 0]
    kept = [item for item in kept if invoice.status == "paid" or item.id not in looked_at]
    if invoice.status == "paid" and invoice.amount_paid and not invoice.paid_out_of_band:
        if not invoice.post_payment_credit_notes_amount:
            assert sum(item.amount for item in kept) in (invoice.amount_paid, 0), what
    elif invoice.status != "paid":
        assert not kept, what
    intent = invoice.payment_intent
    if intent is not None:
        assert (intent.status == "succeeded") == (intent.amount_received > 0), what
        assert intent.status != "succeeded" or invoice.status == "paid", what
        assert intent.status != "canceled" or not invoice.collectible, what


def _subscription(subscription: Subscription, book: Book) -> None:
    what = f"{subscription.id}: {subscription}"
    ended = subscription.status in TERMINAL
    assert ended == (subscription.ended_at is not None), what
    assert not ended or subscriptions.wake_at(subscription) is None, what
    assert subscription.status != "trialing" or subscription.trial_end is not None, what
    assert (subscription.status in ("incomplete", "paused")) or subscription.expires_at is None, what
    assert subscription.status != "incomplete" or subscription.expires_at is not None, what
    assert subscription.collection_method == "charge_automatically" or subscription.days_until_due is not None, what
    assert subscription.current_period_start <= subscription.current_period_end, what
    assert subscription.items, what
    for name in (subscription.latest_invoice, subscription.first_invoice, subscription.resumption_invoice):
        assert name is None or name in book.invoices, what
    if subscription.resumption_invoice is not None:
        assert subscription.status == "paused" and subscription.expires_at is not None, what
    pending = subscription.pending_update
    if pending is not None:
        assert not ended, what
        assert book.invoices[pending.invoice].collectible, what


def _schedule(schedule: SubscriptionSchedule, book: Book) -> None:
    """Phases follow without a gap; a schedule and its subscription know each other as long as it lasts."""
    what = f"{schedule.id}: {schedule}"
    starts = [phase.start_date for phase in schedule.phases]
    ends = [phase.end_date for phase in schedule.phases]
    assert starts[1:] == ends[:-1] and all(map(int.__lt__, starts, ends)), what
    assert (schedule.status == "active") == (schedule.current_phase is not None), what
    assert schedule.ended == (schedule.status in ENDED), what
    assert not schedule.ended or schedules.wake_at(schedule) is None, what
    if schedule.status == "active":
        subscription = book.subscriptions[str(schedule.subscription)]
        assert subscription.schedule == schedule.id, what
        assert subscription.status not in TERMINAL, what
        assert subscription.cancel_at == schedule.ends_subscription_at, what
        assert not subscription.cancel_at_period_end, what
    for subscription in book.subscriptions.values():
        if subscription.schedule == schedule.id:
            assert subscription.id == schedule.subscription, what


def _balance(book: Book) -> None:
    running = 0
    for transaction in book.balance_transactions.values():
        running += transaction.amount
        assert transaction.amount != 0, transaction
        assert transaction.ending_balance == running, transaction
    assert book.customer.balance == running


def _item(item: InvoiceItem, book: Book) -> None:
    """An item stands on one invoice, or waits; a draft shows what its items say."""
    if item.invoice is None:
        assert item.subscription is None or book.subscriptions[item.subscription].status not in TERMINAL, item
        return
    invoice = book.invoices[item.invoice]
    assert [line.amount for line in invoice.lines if line.invoice_item == item.id] == [item.amount], item


# --- one decision


def audit_change(before: Book, after: Book) -> None:
    """What no decision does: leave a terminal status, reuse an invoice number, or change without a new version."""
    _change(before.customer, after.customer)
    for name in ("payment_methods", "subscriptions", "schedules", "invoices", "invoice_items", "credit_notes"):
        old: Mapping[str, Any] = getattr(before, name)
        for identity, item in getattr(after, name).items():
            known = old.get(identity)
            if known is not None and known is not item:
                _change(known, item)
    for identity, invoice in before.invoices.items():
        assert identity in after.invoices or invoice.status == "draft", "only drafts are ever deleted"
    numbers = [invoice.number for invoice in after.invoices.values() if invoice.number is not None]
    assert len(numbers) == len(set(numbers)), "a number is used once"


_FINAL_INVOICE = {"paid", "void"}
_STILL_FREE: dict[Any, set[str]] = {
    Subscription: {"metadata", "cancellation_details", "trial_over_untold", "version"},
    SubscriptionSchedule: set(),
    Invoice: {"metadata", "description", "post_payment_credit_notes_amount", "charging", "payment_intent", "version"},
}


def _change(old: Any, new: Any) -> None:
    visible = previous_attributes(old, new)
    assert new.version > old.version or (not visible and new.version == old.version), f"{visible} of {new}"
    terminal = isinstance(old, Subscription) and old.status in TERMINAL
    terminal |= isinstance(old, SubscriptionSchedule) and old.ended
    terminal |= isinstance(old, Invoice) and old.status in _FINAL_INVOICE
    if terminal:
        changed = {name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)}
        allowed = _STILL_FREE[type(old)] | ({"latest_invoice"} if isinstance(old, Subscription) else set())
        assert changed <= allowed, f"{old.id} is {old.status} for good, but changed {changed}"


# --- all events

_FIRST = {
    "customer.created",
    "payment_method.attached",
    "customer.subscription.created",
    "subscription_schedule.created",
    "invoice.created",
    "invoiceitem.created",
    "credit_note.created",
}


def fold(events: Sequence[Event], book: Book) -> None:
    """The events of each object lead to the object; each `….updated` says exactly what has changed."""
    told: dict[str, msgspec.Struct] = {}
    gone: set[str] = set()
    for event in events:
        item = event.object
        identity = str(item.id)  # type: ignore[attr-defined]  # every told object has an id
        if event.type == "invoice.upcoming":
            continue
        known = told.get(identity)
        assert identity not in gone, f"nothing is told of what is gone: {event}"
        if event.type.endswith(".updated"):
            assert known is not None, f"created comes before updated: {event}"
            assert event.previous_attributes == previous_attributes(known, item), event
            assert event.previous_attributes, f"an update that changes nothing: {event}"
        elif event.type in _FIRST:
            assert known is None, f"created twice: {event}"
        if event.type in ("invoice.deleted", "invoiceitem.deleted"):
            gone.add(identity)
        told[identity] = item
        if isinstance(item, Invoice) and item.payment_intent is not None:
            told[item.payment_intent.id] = item.payment_intent
    _compare(told, gone, book)


def _compare(told: Mapping[str, msgspec.Struct], gone: set[str], book: Book) -> None:
    held: dict[str, msgspec.Struct] = {book.customer.id: book.customer}
    nouns: tuple[Mapping[str, Any], ...] = (book.payment_methods, book.subscriptions, book.schedules)
    for mapping in (*nouns, book.invoices, book.invoice_items, book.credit_notes, book.runs):
        held.update(mapping)
    for invoice in book.invoices.values():
        if invoice.payment_intent is not None:
            held[invoice.payment_intent.id] = invoice.payment_intent
    for identity, item in held.items():
        assert identity in told, f"never told: {item}"
        assert identity not in gone, f"told to be gone, and still there: {item}"
        assert seen(told[identity]) == seen(item), f"changed without an event: {identity}"
    for identity, item in told.items():
        if type(item) in EVENT_PREFIX or isinstance(item, PaymentIntent | Customer):
            assert identity in held or identity in gone, f"gone without an event: {identity}"


def seen(item: msgspec.Struct) -> dict[str, Any]:
    """What callers can see of an object, apart from its version."""
    hidden = INTERNAL.get(type(item), frozenset({"version"}))
    return {name: getattr(item, name) for name in item.__struct_fields__ if name not in hidden}
