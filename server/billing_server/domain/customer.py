"""Customers, their payment methods and their balance."""

from __future__ import annotations

from typing import Literal

import msgspec

TaxExempt = Literal["none", "exempt", "reverse"]
PaymentMethodType = Literal["card", "us_bank_account", "sepa_debit", "customer_balance"]
BalanceTransactionType = Literal[
    "adjustment",
    "applied_to_invoice",
    "unapplied_from_invoice",
    "credit_note",
    "initial",
    "invoice_too_small",
    "invoice_too_large",
    "invoice_overpaid",
    "migration",
]


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A postal address."""

    line1: str | None = None
    line2: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None


class Shipping(msgspec.Struct, frozen=True, kw_only=True):
    """Where goods go."""

    name: str | None = None
    phone: str | None = None
    address: Address | None = None


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """A payer (semantics 1). `balance` below zero is credit of the customer, above zero is owed."""

    id: str
    created: int
    invoice_prefix: str
    email: str | None = None
    name: str | None = None
    phone: str | None = None
    description: str | None = None
    address: Address | None = None
    shipping: Shipping | None = None
    preferred_locale: str | None = None
    currency: str | None = None
    balance: int = 0
    delinquent: bool = False
    next_invoice_sequence: int = 1
    default_payment_method: str | None = None
    tax_exempt: TaxExempt = "none"
    metadata: dict[str, str] = {}
    test_clock: str | None = None
    deleted: bool = False
    version: int = 1


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of a card. The number itself never enters the engine."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int
    fingerprint: str | None = None


class PaymentMethod(msgspec.Struct, frozen=True, kw_only=True):
    """A way to pay, attached to one customer. `token` is what the payment gateway knows it by."""

    id: str
    created: int
    customer: str
    type: PaymentMethodType
    token: str
    card: Card | None = None
    billing_name: str | None = None
    billing_email: str | None = None
    metadata: dict[str, str] = {}
    detached_at: int | None = None
    version: int = 1


class BalanceTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a customer's balance; immutable but for description and metadata (semantics 1)."""

    id: str
    created: int
    customer: str
    currency: str
    amount: int
    ending_balance: int
    type: BalanceTransactionType
    invoice: str | None = None
    credit_note: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    version: int = 1
