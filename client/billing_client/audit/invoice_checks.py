"""Invoices by themselves: sums, the balance they consume, credit notes, status against times, numbers.

Rules: semantics sections 1 (CreditNote) and 3 (state machine, amounts).
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from billing.v1.invoice_model_pb2 import CreditNote, CreditNoteStatus, Invoice, InvoiceStatus
from billing.v1.subscription_model_pb2 import CollectionMethod
from billing_client.audit.book import Book, Shared
from billing_client.audit.check import Fault, check
from billing_client.money import minimum_charge

DRAFT = InvoiceStatus.INVOICE_STATUS_DRAFT
OPEN = InvoiceStatus.INVOICE_STATUS_OPEN
PAID = InvoiceStatus.INVOICE_STATUS_PAID
VOID = InvoiceStatus.INVOICE_STATUS_VOID
UNCOLLECTIBLE = InvoiceStatus.INVOICE_STATUS_UNCOLLECTIBLE
ISSUED = CreditNoteStatus.CREDIT_NOTE_STATUS_ISSUED
SENT = CollectionMethod.COLLECTION_METHOD_SEND_INVOICE

_TIMES = ("finalized_at", "paid_at", "voided_at", "marked_uncollectible_at")
_NEEDED_TIMES: dict[int, tuple[str, ...]] = {
    DRAFT: (),
    OPEN: ("finalized_at",),
    PAID: ("finalized_at", "paid_at"),
    VOID: ("voided_at",),
    UNCOLLECTIBLE: ("finalized_at", "marked_uncollectible_at"),
}
_FORBIDDEN_TIMES: dict[int, tuple[str, ...]] = {
    DRAFT: _TIMES,
    OPEN: ("paid_at", "voided_at", "marked_uncollectible_at"),
    PAID: ("voided_at",),
    VOID: ("paid_at",),
    UNCOLLECTIBLE: ("paid_at", "voided_at"),
}


@check
def invoice_lines(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Lines = subtotal = total: there are neither discounts nor taxes."""
    for invoice in book.invoices:
        lines = sum(line.amount for line in invoice.lines)
        if lines != invoice.subtotal:
            yield invoice.id, f"its lines sum up to {lines}, its subtotal is {invoice.subtotal}"
        if invoice.subtotal != invoice.total:
            yield invoice.id, f"its subtotal is {invoice.subtotal}, its total {invoice.total}"


