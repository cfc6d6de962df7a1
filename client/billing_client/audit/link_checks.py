"""Everything that an object names is there, and belongs to the same customer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from billing.v1.catalog_model_pb2 import Price
from billing.v1.customer_model_pb2 import BalanceTransaction
from billing.v1.invoice_model_pb2 import CreditNote
from billing.v1.payment_model_pb2 import AttemptState, PaymentAttempt, Refund
from billing_client.audit.book import Book, Shared
from billing_client.audit.check import Fault, check


@check
def links_of_customer(book: Book, shared: Shared) -> Iterator[Fault]:
    """The customer's clock and default payment method exist."""
    customer = book.customer
    if not customer.invoice_prefix:
        yield customer.id, "there is no such customer, but something is theirs"
        return
    if customer.test_clock and customer.test_clock not in shared.clocks:
        yield customer.id, f"there is no test clock {customer.test_clock}"
    yield from _method(book, customer.id, customer.default_payment_method, attached=True)


@check
def links_of_subscriptions(book: Book, shared: Shared) -> Iterator[Fault]:
    """A subscription's prices, invoice and payment method exist, in one currency and interval."""
    invoices = {invoice.id for invoice in book.invoices}
    for subscription in book.subscriptions:
        yield from _method(book, subscription.id, subscription.default_payment_method)
        if subscription.latest_invoice and subscription.latest_invoice not in invoices:
            yield subscription.id, f"there is no invoice {subscription.latest_invoice} of the customer"
        if subscription.test_clock != book.customer.test_clock:
            yield subscription.id, "it follows another clock than its customer"
        if not subscription.items:
            yield subscription.id, "it has no items"
        for item in subscription.items:
            price = shared.prices.get(item.price)
            if price is None:
                yield item.id, f"there is no price {item.price}"
            elif subscription.currency not in _currencies(price):
                yield item.id, f"its price is in {price.currency}, the subscription in {subscription.currency}"
            elif price.recurring.interval != subscription.interval:
                yield item.id, f"its price {price.id} has another interval than the subscription"


def _currencies(price: Price) -> set[str]:
    return {price.currency, *(option.currency for option in price.currency_options)}


@check
def links_of_invoices(book: Book, shared: Shared) -> Iterator[Fault]:
    """An invoice's subscription, prices, items and payment method exist, and its currency is the customer's."""
    subscriptions = {subscription.id for subscription in book.subscriptions}
    items = {item.id: item.invoice for item in book.invoice_items}
    for invoice in book.invoices:
        yield from _method(book, invoice.id, invoice.default_payment_method)
        if invoice.subscription and invoice.subscription not in subscriptions:
            yield invoice.id, f"there is no subscription {invoice.subscription} of the customer"
        if invoice.currency != book.customer.currency:
            yield invoice.id, f"it is in {invoice.currency}, the customer is billed in {book.customer.currency}"
        if invoice.test_clock != book.customer.test_clock:
            yield invoice.id, "it follows another clock than its customer"
        for line in invoice.lines:
            if line.price and line.price not in shared.prices:
                yield invoice.id, f"the price {line.price} of its line {line.id} does not exist"
            if line.invoice_item and items.get(line.invoice_item) != invoice.id:
                yield invoice.id, f"the item {line.invoice_item} of its line {line.id} is not on it"


@check
def links_of_payments(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Attempts, refunds, credit notes and changes of the balance name invoices of the customer, and each other.

    The invoice of a change that was all or nothing is named by its charge before it is made. When the change came to
    nothing, so did the invoice; then no money was kept.
    """
    invoices = {invoice.id: invoice for invoice in book.invoices}
    attempts = {attempt.id: attempt for attempt in book.attempts}
    notes = {note.id for note in book.credit_notes}
    refunds = {refund.id for refund in book.refunds}
    owners: list[PaymentAttempt | Refund | CreditNote | BalanceTransaction] = [
        *book.attempts,
        *book.refunds,
        *book.credit_notes,
        *book.balance_transactions,
    ]
    came_to_nothing = {
        attempt.invoice
        for attempt in book.homeless()
        if attempt.state != AttemptState.ATTEMPT_STATE_SUCCEEDED or attempt.amount_refunded == attempt.amount
    }
    for owner in owners:
        if owner.invoice in came_to_nothing and isinstance(owner, PaymentAttempt | Refund):
            continue
        if owner.invoice and owner.invoice not in invoices:
            yield owner.id, f"there is no invoice {owner.invoice} of the customer"
        elif owner.invoice and owner.currency != invoices[owner.invoice].currency:
            yield owner.id, "it is in another currency than its invoice"
    for attempt in book.attempts:
        yield from _method(book, attempt.id, attempt.payment_method)
    for refund in book.refunds:
        if refund.attempt not in attempts or attempts[refund.attempt].invoice != refund.invoice:
            yield refund.id, f"there is no attempt {refund.attempt} of its invoice"
        if refund.credit_note and refund.credit_note not in notes:
            yield refund.id, f"there is no credit note {refund.credit_note}"
    for note in book.credit_notes:
        if note.refund and note.refund not in refunds:
            yield note.id, f"there is no refund {note.refund}"


@check
def links_of_invoice_items(book: Book, shared: Shared) -> Iterator[Fault]:
    """An invoice item that is billed is on its invoice, once."""
    billed = Counter(line.invoice_item for invoice in book.invoices for line in invoice.lines)
    for item in book.invoice_items:
        if item.price and item.price not in shared.prices:
            yield item.id, f"there is no price {item.price}"
        times = billed[item.id]
        if times != bool(item.invoice):
            yield item.id, f"it is on {times} lines" + (f", but names {item.invoice}" if item.invoice else "")


def _method(book: Book, owner: str, method: str, *, attached: bool = False) -> Iterator[Fault]:
    if not method:
        return
    found = book.payment_methods.get(method)
    if found is None or found.customer != book.customer.id:
        yield owner, f"there is no payment method {method} of the customer"
    elif attached and found.HasField("detached_at"):
        yield owner, f"its payment method {method} is detached"
