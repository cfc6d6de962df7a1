"""What customers, their payment methods and changes of their balance have to be like (semantics 1)."""

from __future__ import annotations

from typing import Final

from billing_server.domain import commands as c
from billing_server.domain.customer import Address, Card, Shipping
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, nested

ADDRESS: Final = Shape(
    Address,
    {
        "line1": text.NAME,
        "line2": text.NAME,
        "city": text.NAME,
        "state": text.NAME,
        "postal_code": text.POSTAL_CODE,
        "country": text.COUNTRY,
    },
)
SHIPPING: Final = Shape(Shipping, {"name": text.NAME, "phone": text.phone, "address": nested(ADDRESS)})

_EXPIRY_MONTH: Final = numbers.whole(1, 12)
_EXPIRY_YEAR: Final = numbers.whole(2000, 2199)

CARD: Final = Shape(
    Card,
    {
        "brand": text.NAME,
        "last4": text.LAST_FOUR,
        "exp_month": _EXPIRY_MONTH,
        "exp_year": _EXPIRY_YEAR,
        "fingerprint": text.TOKEN,
    },
)


def _currency_of_balance(command: c.CreateCustomer, findings: Findings) -> None:
    if command.balance and command.currency is None:
        findings.add("currency", "parameter_missing", "a balance needs it; name the currency of the balance")


def _card_of_card(command: c.AttachPaymentMethod, findings: Findings) -> None:
    if command.card is not None and command.type != "card":
        findings.add(
            "card", "parameters_exclusive", f"not together with type={command.type}; leave it out, or use type=card"
        )


def _not_zero(command: c.AdjustBalance, findings: Findings) -> None:
    if command.amount == 0:
        findings.add("amount", "parameter_invalid", "must not be zero: below zero gives credit, above zero is owed")


SHAPES: Final = (
    Shape(
        c.CreateCustomer,
        {
            "email": text.EMAIL,
            "name": text.NAME,
            "phone": text.phone,
            "description": text.DESCRIPTION,
            "address": nested(ADDRESS),
            "shipping": nested(SHIPPING),
            "preferred_locale": text.LOCALE,
            "balance": numbers.ANY_AMOUNT,
            "currency": numbers.currency,
            "invoice_prefix": text.INVOICE_PREFIX,
            "next_invoice_sequence": numbers.SEQUENCE,
            "metadata": text.metadata,
            "test_clock": text.ID,
        },
        _currency_of_balance,
    ),
    Shape(
        c.UpdateCustomer,
        {
            "id": text.ID,
            "email": text.EMAIL,
            "name": text.NAME,
            "phone": text.phone,
            "description": text.DESCRIPTION,
            "address": nested(ADDRESS),
            "shipping": nested(SHIPPING),
            "preferred_locale": text.LOCALE,
            "default_payment_method": text.ID,
            "next_invoice_sequence": numbers.SEQUENCE,
            "invoice_prefix": text.INVOICE_PREFIX,
            "metadata": text.metadata,
            "etag": text.ID,
        },
    ),
    Shape(c.DeleteCustomer, {"id": text.ID, "etag": text.ID}),
    Shape(
        c.AttachPaymentMethod,
        {
            "customer": text.ID,
            "token": text.TOKEN,
            "card": nested(CARD),
            "billing_name": text.NAME,
            "billing_email": text.EMAIL,
            "metadata": text.metadata,
        },
        _card_of_card,
    ),
    Shape(
        c.UpdatePaymentMethod,
        {
            "id": text.ID,
            "billing_name": text.NAME,
            "billing_email": text.EMAIL,
            "exp_month": _EXPIRY_MONTH,
            "exp_year": _EXPIRY_YEAR,
            "metadata": text.metadata,
            "etag": text.ID,
        },
    ),
    Shape(c.DetachPaymentMethod, {"id": text.ID}),
    Shape(
        c.AdjustBalance,
        {
            "customer": text.ID,
            "amount": numbers.ANY_AMOUNT,
            "currency": numbers.currency,
            "description": text.DESCRIPTION,
            "metadata": text.metadata,
        },
        _not_zero,
    ),
)
