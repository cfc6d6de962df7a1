"""InvoiceService: invoices, invoice items and credit notes."""

from __future__ import annotations

import time
from typing import Any, Final

from billing_server.api.endpoints import choice, command, get, listing, nothing, span
from billing_server.domain import commands as c
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem
from billing_server.store.invoice import CreditNoteFilter, InvoiceFilter, InvoiceItemFilter


def _invoices(request: Any) -> InvoiceFilter:
    created_from, created_before = span(request, "created")
    due_from, due_before = span(request, "due_date")
    overdue = request.overdue if request.HasField("overdue") else None
    now = int(time.time())
    return InvoiceFilter(
        customer=request.customer or None,
        subscription=request.subscription or None,
        status=choice(request, "status"),
        collection_method=choice(request, "collection_method"),
        overdue_at=now if overdue is True else None,
        not_overdue_at=now if overdue is False else None,
        due_from=due_from,
        due_before=due_before,
        created_from=created_from,
        created_before=created_before,
    )


def _invoice_items(request: Any) -> InvoiceItemFilter:
    return InvoiceItemFilter(
        customer=request.customer or None,
        invoice=request.invoice or None,
        pending=request.pending if request.HasField("pending") else None,
    )


def _credit_notes(request: Any) -> CreditNoteFilter:
    return CreditNoteFilter(customer=request.customer or None, invoice=request.invoice or None)


ENDPOINTS: Final = (
    command("InvoiceService/CreateInvoice", c.CreateInvoice),
    get("InvoiceService/GetInvoice", Invoice, "invoice"),
    listing("InvoiceService/ListInvoices", "invoices", _invoices),
    command("InvoiceService/UpdateInvoice", c.UpdateInvoice),
    command("InvoiceService/DeleteInvoice", c.DeleteInvoice, shown=nothing),
    command("InvoiceService/FinalizeInvoice", c.FinalizeInvoice),
    command("InvoiceService/PayInvoice", c.PayInvoice),
    command("InvoiceService/SendInvoice", c.SendInvoice),
    command("InvoiceService/VoidInvoice", c.VoidInvoice),
    command("InvoiceService/MarkInvoiceUncollectible", c.MarkInvoiceUncollectible),
    command("InvoiceService/CreateInvoiceItem", c.CreateInvoiceItem),
    get("InvoiceService/GetInvoiceItem", InvoiceItem, "invoice_item"),
    listing("InvoiceService/ListInvoiceItems", "invoice_items", _invoice_items),
    command("InvoiceService/UpdateInvoiceItem", c.UpdateInvoiceItem),
    command("InvoiceService/DeleteInvoiceItem", c.DeleteInvoiceItem, shown=nothing),
    command("InvoiceService/CreateCreditNote", c.CreateCreditNote),
    get("InvoiceService/GetCreditNote", CreditNote, "credit_note"),
    listing("InvoiceService/ListCreditNotes", "credit_notes", _credit_notes),
    command("InvoiceService/VoidCreditNote", c.VoidCreditNote),
)
