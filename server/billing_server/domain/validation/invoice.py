"""What invoices, invoice items, credit notes and payments have to be like (semantics 1 and 3)."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from billing_server.domain import commands as c
from billing_server.domain.money import AMOUNT_MAX
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, exclusive, is_given

_TEXTS: Final = {
    "statement_descriptor": text.STATEMENT_DESCRIPTOR,
    "description": text.DESCRIPTION,
    "footer": text.LONG_TEXT,
    "metadata": text.metadata,
}
_DUE: Final = {"days_until_due": numbers.DAYS_UNTIL_DUE, "due_date": numbers.instant}


def _dues(command: Any, findings: Findings) -> None:
    """Only invoices that are sent have a due date; whether an update lacks one is judged with the state."""
    if command.collection_method == "charge_automatically":
        for name in _DUE:
            if is_given(getattr(command, name)):
                findings.add(
                    name,
                    "parameters_exclusive",
                    "not together with collection_method=charge_automatically, which has no due date; leave it out",
                )
    elif command.collection_method == "send_invoice" and command.days_until_due is None and command.due_date is None:
        findings.add("days_until_due", "parameter_missing", "collection_method=send_invoice needs it, or due_date")


_ONE_DUE: Final = exclusive("days_until_due", "due_date", way_out="say either the days or the date")

_PRICED: Final = ("amount", "unit_amount", "price")


def _priced_once(command: c.CreateInvoiceItem, findings: Findings) -> None:
    if not any(is_given(getattr(command, name)) for name in _PRICED):
        findings.add("amount", "parameter_missing", f"give one of {', '.join(_PRICED)}")


def _amount_is_whole(command: Any, findings: Findings) -> None:
    """An amount is for everything together, so that amount = unit_amount x quantity can hold."""
    if is_given(command.amount) and command.quantity not in (1, UNSET):
        findings.add(
            "quantity", "parameters_exclusive", "not together with amount, which is for all; give unit_amount instead"
        )


def _fits(command: Any, findings: Findings) -> None:
    unit, quantity = command.unit_amount, command.quantity
    if is_given(unit) and is_given(quantity) and abs(unit) <= AMOUNT_MAX < abs(unit * quantity):
        most = f"unit_amount x quantity must be at most {AMOUNT_MAX} minor units; use less"
        findings.add("quantity", "amount_too_large", most)


def _span(command: c.CreateInvoiceItem, findings: Findings) -> None:
    start, end = command.period_start, command.period_end
    if start is not None and end is not None and end < start:
        findings.add("period_end", "time_out_of_range", "must not lie before period_start")


def _parts(command: c.CreateCreditNote, findings: Findings) -> None:
    """Parts, if there are any, are the whole amount; whether there must be any is judged with the invoice."""
    parts = command.refund_amount + command.credit_amount + command.out_of_band_amount
    if parts and parts != command.amount:
        findings.add(
            "amount",
            "parameter_invalid",
            f"refund_amount, credit_amount and out_of_band_amount add up to {parts}, not to {command.amount}",
        )


SHAPES: Final = (
    Shape(
        c.CreateInvoice,
        {
            "customer": text.ID,
            "subscription": text.ID,
            "currency": numbers.currency,
            "default_payment_method": text.ID,
            **_DUE,
            **_TEXTS,
        },
        _dues,
        _ONE_DUE,
    ),
    Shape(
        c.UpdateInvoice,
        {"id": text.ID, "default_payment_method": text.ID, **_DUE, **_TEXTS, "etag": text.ID},
        _dues,
        _ONE_DUE,
    ),
    Shape(c.DeleteInvoice, {"id": text.ID}),
    Shape(c.FinalizeInvoice, {"id": text.ID}),
    Shape(
        c.PayInvoice,
        {"id": text.ID, "payment_method": text.ID},
        exclusive("payment_method", "paid_out_of_band", way_out="charge a payment method, or charge nothing"),
    ),
    Shape(c.SendInvoice, {"id": text.ID}),
    Shape(c.VoidInvoice, {"id": text.ID}),
    Shape(c.MarkInvoiceUncollectible, {"id": text.ID}),
    Shape(
        c.CreateInvoiceItem,
        {
            "customer": text.ID,
            "amount": numbers.ANY_AMOUNT,
            "unit_amount": numbers.ANY_AMOUNT,
            "quantity": numbers.QUANTITY,
            "price": text.ID,
            "currency": numbers.currency,
            "description": text.DESCRIPTION,
            "invoice": text.ID,
            "subscription": text.ID,
            "period_start": numbers.instant,
            "period_end": numbers.instant,
            "metadata": text.metadata,
        },
        _priced_once,
        exclusive(*_PRICED, way_out="say in one way what it costs"),
        _amount_is_whole,
        _fits,
        _span,
    ),
    Shape(
        c.UpdateInvoiceItem,
        {
            "id": text.ID,
            "amount": numbers.ANY_AMOUNT,
            "unit_amount": numbers.ANY_AMOUNT,
            "quantity": numbers.QUANTITY,
            "description": text.DESCRIPTION,
            "metadata": text.metadata,
            "etag": text.ID,
        },
        exclusive("amount", "unit_amount", way_out="say in one way what it costs"),
        _amount_is_whole,
        _fits,
    ),
    Shape(c.DeleteInvoiceItem, {"id": text.ID}),
    Shape(
        c.CreateCreditNote,
        {
            "invoice": text.ID,
            "amount": numbers.AMOUNT,
            "refund_amount": numbers.AMOUNT_OR_NOTHING,
            "credit_amount": numbers.AMOUNT_OR_NOTHING,
            "out_of_band_amount": numbers.AMOUNT_OR_NOTHING,
            "memo": text.LONG_TEXT,
            "metadata": text.metadata,
        },
        _parts,
    ),
    Shape(c.VoidCreditNote, {"id": text.ID}),
    Shape(c.ConfirmPaymentIntent, {"id": text.ID, "payment_method": text.ID}),
    Shape(
        c.CreateRefund,
        {"payment_intent": text.ID, "amount": numbers.AMOUNT, "metadata": text.metadata},
    ),
)
