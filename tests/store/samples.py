"""Small valid objects for tests of the store; each call may change any field."""

from __future__ import annotations

import itertools
from typing import Any

from billing_server.domain.account import Account
from billing_server.domain.book import Book
from billing_server.domain.customer import Customer, PaymentMethod
from billing_server.domain.invoice import Invoice, InvoiceLine
from billing_server.domain.subscription import Subscription, SubscriptionItem

NOW = 1_700_000_000
MONTH = 30 * 86_400

_numbers = itertools.count(1)


def new_id(prefix: str) -> str:
    """A new id; ids sort in the order in which they were made."""
    return f"{prefix}_{next(_numbers):026d}"


def account(**changes: Any) -> Account:
    """An account."""
    return Account(**{"id": new_id("acct"), "created": NOW, "name": "Test", **changes})


def customer(**changes: Any) -> Customer:
    """A customer."""
    identity = new_id("cus")
    return Customer(**{"id": identity, "created": NOW, "invoice_prefix": identity[-8:], **changes})


def payment_method(owner: Customer, **changes: Any) -> PaymentMethod:
    """An attached card."""
    values = {"id": new_id("pm"), "created": NOW, "customer": owner.id, "type": "card", "token": "pm_card_visa"}
    return PaymentMethod(**{**values, **changes})


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


def invoice(owner: Customer, of: Subscription | None = None, **changes: Any) -> Invoice:
    """A draft of 10.00, to be finalized in an hour."""
    line = InvoiceLine(
        id=new_id("il"),
        type="subscription_item",
        amount=1000,
        description="1 × Plan (at 10.00 USD / month)",
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


def book(owner: Customer, *parts: Any, **changes: Any) -> Book:
    """A book with some parts, sorted into their mappings."""
    names = {
        "PaymentMethod": "payment_methods",
        "Subscription": "subscriptions",
        "Invoice": "invoices",
        "InvoiceItem": "invoice_items",
        "PaymentAttempt": "attempts",
        "Refund": "refunds",
        "CreditNote": "credit_notes",
        "BalanceTransaction": "balance_transactions",
    }
    mappings: dict[str, Any] = {}
    for part in parts:
        mappings.setdefault(names[type(part).__name__], {})[part.id] = part
    return Book(customer=owner, **mappings, **changes)
