"""Forecasts: the same core, run forward in memory from the book. Nothing is written, nobody is charged.

Since the rules are the very ones that time itself uses, a forecast says exactly what will happen as long as
nobody interferes and payments turn out as assumed.
"""

from __future__ import annotations

import itertools
from typing import Literal

import msgspec

from billing_server.domain.advance import advance
from billing_server.domain.automation import AutomationRun
from billing_server.domain.book import Book, Decision
from billing_server.domain.calendar import DAY
from billing_server.domain.commands import ChargeOutcome, SettleAttempt
from billing_server.domain.decide import decide
from billing_server.domain.errors import ResourceMissing, invalid
from billing_server.domain.event import Cause, Event
from billing_server.domain.invoice import Invoice, InvoiceItem
from billing_server.domain.message import Message
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt, PaymentError, PaymentIntent
from billing_server.domain.schedule import SubscriptionSchedule
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import NewId, Pages

Payments = Literal["succeed", "fail", "fail_then_succeed"]

YEARS_MAX = 20
EVENTS_MAX = 50_000

DECLINED = ChargeOutcome(
    state="failed",
    error=PaymentError(code="card_declined", decline_code="generic_decline", message="the card was declined"),
)
SUCCEEDED = ChargeOutcome(state="succeeded")


class Assumption(msgspec.Struct, frozen=True, kw_only=True):
    """How charges turn out: all succeed, all fail, or the first `failures` fail and the rest succeed."""

    payments: Payments = "succeed"
    failures: int = 0

    def outcome(self, charges_before: int) -> ChargeOutcome:
        """What becomes of a charge after so many others."""
        fails = self.payments == "fail" or (self.payments == "fail_then_succeed" and charges_before < self.failures)
        return DECLINED if fails else SUCCEEDED


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What will happen to a subscription: events and e-mails in order, and the subscription as it will be."""

    events: tuple[Event, ...]
    messages: tuple[Message, ...] = ()
    subscription: Subscription


def forecast(
    book: Book,
    subscription_id: str,
    until: int,
    assumption: Assumption,
    *,
    now: int,
    wall_now: int,
    pages: Pages,
) -> Forecast:
    """What time and payments will do to a subscription up to and including `until`.

    The book must hold all live objects of the customer and all that wakes until then, because balance and
    delinquency are shared. Ids of objects that do not exist yet are made up. Usage is what was reported so far, and
    nothing more is used.
    """
    if subscription_id not in book.subscriptions:
        raise ResourceMissing("subscription", subscription_id)
    if not now < until <= now + YEARS_MAX * 366 * DAY:
        raise invalid("until", "time_out_of_range", f"must be after now, at most {YEARS_MAX} years ahead")
    book = msgspec.structs.replace(book, usage_complete=True)
    numbers = itertools.count(1)
    run = _Run(wall_now, pages, lambda prefix: f"{prefix}_forecast{next(numbers):08d}", assumption)
    book = run.settle(book, [attempt for attempt in book.attempts.values() if attempt.state in UNRESOLVED])
    while True:
        decision = advance(book, until, wall_now=wall_now, pages=pages, new_id=run.new_id)
        run.add(decision)
        book = decision.book
        if not decision.charges:
            break
        book = run.settle(book, decision.charges)
    events = tuple(event for event in run.events if _concerns(event, subscription_id, book))
    messages = tuple(message for message in run.messages if message.facts.subscription == subscription_id)
    return Forecast(events=events, messages=messages, subscription=book.subscriptions[subscription_id])


class _Run:
    """A forecast in the making: the events so far and the charges so far."""

    def __init__(self, wall_now: int, pages: Pages, new_id: NewId, assumption: Assumption) -> None:
        self._wall_now = wall_now
        self._pages = pages
        self.new_id = new_id
        self._assumption = assumption
        self._charges = 0
        self.events: list[Event] = []
        self.messages: list[Message] = []

    def add(self, decision: Decision) -> None:
        """Note events and e-mails; refuse forecasts without end."""
        self.events += decision.events
        self.messages += decision.messages
        if len(self.events) > EVENTS_MAX:
            raise invalid("until", "time_out_of_range", f"more than {EVENTS_MAX} events; choose an earlier time")

    def settle(self, book: Book, attempts: list[PaymentAttempt] | tuple[PaymentAttempt, ...]) -> Book:
        """Give each charge the outcome that is assumed, at the time of the charge."""
        for attempt in attempts:
            command = SettleAttempt(
                customer=attempt.customer,
                invoice=attempt.invoice,
                subscription=attempt.subscription,
                attempt=attempt.id,
                outcome=self._assumption.outcome(self._charges),
            )
            self._charges += 1
            decision = decide(
                book,
                command,
                now=attempt.due_at,
                wall_now=self._wall_now,
                pages=self._pages,
                new_id=self.new_id,
                cause=Cause(kind="gateway"),
            )
            self.add(decision)
            book = decision.book
        return book


def _concerns(event: Event, subscription_id: str, book: Book) -> bool:
    """Whether the event is about the subscription, its invoices and their payments, or about the customer."""
    item = event.object
    match item:
        case Subscription():
            return item.id == subscription_id
        case Invoice():
            return item.subscription == subscription_id
        case InvoiceItem():
            # Also one that was of no subscription until an invoice took it, or that its subscription left behind.
            previous = event.previous_attributes or {}
            invoice = book.invoices.get(item.invoice or "")
            bills = None if invoice is None else invoice.subscription
            return subscription_id in (item.subscription, previous.get("subscription"), bills)
        case AutomationRun():
            return item.subscription == subscription_id
        case SubscriptionSchedule():
            return subscription_id in (item.subscription, item.released_subscription)
        case PaymentIntent():
            invoice = book.invoices.get(item.invoice)
            return invoice is not None and invoice.subscription == subscription_id
    return True
