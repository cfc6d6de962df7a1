"""Payments against invoices: once, in full, and given back where nothing was owed (semantics sections 3 and 6)."""

from __future__ import annotations

from collections.abc import Iterator

from billing.v1.invoice_model_pb2 import Invoice
from billing.v1.payment_model_pb2 import (
    AttemptKind,
    AttemptState,
    PaymentAttempt,
    PaymentIntentStatus,
    RefundReason,
)
from billing_client.audit.book import UNRESOLVED, Book, Shared, effective
from billing_client.audit.check import Fault, check
from billing_client.audit.invoice_checks import OPEN, PAID, VOID

SUCCEEDED = AttemptState.ATTEMPT_STATE_SUCCEEDED
LATE = RefundReason.REFUND_REASON_LATE_PAYMENT
_INTENT_SUCCEEDED = PaymentIntentStatus.PAYMENT_INTENT_STATUS_SUCCEEDED
_INTENT_CANCELED = PaymentIntentStatus.PAYMENT_INTENT_STATUS_CANCELED


@check
def payment_sum(book: Book, _shared: Shared) -> Iterator[Fault]:
    """What succeeded attempts collected, without payments that came too late, is what was paid.

    A later refund leaves an invoice paid; one that the engine made of a late payment undoes it.
    """
    for invoice in book.invoices:
        collected = sum(attempt.amount for attempt in _kept(book, invoice))
        paid = 0 if invoice.paid_out_of_band else invoice.amount_paid
        if collected != paid:
            yield invoice.id, f"attempts collected {collected}, but {paid} count as paid through the gateway"


@check
def payment_once(book: Book, _shared: Shared) -> Iterator[Fault]:
    """A paid invoice with an amount due has exactly one succeeded attempt, unless it was paid by other means."""
    for invoice in book.invoices:
        kept = _kept(book, invoice)
        if len(kept) > 1:
            yield invoice.id, f"{len(kept)} attempts succeeded: the customer was charged more than once"
        due = invoice.status == PAID and invoice.amount_due > 0 and not invoice.paid_out_of_band
        if due and not kept:
            yield invoice.id, "it is paid, but no attempt succeeded and it was not paid out of band"


@check
def payment_of_void_invoice(book: Book, _shared: Shared) -> Iterator[Fault]:
    """Money that came in for a void invoice went back."""
    for invoice in book.invoices:
        if invoice.status != VOID:
            continue
        for attempt in book.attempts_of(invoice):
            if attempt.state == SUCCEEDED and attempt.amount_refunded != attempt.amount:
                yield attempt.id, f"it collected {attempt.amount} for a void invoice and was not given back"


@check
def attempt_alone(book: Book, _shared: Shared) -> Iterator[Fault]:
    """At most one attempt of an invoice has an open outcome."""
    for invoice in book.invoices:
        unresolved = [attempt.id for attempt in book.attempts_of(invoice) if attempt.state in UNRESOLVED]
        if len(unresolved) > 1:
            yield invoice.id, f"{len(unresolved)} attempts are unresolved at once: {', '.join(unresolved)}"


@check
def attempt_numbers(book: Book, _shared: Shared) -> Iterator[Fault]:
    """The attempts of an invoice are numbered 1, 2, 3 and so on."""
    for invoice in book.invoices:
        numbers = [attempt.number for attempt in book.attempts_of(invoice)]
        if numbers != list(range(1, len(numbers) + 1)):
            yield invoice.id, f"its attempts are numbered {numbers}"


@check
def attempt_states(book: Book, _shared: Shared) -> Iterator[Fault]:
    """An attempt is settled exactly when its outcome is known, and tells an error unless it succeeded."""
    for attempt in book.attempts:
        resolved = attempt.state not in UNRESOLVED
        if resolved != attempt.HasField("settled_at"):
            yield attempt.id, "it is settled without an outcome" if not resolved else "it has an outcome but no time"
        if attempt.state == SUCCEEDED and attempt.HasField("error"):
            yield attempt.id, "it succeeded, but has an error"
        if attempt.state == AttemptState.ATTEMPT_STATE_FAILED and not attempt.HasField("error"):
            yield attempt.id, "it failed without an error"
        if attempt.amount <= 0:
            yield attempt.id, f"it is about an amount of {attempt.amount}"