@check
def invoice_amount_due(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Finalized: total and balance are due together, unless too small to be charged; credit notes lower that."""
    for invoice in book.invoices:
        if not invoice.HasField("finalized_at"):
            continue
        raw = invoice.total + invoice.starting_balance
        charged = raw >= minimum_charge(invoice.currency)
        due = (raw if charged else 0) - invoice.pre_payment_credit_notes_amount
        ending = 0 if charged else raw
        if invoice.amount_due != due:
            yield invoice.id, f"{due} should be due, but amount_due is {invoice.amount_due}"
        if invoice.ending_balance != ending:
            yield invoice.id, f"the balance should end at {ending}, but ending_balance is {invoice.ending_balance}"


@check
def invoice_remaining(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Paid and remaining make up what is due; none is negative; nothing remains of a paid invoice."""
    for invoice in book.invoices:
        if invoice.amount_paid + invoice.amount_remaining != invoice.amount_due:
            parts = f"paid {invoice.amount_paid} and remaining {invoice.amount_remaining}"
            yield invoice.id, f"{parts} do not make up {invoice.amount_due} due"
        if min(invoice.amount_due, invoice.amount_paid, invoice.amount_remaining) < 0:
            yield invoice.id, "an amount that is due, paid or remaining is negative"
        if invoice.status == PAID and invoice.amount_remaining:
            yield invoice.id, f"it is paid, but {invoice.amount_remaining} remain"


@check
def invoice_credit_notes(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Each credit note is the sum of its parts, and the invoice counts those that hold."""
    for note in book.credit_notes:
        yield from _parts_of(note)
    for invoice in book.invoices:
        notes = [note for note in book.notes_of(invoice) if note.status == ISSUED]
        told = (invoice.pre_payment_credit_notes_amount, invoice.post_payment_credit_notes_amount)
        sums = (sum(note.pre_payment_amount for note in notes), sum(note.post_payment_amount for note in notes))
        if told != sums:
            yield invoice.id, f"its credit notes before and after payment sum up to {sums}, but it says {told}"


def _parts_of(note: CreditNote) -> Iterator[Fault]:
    if note.pre_payment_amount + note.post_payment_amount != note.amount:
        yield note.id, f"its parts before and after payment do not make up its amount {note.amount}"
    if note.refund_amount + note.credit_amount + note.out_of_band_amount != note.post_payment_amount:
        yield note.id, "what was refunded, credited and given out of band is not the part after payment"


@check
def invoice_status(book: Book, _shared: Shared) -> Iterator[Fault]:
    """The status fits to the times, the number and the plans of the invoice."""
    for invoice in book.invoices:
        status = InvoiceStatus.Name(invoice.status).removeprefix("INVOICE_STATUS_").lower()
        for name in _NEEDED_TIMES.get(invoice.status, ()):
            if not _has(invoice, name):
                yield invoice.id, f"it is {status} without {name}"
        for name in _FORBIDDEN_TIMES.get(invoice.status, ()):
            if _has(invoice, name):
                yield invoice.id, f"it is {status}, but has {name}"
        if bool(invoice.number) != invoice.HasField("finalized_at"):
            yield invoice.id, f"it is {status} with the number {invoice.number!r}, which finalization gives"
        yield from _order_of_times(invoice)
        yield from _plans(invoice, status)


def _has(message: Message, name: str) -> bool:
    return message.HasField(name)


def _order_of_times(invoice: Invoice) -> Iterator[Fault]:
    last = invoice.created.seconds
    for name in ("finalized_at", "marked_uncollectible_at"):
        moment = getattr(invoice, name).seconds
        if _has(invoice, name):
            if moment < last:
                yield invoice.id, f"{name} lies before what must come first"
            last = moment
    ends = [getattr(invoice, name).seconds for name in ("paid_at", "voided_at")]
    if any(0 < moment < last for moment in ends):
        yield invoice.id, "it ended before it was finalized"


def _plans(invoice: Invoice, status: str) -> Iterator[Fault]:
    if invoice.auto_advance and invoice.status not in (DRAFT, OPEN):
        yield invoice.id, f"it is {status}, but auto_advance is on"
    if invoice.HasField("next_payment_attempt") and (
        not invoice.auto_advance or invoice.status not in (DRAFT, OPEN) or invoice.collection_method == SENT
    ):
        yield invoice.id, "a payment attempt is planned that must not happen"
    if invoice.HasField("due_date") and invoice.collection_method != SENT:
        yield invoice.id, "it is charged automatically, but has a due date"
    if invoice.collection_method == SENT and not invoice.HasField("due_date") and invoice.status != DRAFT:
        yield invoice.id, "it is sent without a due date"


@check
def invoice_numbers(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Numbers count up without a repeat or a gap to the customer's next one, but for what was left out on request."""
    numbered: dict[int, str] = {}
    for invoice in book.invoices:
        if not invoice.number:
            continue
        count = invoice.number.rpartition("-")[2]
        if not count.isdecimal():
            yield invoice.id, f"its number {invoice.number!r} does not end with a count"
            continue
        other = numbered.setdefault(int(count), invoice.id)
        if other != invoice.id:
            yield invoice.id, f"its number {invoice.number} repeats that of {other}"
    if not numbered:
        return
    excused = {number for first, end in book.sequence_jumps for number in range(first, end)}
    expected = range(min(numbered), book.customer.next_invoice_sequence)
    missing = [number for number in expected if number not in numbered and number not in excused]
    if missing:
        yield book.customer.id, f"no invoice has the number {missing[0]}, nor {len(missing) - 1} others below the next"
    if max(numbered) >= book.customer.next_invoice_sequence:
        yield book.customer.id, f"its next invoice number {book.customer.next_invoice_sequence} was given already"
