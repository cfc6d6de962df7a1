"""What invoices, invoice items, credit notes and payments have to be like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.errors import InvalidArgument
from billing_server.domain.validation import validate

NOW = 1_750_000_000
LATER = NOW + 86_400

INVOICE = c.CreateInvoice(customer="cus_1")
INVOICE_UPDATE = c.UpdateInvoice(id="in_1")
PAY = c.PayInvoice(id="in_1")
ITEM = c.CreateInvoiceItem(customer="cus_1", amount=500)
UNITS = c.CreateInvoiceItem(customer="cus_1", unit_amount=500, quantity=3)
ITEM_UPDATE = c.UpdateInvoiceItem(id="ii_1")
CREDIT_NOTE = c.CreateCreditNote(invoice="in_1", amount=500)
REFUND = c.CreateRefund(payment_intent="pi_1")

GOOD = [
    (INVOICE, {}),
    (INVOICE, {"collection_method": "send_invoice", "days_until_due": 0}),
    (INVOICE, {"collection_method": "send_invoice", "due_date": LATER, "footer": "Thank you. " * 400}),
    (INVOICE_UPDATE, {}),
    (INVOICE_UPDATE, {"due_date": LATER, "description": None}),
    (INVOICE_UPDATE, {"collection_method": "send_invoice", "days_until_due": None, "due_date": LATER}),
    (INVOICE_UPDATE, {"collection_method": "send_invoice"}),
    (PAY, {"paid_out_of_band": True}),
    (ITEM, {"amount": -500, "period_start": NOW, "period_end": NOW}),
    (UNITS, {"unit_amount": -500}),
    (UNITS, {"unit_amount": 0, "quantity": 0}),
    (ITEM, {"amount": None, "price": "price_1", "quantity": 3}),
    (ITEM_UPDATE, {"amount": 0}),
    (ITEM_UPDATE, {"quantity": 4, "description": None}),
    (CREDIT_NOTE, {}),
    (CREDIT_NOTE, {"refund_amount": 300, "credit_amount": 200}),
    (REFUND, {"amount": 1}),
    (c.FinalizeInvoice(id="in_1"), {}),
    (c.ConfirmPaymentIntent(id="pi_1"), {"payment_method": "pm_1"}),
]


@pytest.mark.parametrize(("command", "changes"), GOOD)
def test_good_commands_are_accepted(command: c.Command, changes: dict[str, Any]) -> None:
    validate(msgspec.structs.replace(command, **changes), NOW)


BAD = [
    (INVOICE, {"customer": ""}, "customer", "parameter_missing"),
    (INVOICE, {"currency": "US"}, "currency", "parameter_invalid"),
    (INVOICE, {"subscription": ""}, "subscription", "parameter_invalid_empty"),
    (INVOICE, {"collection_method": "send_invoice"}, "days_until_due", "parameter_missing"),
    (INVOICE, {"days_until_due": 30}, "days_until_due", "parameters_exclusive"),
    (INVOICE, {"due_date": LATER}, "due_date", "parameters_exclusive"),
    (
        INVOICE,
        {"collection_method": "send_invoice", "days_until_due": 30, "due_date": LATER},
        "due_date",
        "parameters_exclusive",
    ),
    (INVOICE, {"statement_descriptor": "NO"}, "statement_descriptor", "parameter_invalid"),
    (INVOICE, {"footer": "x" * 5001}, "footer", "parameter_invalid"),
    (INVOICE_UPDATE, {"id": ""}, "id", "parameter_missing"),
    (INVOICE_UPDATE, {"auto_advance": None}, "auto_advance", "parameter_invalid_empty"),
    (INVOICE_UPDATE, {"days_until_due": 30, "due_date": LATER}, "due_date", "parameters_exclusive"),
    (
        INVOICE_UPDATE,
        {"collection_method": "charge_automatically", "due_date": LATER},
        "due_date",
        "parameters_exclusive",
    ),
    (
        INVOICE_UPDATE,
        {"collection_method": "send_invoice", "days_until_due": None, "due_date": None},
        "days_until_due",
        "parameter_missing",
    ),
    (INVOICE_UPDATE, {"due_date": NOW + 200 * 31_536_000}, "due_date", "time_out_of_range"),
    *(
        (command(id="x"), {"id": ""}, "id", "parameter_missing")
        for command in (
            c.DeleteInvoice,
            c.FinalizeInvoice,
            c.PayInvoice,
            c.SendInvoice,
            c.VoidInvoice,
            c.MarkInvoiceUncollectible,
            c.DeleteInvoiceItem,
            c.VoidCreditNote,
            c.ConfirmPaymentIntent,
        )
    ),
    (PAY, {"payment_method": "pm_1", "paid_out_of_band": True}, "paid_out_of_band", "parameters_exclusive"),
    (ITEM, {"amount": None}, "amount", "parameter_missing"),
    (ITEM, {"unit_amount": 5}, "unit_amount", "parameters_exclusive"),
    (ITEM, {"amount": 0, "price": "price_1"}, "price", "parameters_exclusive"),
    (ITEM, {"amount": 2**63}, "amount", "amount_too_large"),
    (ITEM, {"amount": -(10**15) - 1}, "amount", "amount_too_large"),
    (ITEM, {"quantity": 2}, "quantity", "parameters_exclusive"),
    (UNITS, {"quantity": -1}, "quantity", "parameter_invalid_integer"),
    (UNITS, {"unit_amount": 10**15, "quantity": 2}, "quantity", "amount_too_large"),
    (ITEM, {"period_start": NOW, "period_end": NOW - 1}, "period_end", "time_out_of_range"),
    (ITEM, {"period_start": -1}, "period_start", "time_out_of_range"),
    (ITEM_UPDATE, {"amount": 5, "unit_amount": 5}, "unit_amount", "parameters_exclusive"),
    (ITEM_UPDATE, {"amount": 5, "quantity": 2}, "quantity", "parameters_exclusive"),
    (ITEM_UPDATE, {"amount": None}, "amount", "parameter_invalid_empty"),
    (CREDIT_NOTE, {"invoice": ""}, "invoice", "parameter_missing"),
    (CREDIT_NOTE, {"amount": 0}, "amount", "amount_too_small"),
    (CREDIT_NOTE, {"refund_amount": -500, "credit_amount": 1000}, "refund_amount", "amount_too_small"),
    (CREDIT_NOTE, {"refund_amount": 300}, "amount", "parameter_invalid"),
    (CREDIT_NOTE, {"memo": "x" * 5001}, "memo", "parameter_invalid"),
    (REFUND, {"payment_intent": ""}, "payment_intent", "parameter_missing"),
    (REFUND, {"amount": 0}, "amount", "amount_too_small"),
]


@pytest.mark.parametrize(("command", "changes", "field", "reason"), BAD)
def test_bad_commands_are_refused(command: c.Command, changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(msgspec.structs.replace(command, **changes), NOW)
    assert [(violation.field, violation.reason) for violation in refused.value.violations] == [(field, reason)]
