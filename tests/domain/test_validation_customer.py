"""What customers, payment methods and changes of balances have to be like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.customer import Address, Card, Shipping
from billing_server.domain.errors import InvalidArgument
from billing_server.domain.money import AMOUNT_MAX
from billing_server.domain.validation import validate

NOW = 1_750_000_000

CUSTOMER = c.CreateCustomer()
UPDATE = c.UpdateCustomer(id="cus_1")
CARD = Card(brand="visa", last4="4242", exp_month=12, exp_year=2030)
ATTACH = c.AttachPaymentMethod(customer="cus_1", token="pm_card_visa")
METHOD_UPDATE = c.UpdatePaymentMethod(id="pm_1")
ADJUST = c.AdjustBalance(customer="cus_1", amount=-1000)


def card(**changes: Any) -> dict[str, Any]:
    """A card with changes."""
    return {"card": msgspec.structs.replace(CARD, **changes)}


GOOD = [
    (CUSTOMER, {}),
    (
        CUSTOMER,
        {
            "email": "jenny@example.com",
            "phone": "+49 30 123456",
            "address": Address(line1="Way 1", country="DE", postal_code="10115"),
            "shipping": Shipping(name="Jenny", address=Address()),
            "preferred_locale": "de-DE",
            "balance": -500,
            "currency": "eur",
            "invoice_prefix": "JENNY1",
            "next_invoice_sequence": 7,
            "test_clock": "clock_1",
        },
    ),
    (UPDATE, {"email": None, "address": None, "default_payment_method": None}),
    (ATTACH, card()),
    (ATTACH, {"type": "sepa_debit", "set_default": True}),
    (METHOD_UPDATE, {"exp_month": 1, "exp_year": 2031, "billing_email": None}),
    (ADJUST, {"currency": "usd", "description": "Goodwill"}),
]


@pytest.mark.parametrize(("command", "changes"), GOOD)
def test_good_commands_are_accepted(command: c.Command, changes: dict[str, Any]) -> None:
    validate(msgspec.structs.replace(command, **changes), NOW)


BAD = [
    (CUSTOMER, {"email": "jenny"}, "email", "parameter_invalid"),
    (CUSTOMER, {"name": "4242 4242 4242 4242"}, "name", "card_number_refused"),
    (CUSTOMER, {"phone": "none"}, "phone", "parameter_invalid"),
    (CUSTOMER, {"description": "x" * 501}, "description", "parameter_invalid"),
    (CUSTOMER, {"address": Address(country="Germany")}, "address.country", "parameter_invalid"),
    (
        CUSTOMER,
        {"shipping": Shipping(address=Address(line1="x" * 251))},
        "shipping.address.line1",
        "parameter_invalid",
    ),
    (CUSTOMER, {"preferred_locale": "german"}, "preferred_locale", "parameter_invalid"),
    (CUSTOMER, {"balance": 100}, "currency", "parameter_missing"),
    (CUSTOMER, {"balance": -(2**63), "currency": "usd"}, "balance", "amount_too_large"),
    (CUSTOMER, {"currency": "EUR"}, "currency", "parameter_invalid"),
    (CUSTOMER, {"invoice_prefix": "ab"}, "invoice_prefix", "parameter_invalid"),
    (CUSTOMER, {"next_invoice_sequence": 0}, "next_invoice_sequence", "parameter_invalid_integer"),
    (CUSTOMER, {"test_clock": ""}, "test_clock", "parameter_invalid_empty"),
    (CUSTOMER, {"metadata": {"k": "\x00"}}, "metadata[k]", "metadata_invalid"),
    (UPDATE, {"id": ""}, "id", "parameter_missing"),
    (UPDATE, {"invoice_prefix": None}, "invoice_prefix", "parameter_invalid_empty"),
    (UPDATE, {"next_invoice_sequence": 10**9 + 1}, "next_invoice_sequence", "parameter_invalid_integer"),
    (UPDATE, {"default_payment_method": "pm_\x00"}, "default_payment_method", "parameter_invalid"),
    (c.DeleteCustomer(id="cus_1"), {"id": ""}, "id", "parameter_missing"),
    (ATTACH, {"customer": ""}, "customer", "parameter_missing"),
    (ATTACH, {"token": ""}, "token", "parameter_missing"),
    (ATTACH, {"token": "4242424242424242"}, "token", "card_number_refused"),
    (ATTACH, {"billing_email": "@"}, "billing_email", "parameter_invalid"),
    (ATTACH, card(last4="42424242"), "card.last4", "parameter_invalid"),
    (ATTACH, card(brand=""), "card.brand", "parameter_missing"),
    (ATTACH, card(exp_month=13), "card.exp_month", "parameter_invalid_integer"),
    (ATTACH, card(exp_year=31), "card.exp_year", "parameter_invalid_integer"),
    (ATTACH, card(fingerprint="4242424242424242"), "card.fingerprint", "card_number_refused"),
    (ATTACH, {"type": "us_bank_account", **card()}, "card", "parameters_exclusive"),
    (METHOD_UPDATE, {"exp_month": 0}, "exp_month", "parameter_invalid_integer"),
    (METHOD_UPDATE, {"exp_year": 31}, "exp_year", "parameter_invalid_integer"),
    (c.DetachPaymentMethod(id="pm_1"), {"id": ""}, "id", "parameter_missing"),
    (ADJUST, {"amount": 0}, "amount", "parameter_invalid"),
    (ADJUST, {"amount": AMOUNT_MAX + 1}, "amount", "amount_too_large"),
    (ADJUST, {"currency": "x"}, "currency", "parameter_invalid"),
]


@pytest.mark.parametrize(("command", "changes", "field", "reason"), BAD)
def test_bad_commands_are_refused(command: c.Command, changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(msgspec.structs.replace(command, **changes), NOW)
    assert [(violation.field, violation.reason) for violation in refused.value.violations] == [(field, reason)]
