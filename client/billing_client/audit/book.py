"""What belongs to one customer, and what belongs to all, as plain messages: what the checks look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias, TypeVar

from billing.v1.catalog_model_pb2 import Price, Product
from billing.v1.customer_model_pb2 import BalanceTransaction, Customer, PaymentMethod
from billing.v1.invoice_model_pb2 import CreditNote, Invoice, InvoiceItem, InvoiceLine
from billing.v1.payment_model_pb2 import AttemptState, PaymentAttempt, Refund, RefundStatus
from billing.v1.subscription_model_pb2 import Subscription, SubscriptionStatus
from billing.v1.test_clock_model_pb2 import TestClock, TestClockStatus

Member: TypeAlias = Subscription | Invoice | InvoiceItem | CreditNote | PaymentAttempt | Refund
"""Kinds of objects that can be listed for all customers at once."""

Entry = TypeVar("Entry")

UNRESOLVED = frozenset({AttemptState.ATTEMPT_STATE_STARTED, AttemptState.ATTEMPT_STATE_UNKNOWN})
"""States of attempts for which money may have moved or not."""

ENDED = frozenset(
    {SubscriptionStatus.SUBSCRIPTION_STATUS_CANCELED, SubscriptionStatus.SUBSCRIPTION_STATUS_INCOMPLETE_EXPIRED}
)
"""Statuses that a subscription never leaves."""


@dataclass(slots=True)
class Shared:
    """What belongs to the account rather than to a customer. `now` is real time, in Unix seconds."""

    now: int
    products: dict[str, Product] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)
    clocks: dict[str, TestClock] = field(default_factory=dict)


@dataclass
class Book:
    """One customer with all that is theirs; lists are oldest first, and complete before the checks look at them.

    payment_methods: by id, those that are detached too when something names them.
    sequence_jumps: numbers of invoices that were left out on request, as (first, one after the last).
    """

    customer: Customer
    subscriptions: list[Subscription] = field(default_factory=list)
    invoices: list[Invoice] = field(default_factory=list)
    invoice_items: list[InvoiceItem] = field(default_factory=list)
    credit_notes: list[CreditNote] = field(default_factory=list)
    attempts: list[PaymentAttempt] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    balance_transactions: list[BalanceTransaction] = field(default_factory=list)
    payment_methods: dict[str, PaymentMethod] = field(default_factory=dict)
    sequence_jumps: list[tuple[int, int]] = field(default_factory=list)

    def attempts_of(self, invoice: Invoice) -> list[PaymentAttempt]:
        """The attempts to collect an invoice, by their numbers."""
        return self._attempts_by_invoice.get(invoice.id, [])

    def invoices_of(self, subscription: Subscription) -> list[Invoice]:
        """The invoices that bill a subscription, oldest first."""
        return self._invoices_by_subscription.get(subscription.id, [])

    def notes_of(self, invoice: Invoice) -> list[CreditNote]:
        """The credit notes of an invoice."""
        return self._notes_by_invoice.get(invoice.id, [])

    def refunds_of(self, attempt: PaymentAttempt) -> list[Refund]:
        """What was given back of an attempt."""
        return self._refunds_by_attempt.get(attempt.id, [])

    def homeless(self) -> list[PaymentAttempt]:
        """Attempts whose invoice is not there: charges of changes that were all or nothing, and became nothing."""
        known = {invoice.id for invoice in self.invoices}
        return [attempt for attempt in self.attempts if attempt.invoice not in known]

    @cached_property
    def prorations(self) -> dict[str, list[InvoiceLine | InvoiceItem]]:
        """What makes up for changes within periods, billed and waiting, by the subscription's item."""
        billed = (line for invoice in self.invoices for line in invoice.lines if line.proration)
        waiting = (item for item in self.invoice_items if item.proration and not item.invoice)
        found: dict[str, list[InvoiceLine | InvoiceItem]] = defaultdict(list)
        for line in billed:
            found[line.subscription_item].append(line)
        for item in waiting:
            found[item.subscription_item].append(item)
        return found

    @cached_property
    def _attempts_by_invoice(self) -> dict[str, list[PaymentAttempt]]:
        return _grouped(sorted(self.attempts, key=lambda attempt: attempt.number), lambda attempt: attempt.invoice)

    @cached_property
    def _invoices_by_subscription(self) -> dict[str, list[Invoice]]:
        return _grouped(self.invoices, lambda invoice: invoice.subscription)

    @cached_property
    def _notes_by_invoice(self) -> dict[str, list[CreditNote]]:
        return _grouped(self.credit_notes, lambda note: note.invoice)

    @cached_property
    def _refunds_by_attempt(self) -> dict[str, list[Refund]]:
        return _grouped(self.refunds, lambda refund: refund.attempt)

    def now(self, shared: Shared) -> int | None:
        """What time it is for the customer; None while that is on the move."""
        if not self.customer.test_clock:
            return shared.now
        clock = shared.clocks.get(self.customer.test_clock)
        if clock is None or clock.status != TestClockStatus.TEST_CLOCK_STATUS_READY:
            return None
        return clock.frozen_time.seconds

    def add(self, member: Member) -> None:
        """Put an object where it belongs."""
        if isinstance(member, Subscription):
            self.subscriptions.append(member)
        elif isinstance(member, Invoice):
            self.invoices.append(member)
        elif isinstance(member, InvoiceItem):
            self.invoice_items.append(member)
        elif isinstance(member, CreditNote):
            self.credit_notes.append(member)
        elif isinstance(member, PaymentAttempt):
            self.attempts.append(member)
        else:
            self.refunds.append(member)


def _grouped(entries: Iterable[Entry], key: Callable[[Entry], str]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[key(entry)].append(entry)
    return groups


def effective(refund: Refund) -> bool:
    """Whether money went, or may have gone, back."""
    return refund.status != RefundStatus.REFUND_STATUS_FAILED