@check
def attempt_count(book: Book, _shared: Shared) -> Iterator[Fault]:
    """The first attempt counts, and every automatic retry after it, also one without a charge."""
    for invoice in book.invoices:
        attempts = book.attempts_of(invoice)
        if invoice.status == VOID or any(attempt.state in UNRESOLVED for attempt in attempts):
            continue
        if attempts and attempts[0].kind == AttemptKind.ATTEMPT_KIND_MANUAL:
            continue
        retries = sum(attempt.kind == AttemptKind.ATTEMPT_KIND_RETRY for attempt in attempts)
        expected = 1 + retries if attempts else 0
        if invoice.attempt_count != expected:
            yield invoice.id, f"{expected} attempts count, but attempt_count is {invoice.attempt_count}"


@check
def attempt_without_invoice(book: Book, _shared: Shared) -> Iterator[Fault]:
    """An attempt for something that never came about either failed or was given back."""
    for attempt in book.homeless():
        if attempt.state == SUCCEEDED and attempt.amount_refunded != attempt.amount:
            yield attempt.id, f"it collected {attempt.amount} for no invoice and was not given back"


@check
def refund_sums(book: Book, _shared: Shared) -> Iterator[Fault]:
    """An attempt tells what its refunds give back, and never more than it collected."""
    for attempt in book.attempts:
        given_back = sum(refund.amount for refund in book.refunds if refund.attempt == attempt.id and effective(refund))
        if given_back != attempt.amount_refunded:
            yield attempt.id, f"its refunds sum up to {given_back}, but amount_refunded is {attempt.amount_refunded}"
        if given_back > attempt.amount or (given_back and attempt.state != SUCCEEDED):
            yield attempt.id, f"{given_back} were given back of {attempt.amount}"


@check
def payment_intent(book: Book, _shared: Shared) -> Iterator[Fault]:
    """The payment intent says what became of the invoice."""
    for invoice in book.invoices:
        if not invoice.HasField("payment_intent"):
            if any(attempt.state == SUCCEEDED for attempt in book.attempts_of(invoice)):
                yield invoice.id, "it was collected without a payment intent"
            continue
        intent = invoice.payment_intent
        if intent.invoice != invoice.id or intent.id.partition("_")[2] != invoice.id.partition("_")[2]:
            yield intent.id, f"it does not belong to its invoice {invoice.id}"
        collected = invoice.status == PAID and not invoice.paid_out_of_band and invoice.amount_due > 0
        if collected and (intent.status != _INTENT_SUCCEEDED or intent.amount_received != invoice.amount_paid):
            yield intent.id, f"the invoice is paid, but it has not received {invoice.amount_paid}"
        if invoice.status == VOID and intent.status != _INTENT_CANCELED:
            yield intent.id, "the invoice is void, but it is not canceled"
        if invoice.status == OPEN and intent.status in (_INTENT_SUCCEEDED, _INTENT_CANCELED):
            yield intent.id, "the invoice is open, but it is at its end"
        if invoice.status == OPEN and intent.amount != invoice.amount_remaining:
            yield intent.id, f"it asks for {intent.amount}, but {invoice.amount_remaining} remain"


def _kept(book: Book, invoice: Invoice) -> list[PaymentAttempt]:
    """Succeeded attempts of an invoice, but for those that the engine gave back because they came too late."""
    late = {
        refund.attempt
        for refund in book.refunds
        if refund.reason == RefundReason.REFUND_REASON_LATE_PAYMENT and effective(refund)
    }
    return [attempt for attempt in book.attempts_of(invoice) if attempt.state == SUCCEEDED and attempt.id not in late]
