"""How invoices, invoice items and credit notes are stored and listed."""

from __future__ import annotations

from billing_server.domain import invoice as invoices
from billing_server.domain.invoice import CreditNote, Invoice, InvoiceItem, InvoiceStatus
from billing_server.domain.payment import PaymentIntentStatus
from billing_server.domain.subscription import CollectionMethod
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

INVOICES = Rows(Invoice, "invoice", "invoices", "invoice_row_2", derived={"wake_at": invoices.wake_at})
INVOICE_ITEMS = Rows(InvoiceItem, "invoice_item", "invoice_items", "invoice_item_row")
CREDIT_NOTES = Rows(CreditNote, "credit_note", "credit_notes", "credit_note_row")


class InvoiceFilter(Filter[Invoice], frozen=True, kw_only=True):
    """Which invoices to list.

    `overdue_at` and `not_overdue_at` are a moment of real time; invoices on a test clock go by its time.
    With `has_payment_intent` and `payment_intent_status` this lists payment intents as well.
    """

    customer: str | None = None
    subscription: str | None = None
    status: InvoiceStatus | None = None
    collection_method: CollectionMethod | None = None
    overdue_at: int | None = None
    not_overdue_at: int | None = None
    due_from: int | None = None
    due_before: int | None = None
    created_from: int | None = None
    created_before: int | None = None
    has_payment_intent: bool | None = None
    payment_intent_status: PaymentIntentStatus | None = None
    ids: tuple[str, ...] | None = None


class InvoiceItemFilter(Filter[InvoiceItem], frozen=True, kw_only=True):
    """Which invoice items to list; `pending` ones wait for an invoice."""

    customer: str | None = None
    invoice: str | None = None
    pending: bool | None = None


class CreditNoteFilter(Filter[CreditNote], frozen=True, kw_only=True):
    """Which credit notes to list."""

    customer: str | None = None
    invoice: str | None = None
