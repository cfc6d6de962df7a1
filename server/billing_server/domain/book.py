"""The book: everything that is open for one customer, and the unit of consistency, locking and time.

A book is loaded in part: what a command or the passing of time needs. Its objects are frozen and its
mappings are never changed in place, so two books can share all that did not change, and what has to be
saved is what is no longer the same object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from billing_server.domain import automation as automations
from billing_server.domain import invoice as invoices
from billing_server.domain import schedule as schedules
from billing_server.domain import subscription as subscriptions
from billing_server.domain.automation import AutomationRun
from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.domain.event import Event
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem
from billing_server.domain.message import Message
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription
from billing_server.domain.test_clock import TestClock

TargetType = Literal[
    "customer",
    "subscription",
    "subscription_schedule",
    "invoice",
    "invoice_item",
    "payment_method",
    "credit_note",
    "automation_run",
]


class Target(msgspec.Struct, frozen=True):
    """The object that a command names; its customer's book is the one to lock."""

    type: TargetType
    id: str


class UsageSpan(NamedTuple):
    """A span [start, end) of time, and the meter whose usage by the book's customer is meant."""

    meter: str
    start: int
    end: int


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a book a command needs.

    Always loaded: the customer, its test clock, attached payment methods, schedules that have not ended,
    automation runs that have not ended, pending invoice items and unresolved attempts and refunds. Every loaded invoice
    brings its subscription and its credit notes; every loaded subscription brings its draft and open invoices; a named
    schedule, or one that is due, brings its subscription; a named run, or one that is due, its invoice and
    subscription. `due_until` brings whatever wakes at or before it. `items_of_invoices` brings the invoice items
    that stand on the named invoices; a named invoice item or credit note brings its invoice. `history` adds the
    newest paid or uncollectible invoice of each loaded subscription. `usage` brings what the loaded metered items and
    drafts bill (see `usage.spans`); so does `due_until`.
    """

    subscriptions: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()
    invoices: tuple[str, ...] = ()
    invoice_items: tuple[str, ...] = ()
    credit_notes: tuple[str, ...] = ()
    attempts_of: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    items_of_invoices: bool = False
    due_until: int | None = None
    history: bool = False
    all_live: bool = False
    count_subscriptions: bool = False
    usage: bool = False


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """The loaded part of a customer's book. Mappings go by id and are never changed in place.

    `rest_wake_at` is at most the earliest wake-up of what is not loaded (exactly it after a load by
    `due_until`). `live_subscriptions` is counted only when asked for. `usage` is what meters say of some spans;
    with `usage_complete` nothing is used after what is loaded, so that a span which is not there holds what the
    longest one from its start does, instead of not being loaded (in forecasts and previews).
    """

    customer: Customer
    test_clock: TestClock | None = None
    payment_methods: Mapping[str, PaymentMethod] = {}
    subscriptions: Mapping[str, Subscription] = {}
    schedules: Mapping[str, SubscriptionSchedule] = {}
    invoices: Mapping[str, Invoice] = {}
    invoice_items: Mapping[str, InvoiceItem] = {}
    attempts: Mapping[str, PaymentAttempt] = {}
    refunds: Mapping[str, Refund] = {}
    credit_notes: Mapping[str, CreditNote] = {}
    balance_transactions: Mapping[str, BalanceTransaction] = {}
    runs: Mapping[str, AutomationRun] = {}
    rest_wake_at: int | None = None
    live_subscriptions: int = 0
    usage: Mapping[UsageSpan, int] = {}
    usage_complete: bool = False

    @property
    def wake_at(self) -> int | None:
        """The earliest moment at which time alone changes something in the book."""
        moments = [self.rest_wake_at, *map(subscriptions.wake_at, self.subscriptions.values())]
        if self.schedules:
            moments += map(schedules.wake_at, self.schedules.values())
        if self.invoices:
            moments += map(invoices.wake_at, self.invoices.values())
        if self.runs:
            moments += map(automations.wake_at, self.runs.values())
        return min([moment for moment in moments if moment is not None], default=None)

    @property
    def in_flight(self) -> bool:
        """Whether a charge is under way; until it is settled or its lease ends, time stands still."""
        return any(attempt.state == "started" for attempt in self.attempts.values())

    @property
    def check_at(self) -> int | None:
        """The earliest real moment at which an unresolved charge or refund must be looked at."""
        moments = [attempt.check_at for attempt in self.attempts.values()]
        moments += [refund.check_at for refund in self.refunds.values()]
        return min((moment for moment in moments if moment is not None), default=None)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a command or the passing of time leads to.

    `charges` and `refunds` are what the gateway has to be asked once this is committed, `messages` the e-mails to
    be sent from then on. `result` is the
    object the caller asked about, as it is now (a preview has no place in the book).
    """

    book: Book
    events: tuple[Event, ...] = ()
    charges: tuple[PaymentAttempt, ...] = ()
    refunds: tuple[Refund, ...] = ()
    messages: tuple[Message, ...] = ()
    result: msgspec.Struct | None = None


def objects(book: Book) -> Iterator[msgspec.Struct]:
    """All loaded objects of the book, the customer first."""
    yield book.customer
    for mapping in (
        book.payment_methods,
        book.subscriptions,
        book.schedules,
        book.invoices,
        book.invoice_items,
        book.attempts,
        book.refunds,
        book.credit_notes,
        book.balance_transactions,
        book.runs,
    ):
        yield from mapping.values()
