"""The invoice: its shape, its lines, pending items and credit notes, and its next moment."""

from __future__ import annotations

from typing import Literal

import msgspec

from billing_server.domain.customer import Address
from billing_server.domain.payment import PaymentIntent
from billing_server.domain.subscription import CollectionMethod

InvoiceStatus = Literal["draft", "open", "paid", "uncollectible", "void"]
BillingReason = Literal[
    "subscription_create",
    "subscription_cycle",
    "subscription_update",
    "subscription_threshold",
    "automatic_pending_invoice_item_invoice",
    "manual",
    "upcoming",
]
LineType = Literal["subscription_item", "invoice_item"]
CreditNoteType = Literal["pre_payment", "post_payment", "mixed"]
CreditNoteStatus = Literal["issued", "void"]
CreditNoteReason = Literal["duplicate", "fraudulent", "order_change", "product_unsatisfactory"]

INVOICE_LINES_MAX = 250
"""Pending items that one invoice takes (semantics 1, InvoiceItem)."""


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One amount of an invoice. Metered lines carry the usage as their quantity."""

    id: str
    type: LineType
    amount: int
    description: str
    quantity: int | None
    period_start: int
    period_end: int
    price: str | None = None
    subscription_item: str | None = None
    invoice_item: str | None = None
    proration: bool = False
    discountable: bool = True
    metadata: dict[str, str] = {}


class Invoice(msgspec.Struct, frozen=True, kw_only=True):
    """A request for money (semantics 3). Amounts are minor units of `currency`.

    `retries_done`, `first_failure_at` and `last_attempt_due_at` drive the retry schedule;
    `attempts_started` numbers the attempts, while `attempt_count` follows the published rule (it counts the
    first attempt and then automatic ones only). `hard_declined_method` is the payment method that must not be
    charged again, `charging` says that an attempt is unresolved, `overdue_deadline_at` is the moment of the
    overdue policy. `automation_run` is the run of an automation that owns its collection, or did: the account's
    settings do not apply to it then (semantics 8.4).
    """

    id: str
    created: int
    customer: str
    currency: str
    status: InvoiceStatus
    billing_reason: BillingReason
    collection_method: CollectionMethod
    auto_advance: bool
    period_start: int
    period_end: int
    lines: tuple[InvoiceLine, ...] = ()
    subscription: str | None = None
    subscription_metadata: dict[str, str] = {}
    automatically_finalizes_at: int | None = None
    number: str | None = None
    subtotal: int = 0
    total: int = 0
    starting_balance: int = 0
    ending_balance: int | None = None
    amount_due: int = 0
    amount_paid: int = 0
    amount_remaining: int = 0
    attempted: bool = False
    attempt_count: int = 0
    next_payment_attempt: int | None = None
    due_date: int | None = None
    days_until_due: int | None = None
    effective_at: int | None = None
    finalized_at: int | None = None
    paid_at: int | None = None
    voided_at: int | None = None
    marked_uncollectible_at: int | None = None
    paid_out_of_band: bool = False
    pre_payment_credit_notes_amount: int = 0
    post_payment_credit_notes_amount: int = 0
    default_payment_method: str | None = None
    payment_intent: PaymentIntent | None = None
    statement_descriptor: str | None = None
    description: str | None = None
    footer: str | None = None
    customer_email: str | None = None
    customer_name: str | None = None
    customer_address: Address | None = None
    metadata: dict[str, str] = {}
    test_clock: str | None = None
    attempts_started: int = 0
    retries_done: int = 0
    first_failure_at: int | None = None
    last_attempt_due_at: int | None = None
    hard_declined_method: str | None = None
    due_date_passed: bool = False
    charging: bool = False
    overdue_deadline_at: int | None = None
    collection_paused: bool = False
    trial_over: bool = False
    automation_run: str | None = None
    version: int = 1

    @property
    def collectible(self) -> bool:
        """Whether money may still come in for it."""
        return self.status in ("open", "uncollectible")

    def overdue(self, moment: int) -> bool:
        """Whether it is open past its due date at `moment` (decision 5)."""
        return self.status == "open" and self.due_date is not None and self.due_date <= moment


class InvoiceItem(msgspec.Struct, frozen=True, kw_only=True):
    """An amount that waits for an invoice (`invoice` None), or was added to a draft."""

    id: str
    created: int
    customer: str
    currency: str
    amount: int
    description: str
    quantity: int = 1
    unit_amount: int | None = None
    price: str | None = None
    subscription: str | None = None
    subscription_item: str | None = None
    invoice: str | None = None
    proration: bool = False
    discountable: bool = True
    period_start: int
    period_end: int
    metadata: dict[str, str] = {}
    version: int = 1


class CreditNote(msgspec.Struct, frozen=True, kw_only=True):
    """A reduction of a finalized invoice: of what is due before payment, given back after (semantics 1)."""

    id: str
    created: int
    number: str
    customer: str
    invoice: str
    currency: str
    amount: int
    type: CreditNoteType
    status: CreditNoteStatus = "issued"
    reason: CreditNoteReason | None = None
    memo: str | None = None
    pre_payment_amount: int = 0
    post_payment_amount: int = 0
    refund_amount: int = 0
    credit_amount: int = 0
    out_of_band_amount: int = 0
    refund: str | None = None
    customer_balance_transaction: str | None = None
    voided_at: int | None = None
    metadata: dict[str, str] = {}
    version: int = 1


def wake_at(invoice: Invoice) -> int | None:
    """The next moment at which time alone changes the invoice, or None when there is none."""
    if invoice.status == "draft":
        return invoice.automatically_finalizes_at if invoice.auto_advance else None
    if invoice.status != "open":
        return None
    moments = [invoice.overdue_deadline_at]
    if not invoice.charging:
        moments.append(invoice.next_payment_attempt)
    if invoice.due_date is not None and not invoice.due_date_passed:
        moments.append(max(invoice.due_date, invoice.finalized_at or 0))
    return min([moment for moment in moments if moment is not None], default=None)
