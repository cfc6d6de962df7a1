"""Small valid objects for tests of the store; each call may change any field."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from billing_server.domain.account import Account
from billing_server.domain.automation import Action, Automation, AutomationRun
from billing_server.domain.book import Book, Reach
from billing_server.domain.catalog import Price, Product
from billing_server.domain.customer import BalanceTransaction, Customer, PaymentMethod
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem, InvoiceLine
from billing_server.domain.message import Facts, Message
from billing_server.domain.meter import Meter
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.domain.schedule import CurrentPhase, Phase, PhaseItem, SubscriptionSchedule
from billing_server.domain.subscription import Subscription, SubscriptionItem
from billing_server.domain.test_clock import TestClock
from billing_server.domain.webhook import WebhookDelivery, WebhookEndpoint, delivery_id
from billing_server.store.event import EventRow
from billing_server.store.store import Store

NOW = 1_700_000_000
MONTH = 30 * 86_400

_run = uuid.uuid4().hex[:8]
_numbers = itertools.count(1)


def new_id(prefix: str) -> str:
    """A new id; ids sort in the order in which they were made."""
    return f"{prefix}_{_run}{next(_numbers):012d}"


def account(**changes: Any) -> Account:
    """An account."""
    return Account(**{"id": new_id("acct"), "created": NOW, "name": "Test", **changes})


def product(**changes: Any) -> Product:
    """A product."""
    return Product(**{"id": new_id("prod"), "created": NOW, "name": "Plan", **changes})


def price(of: Product, **changes: Any) -> Price:
    """A one-off price."""
    return Price(**{"id": new_id("price"), "created": NOW, "product": of.id, "currency": "usd", **changes})


def meter(**changes: Any) -> Meter:
    """A meter that sums up."""
    identity = new_id("mtr")
    values = {"id": identity, "created": NOW, "display_name": "Calls", "event_name": identity, "formula": "sum"}
    return Meter(**{**values, **changes})


def test_clock(**changes: Any) -> TestClock:
    """A test clock that stands."""
    return TestClock(**{"id": new_id("clock"), "created": NOW, "name": None, "frozen_time": NOW, **changes})


def customer(**changes: Any) -> Customer:
    """A customer."""
    identity = new_id("cus")
    return Customer(**{"id": identity, "created": NOW, "invoice_prefix": identity[-12:], **changes})


def message(to: Customer, **changes: Any) -> Message:
    """A receipt that is due."""
    values = {
        "id": new_id("msg"),
        "created": NOW,
        "created_real": NOW,
        "customer": to.id,
        "kind": "receipt",
        "recipient": "jenny@example.com",
        "facts": Facts(company="Shop", amount=3100, currency="usd", moment=NOW),
        "due_at": NOW,
    }
    return Message(**{**values, **changes})


def webhook_endpoint(**changes: Any) -> WebhookEndpoint:
    """An enabled endpoint that gets all events."""
    return WebhookEndpoint(**{"id": new_id("we"), "created": NOW, "url": "https://shop.example/", **changes})


def webhook_delivery(to: WebhookEndpoint, position: int = 1, **changes: Any) -> WebhookDelivery:
    """A delivery that is due."""
    values = {
        "id": delivery_id(to.id, position),
        "created": NOW,
        "endpoint": to.id,
        "event": f"evt_{position:012d}",
        "position": position,
        "event_type": "customer.created",
        "started_at": NOW,
        "due_at": NOW,
    }
    return WebhookDelivery(**{**values, **changes})


def payment_method(owner: Customer, **changes: Any) -> PaymentMethod:
    """An attached card."""
    values = {"id": new_id("pm"), "created": NOW, "customer": owner.id, "type": "card", "token": "pm_card_visa"}
    return PaymentMethod(**{**values, **changes})


def balance_transaction(owner: Customer, **changes: Any) -> BalanceTransaction:
    """A credit of 5.00."""
    values = {
        "id": new_id("cbtxn"),
        "created": NOW,
        "customer": owner.id,
        "currency": "usd",
        "amount": -500,
        "ending_balance": -500,
        "type": "adjustment",
    }
    return BalanceTransaction(**{**values, **changes})


def subscription(owner: Customer, **changes: Any) -> Subscription:
    """An active monthly subscription."""
    item = SubscriptionItem(id=new_id("si"), created=NOW, price="price_1")
    values = {
        "id": new_id("sub"),
        "created": NOW,
        "customer": owner.id,
        "status": "active",
        "currency": "usd",
        "items": (item,),
        "interval": "month",
        "interval_count": 1,
        "start_date": NOW,
        "billing_cycle_anchor": NOW,
        "current_period_start": NOW,
        "current_period_end": NOW + MONTH,
        "test_clock": owner.test_clock,
    }
    return Subscription(**{**values, **changes})


def schedule(owner: Customer, **changes: Any) -> SubscriptionSchedule:
    """A schedule of one phase that has not started."""
    phase = Phase(start_date=NOW + MONTH, end_date=NOW + 2 * MONTH, items=(PhaseItem(price="price_1", quantity=1),))
    values = {
        "id": new_id("sub_sched"),
        "created": NOW,
        "customer": owner.id,
        "phases": (phase,),
        "test_clock": owner.test_clock,
    }
    return SubscriptionSchedule(**{**values, **changes})


def active_schedule(of: Subscription, end: int = NOW + MONTH, **changes: Any) -> SubscriptionSchedule:
    """A schedule that a subscription is in, until the end of its only phase."""
    phase = Phase(start_date=NOW, end_date=end, items=(PhaseItem(price="price_1", quantity=1),))
    return SubscriptionSchedule(
        id=new_id("sub_sched"),
        created=NOW,
        customer=of.customer,
        status="active",
        phases=(phase,),
        current_phase=CurrentPhase(start_date=NOW, end_date=end),
        subscription=of.id,
        **changes,
    )


ACTION = Action(type="mark_invoice_uncollectible", delay_seconds=3600)


def automation(**changes: Any) -> Automation:
    """An automation of overdue invoices."""
    values = {
        "id": new_id("bauto"),
        "created": NOW,
        "name": "Give up",
        "trigger": "invoice_overdue",
        "priority": next(_numbers),
        "actions": (ACTION,),
    }
    return Automation(**{**values, **changes})


def run(owner: Customer, about: Invoice | None = None, **changes: Any) -> AutomationRun:
    """A run whose only action comes in an hour."""
    values = {
        "id": new_id("bautorun"),
        "created": NOW,
        "automation": "bauto_1",
        "automation_version": 1,
        "name": "Give up",
        "trigger": "invoice_overdue",
        "trigger_event": "invoice.updated",
        "customer": owner.id,
        "invoice": None if about is None else about.id,
        "subscription": None if about is None else about.subscription,
        "actions": (ACTION,),
        "next_action_at": NOW + 3600,
        "test_clock": owner.test_clock,
    }
    return AutomationRun(**{**values, **changes})


ENDED: dict[str, Any] = {"status": "completed", "end_reason": "completed", "ended_at": NOW, "next_action_at": None}
"""What makes the run an ended one."""


def invoice(owner: Customer, of: Subscription | None = None, **changes: Any) -> Invoice:
    """A draft of 10.00, to be finalized in an hour."""
    line = InvoiceLine(
        id=new_id("il"),
        type="subscription_item",
        amount=1000,
        description="1 x Plan (at 10.00 USD / month)",
        quantity=1,
        period_start=NOW,
        period_end=NOW + MONTH,
        price="price_1",
    )
    values = {
        "id": new_id("in"),
        "created": NOW,
        "customer": owner.id,
        "currency": "usd",
        "status": "draft",
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "auto_advance": True,
        "automatically_finalizes_at": NOW + 3600,
        "period_start": NOW,
        "period_end": NOW + MONTH,
        "lines": (line,),
        "subscription": None if of is None else of.id,
        "subtotal": 1000,
        "total": 1000,
        "amount_due": 1000,
        "amount_remaining": 1000,
        "test_clock": owner.test_clock,
    }
    return Invoice(**{**values, **changes})


OPEN: dict[str, Any] = {"status": "open", "number": "A-0001", "finalized_at": NOW, "automatically_finalizes_at": None}
"""What makes the draft an open invoice."""

PAID: dict[str, Any] = {
    **OPEN,
    "status": "paid",
    "paid_at": NOW,
    "auto_advance": False,
    "amount_paid": 1000,
    "amount_remaining": 0,
}
"""What makes the draft a paid invoice."""


def invoice_item(owner: Customer, **changes: Any) -> InvoiceItem:
    """A pending item of 3.00."""
    values = {
        "id": new_id("ii"),
        "created": NOW,
        "customer": owner.id,
        "currency": "usd",
        "amount": 300,
        "description": "Extra",
        "period_start": NOW,
        "period_end": NOW,
    }
    return InvoiceItem(**{**values, **changes})


def credit_note(of: Invoice, **changes: Any) -> CreditNote:
    """A credit of 1.00 before payment."""
    values = {
        "id": new_id("cn"),
        "created": NOW,
        "number": "A-0001-CN-01",
        "customer": of.customer,
        "invoice": of.id,
        "currency": "usd",
        "amount": 100,
        "pre_payment_amount": 100,
        "type": "pre_payment",
    }
    return CreditNote(**{**values, **changes})


def attempt(of: Invoice, **changes: Any) -> PaymentAttempt:
    """A charge of 10.00 that has just begun."""
    values = {
        "id": new_id("pa"),
        "created": NOW,
        "created_real": NOW,
        "customer": of.customer,
        "invoice": of.id,
        "number": 1,
        "kind": "initial",
        "due_at": NOW,
        "amount": 1000,
        "currency": "usd",
        "payment_method": None,
        "token": "pm_card_visa",
        "off_session": True,
        "state": "started",
        "check_at": NOW + 60,
    }
    return PaymentAttempt(**{**values, **changes})


SETTLED: dict[str, Any] = {"state": "succeeded", "check_at": None, "settled_at": NOW}
"""What makes the attempt a success."""


def refund(of: PaymentAttempt, **changes: Any) -> Refund:
    """A refund of 10.00 that has just begun."""
    values = {
        "id": new_id("re"),
        "created": NOW,
        "created_real": NOW,
        "customer": of.customer,
        "invoice": of.invoice,
        "attempt": of.id,
        "amount": 1000,
        "currency": "usd",
        "reason": "requested_by_customer",
        "status": "pending",
        "check_at": NOW + 60,
    }
    return Refund(**{**values, **changes})


_MAPPINGS: dict[type[Any], str] = {
    PaymentMethod: "payment_methods",
    Subscription: "subscriptions",
    SubscriptionSchedule: "schedules",
    Invoice: "invoices",
    InvoiceItem: "invoice_items",
    PaymentAttempt: "attempts",
    Refund: "refunds",
    CreditNote: "credit_notes",
    BalanceTransaction: "balance_transactions",
    AutomationRun: "runs",
}


def book(owner: Customer, *parts: Any, **changes: Any) -> Book:
    """A book with some parts, sorted into their mappings."""
    mappings: dict[str, Any] = {}
    for part in parts:
        mappings.setdefault(_MAPPINGS[type(part)], {})[part.id] = part
    return Book(customer=owner, **mappings, **changes)


def with_parts(before: Book, *parts: Any) -> Book:
    """The book with parts added or replaced, in mappings of their own."""
    mappings: dict[str, Any] = {}
    for part in parts:
        name = _MAPPINGS[type(part)]
        mappings.setdefault(name, dict(getattr(before, name)))[part.id] = part
    return msgspec.structs.replace(before, **mappings)


def event(of: Customer | None, object_id: str | None = None, type_: str = "customer.created") -> EventRow:
    """An event with a little payload."""
    owner = None if of is None else of.id
    return EventRow(type_, owner, object_id or owner or "prod_1", NOW, b"payload")


async def save_new(store: Store, account_id: str, *books: Book, events: Sequence[EventRow] = ()) -> None:
    """Save the books of new customers."""
    async with store.transaction(account_id) as unit:
        await unit.open()
        await unit.save([(None, book) for book in books], events)


async def load(store: Store, account_id: str, customer_id: str, reach: Reach) -> Book:
    """Load one customer's book."""
    async with store.transaction(account_id) as unit:
        await unit.open([customer_id])
        return (await unit.load({customer_id: reach}))[customer_id]
