"""PaymentService: payment intents (which live in their invoices), attempts and refunds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import Message

from billing_server.api.call import Call
from billing_server.api.endpoints import Edge, Endpoint, choice, command, get, listing, path_of, required
from billing_server.domain import commands as c
from billing_server.domain.decide import invoice_of_intent
from billing_server.domain.errors import ResourceMissing, invalid
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.store.invoice import InvoiceFilter
from billing_server.store.payment import PaymentAttemptFilter, RefundFilter
from billing_server.store.view import View
from billing_server.wire.codec import check, encode


def _intent_of(invoice: Invoice, _now: int | None = None) -> Message:
    if invoice.payment_intent is None:
        raise AssertionError(f"{invoice.id} was confirmed without a payment intent")
    return encode(invoice.payment_intent)


async def _intents_of(_view: View, invoices: Sequence[Invoice]) -> Sequence[Message]:
    return [_intent_of(invoice) for invoice in invoices]


async def _get_intent(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "id")
    found = await edge.reads(call).get_many(Invoice, [invoice_of_intent(request.id)])
    for invoice in found:
        if invoice.payment_intent is not None and invoice.payment_intent.id == request.id:
            return _intent_of(invoice).SerializeToString()
    raise ResourceMissing("payment_intent", request.id)


def _intents(request: Any) -> InvoiceFilter:
    return InvoiceFilter(
        customer=request.customer or None,
        ids=(request.invoice,) if request.invoice else None,
        has_payment_intent=True,
        payment_intent_status=choice(request, "status"),
    )


def _invoice_wanted(request: Any) -> str | None:
    """The one invoice that the filters by invoice and by payment intent leave."""
    if not request.payment_intent:
        return request.invoice or None
    invoice = invoice_of_intent(request.payment_intent)
    if request.invoice and request.invoice != invoice:
        raise invalid("payment_intent", "parameters_exclusive", "belongs to another invoice than the one given")
    return invoice


def _attempts(request: Any) -> PaymentAttemptFilter:
    return PaymentAttemptFilter(invoice=_invoice_wanted(request))


def _refunds(request: Any) -> RefundFilter:
    return RefundFilter(customer=request.customer or None, invoice=_invoice_wanted(request))


ENDPOINTS: Final = (
    Endpoint(path_of("PaymentService/GetPaymentIntent"), unary=_get_intent),
    listing("PaymentService/ListPaymentIntents", "payment_intents", _intents, show=_intents_of),
    command("PaymentService/ConfirmPaymentIntent", c.ConfirmPaymentIntent, shown=_intent_of),
    get("PaymentService/GetPaymentAttempt", PaymentAttempt, "payment_attempt"),
    listing("PaymentService/ListPaymentAttempts", "payment_attempts", _attempts),
    command("PaymentService/CreateRefund", c.CreateRefund),
    get("PaymentService/GetRefund", Refund, "refund"),
    listing("PaymentService/ListRefunds", "refunds", _refunds),
)
