"""Credit notes and refunds: less to pay, or money back (semantics 1, CreditNote)."""

from __future__ import annotations

from typing import Any

import msgspec

from billing_server.domain.balance import change_balance
from billing_server.domain.collection import (
    CHARGE_LEASE_SECONDS,
    GATEWAY_KEY_LIFETIME_SECONDS,
    next_check,
    pay,
    refuse_unresolved,
)
from billing_server.domain.commands import CreateCreditNote, CreateRefund, RefundOutcome, VoidCreditNote
from billing_server.domain.errors import ResourceMissing, WrongState, invalid
from billing_server.domain.invoice import CreditNote, Invoice
from billing_server.domain.metadata import initial_metadata
from billing_server.domain.payment import PaymentAttempt, Refund, RefundReason
from billing_server.domain.turn import Turn


def create_credit_note(turn: Turn, command: CreateCreditNote) -> CreditNote:
    """Credit an open invoice (what is due shrinks) or a paid one (refund, balance or out of band)."""
    invoice = turn.invoice(command.invoice, "invoice")
    if invoice.status not in ("open", "paid", "uncollectible"):
        raise WrongState(
            "invoice_state_invalid",
            "only finalized invoices are credited; it is "
            + ("a draft: change the draft itself" if invoice.status == "draft" else "void: nothing is owed for it"),
            subject=invoice.id,
        )
    refuse_unresolved(turn, invoice)
    return (
        _after_payment(turn, invoice, command) if invoice.status == "paid" else _before_payment(turn, invoice, command)
    )


def _number(turn: Turn, invoice: Invoice) -> str:
    """Credit notes of an invoice are counted behind its number."""
    issued = sum(note.invoice == invoice.id for note in turn.credit_notes.values())
    return f"{invoice.number}-CN-{issued + 1:02d}"


def _before_payment(turn: Turn, invoice: Invoice, command: CreateCreditNote) -> CreditNote:
    if command.refund_amount or command.credit_amount or command.out_of_band_amount:
        raise invalid(
            "refund_amount",
            "parameters_exclusive",
            "nothing was paid yet; give only the amount, which lowers what is due",
        )
    if command.amount > invoice.amount_remaining:
        raise invalid(
            "amount",
            "credit_note_exceeds_invoice",
            f"at most what remains can be credited, {invoice.amount_remaining}",
        )
    note = _put(turn, invoice, command, turn.new_id("cn"), type="pre_payment", pre_payment_amount=command.amount)
    _lower(turn, invoice, command.amount)
    return note


def _lower(turn: Turn, invoice: Invoice, amount: int) -> None:
    """What is due shrinks by `amount` (grows when negative); nothing left means paid."""
    remaining = invoice.amount_remaining - amount
    intent = invoice.payment_intent
    if intent is not None and remaining > 0:
        intent = msgspec.structs.replace(intent, amount=remaining)
    invoice = turn.alter(
        invoice,
        amount_due=invoice.amount_due - amount,
        amount_remaining=remaining,
        pre_payment_credit_notes_amount=invoice.pre_payment_credit_notes_amount + amount,
        payment_intent=intent,
    )
    if remaining == 0:
        pay(turn, invoice)
    else:
        turn.updated(invoice)


def _after_payment(turn: Turn, invoice: Invoice, command: CreateCreditNote) -> CreditNote:
    parts = command.refund_amount + command.credit_amount + command.out_of_band_amount
    if parts != command.amount:
        raise invalid(
            "amount",
            "parameter_invalid",
            f"refund_amount, credit_amount and out_of_band_amount add up to {parts}, not to {command.amount}",
        )
    creditable = (
        max(invoice.total, 0) - invoice.pre_payment_credit_notes_amount - invoice.post_payment_credit_notes_amount
    )
    if command.amount > creditable:
        raise invalid(
            "amount",
            "credit_note_exceeds_invoice",
            f"at most {creditable} of this invoice can still be credited",
        )
    note_id = turn.new_id("cn")
    transaction = refund = None
    if command.credit_amount:
        transaction = change_balance(
            turn,
            -command.credit_amount,
            "credit_note",
            currency=invoice.currency,
            invoice=invoice.id,
            credit_note=note_id,
        )
    if command.refund_amount:
        refund = start_refund(
            turn,
            invoice,
            command.refund_amount,
            "requested_by_customer",
            credit_note=note_id,
            field="refund_amount",
        )
    note = _put(
        turn,
        invoice,
        command,
        note_id,
        type="post_payment",
        post_payment_amount=command.amount,
        refund_amount=command.refund_amount,
        credit_amount=command.credit_amount,
        out_of_band_amount=command.out_of_band_amount,
        customer_balance_transaction=None if transaction is None else transaction.id,
        refund=None if refund is None else refund.id,
    )
    turn.updated(
        turn.alter(
            invoice,
            post_payment_credit_notes_amount=invoice.post_payment_credit_notes_amount + command.amount,
        )
    )
    return note


def _put(turn: Turn, invoice: Invoice, command: CreateCreditNote, identity: str, **fields: Any) -> CreditNote:
    """Keep the note, whole, and tell it."""
    note = turn.put(
        CreditNote(
            id=identity,
            created=turn.now,
            number=_number(turn, invoice),
            customer=invoice.customer,
            invoice=invoice.id,
            currency=invoice.currency,
            amount=command.amount,
            reason=command.reason,
            memo=command.memo,
            metadata=initial_metadata(command.metadata),
            **fields,
        )
    )
    turn.emit("credit_note.created", note)
    return note


def void_credit_note(turn: Turn, command: VoidCreditNote) -> CreditNote:
    """Take a credit note back whose invoice is still open; what is due grows again."""
    note = turn.credit_notes.get(command.id)
    if note is None:
        raise ResourceMissing("credit_note", command.id)
    invoice = turn.invoice(note.invoice)
    if note.status == "void" or note.type != "pre_payment" or invoice.status not in ("open", "uncollectible"):
        raise WrongState(
            "credit_note_not_voidable",
            "only an issued credit note of an invoice that is still unpaid can be voided",
            subject=note.id,
        )
    refuse_unresolved(turn, invoice)
    note = turn.alter(note, status="void", voided_at=turn.now)
    turn.emit("credit_note.voided", note)
    _lower(turn, invoice, -note.amount)
    return note


# --- refunds


def create_refund(turn: Turn, command: CreateRefund) -> Refund:
    """Give money back that a payment intent collected."""
    invoice = turn.invoice(f"in_{command.payment_intent.removeprefix('pi_')}", "payment_intent")
    intent = invoice.payment_intent
    if intent is None or intent.status != "succeeded":
        raise WrongState(
            "payment_intent_unexpected_state",
            f"only a succeeded payment can be refunded; this one is {'missing' if intent is None else intent.status}",
            subject=command.payment_intent,
        )
    amount = command.amount if command.amount is not None else _refundable(turn, invoice)
    return start_refund(turn, invoice, amount, command.reason, field="amount", metadata=command.metadata)


def _paid_attempt(turn: Turn, invoice: Invoice) -> PaymentAttempt | None:
    for attempt in turn.attempts.values():
        if attempt.invoice == invoice.id and attempt.state == "succeeded":
            return attempt
    return None


def _refundable(turn: Turn, invoice: Invoice) -> int:
    attempt = _paid_attempt(turn, invoice)
    return 0 if attempt is None else attempt.amount - attempt.amount_refunded


def start_refund(
    turn: Turn,
    invoice: Invoice,
    amount: int,
    reason: RefundReason,
    *,
    field: str,
    credit_note: str | None = None,
    metadata: dict[str, str] | None = None,
) -> Refund:
    """Begin a refund of the attempt that paid the invoice; the engine asks the gateway once committed."""
    attempt = _paid_attempt(turn, invoice)
    refundable = _refundable(turn, invoice)
    if attempt is None or not 0 < amount <= refundable:
        raise invalid(field, "refund_exceeds_payment", f"at most {refundable} of this payment can still be refunded")
    refund = turn.put(
        Refund(
            id=turn.new_id("re"),
            created=turn.now,
            created_real=turn.wall_now,
            customer=attempt.customer,
            invoice=invoice.id,
            attempt=attempt.id,
            amount=amount,
            currency=attempt.currency,
            reason=reason,
            status="pending",
            credit_note=credit_note,
            charge_reference=attempt.gateway_reference,
            check_at=turn.wall_now + CHARGE_LEASE_SECONDS,
            metadata=initial_metadata(metadata or {}),
        )
    )
    turn.alter(attempt, amount_refunded=attempt.amount_refunded + amount)
    turn.refunds_started.append(refund)
    return refund


def settle_refund(turn: Turn, refund: Refund, outcome: RefundOutcome) -> None:
    """Take the gateway's answer to a refund, once; without an answer it is asked again later."""
    if refund.status not in ("pending", "unknown"):
        return
    if outcome.state == "unknown":
        turn.alter(refund, status="unknown", **next_check(refund.checks, turn.wall_now))
        return
    if outcome.state == "not_found" and turn.wall_now - refund.created_real < GATEWAY_KEY_LIFETIME_SECONDS:
        turn.refunds_started.append(turn.alter(refund, status="pending", check_at=turn.wall_now + CHARGE_LEASE_SECONDS))
        return
    succeeded = outcome.state == "succeeded"
    refund = turn.alter(
        refund,
        status="succeeded" if succeeded else "failed",
        check_at=None,
        needs_review=not succeeded,
        gateway_reference=outcome.gateway_reference,
        failure_message=None if succeeded else outcome.failure_message or "the gateway has no record of it",
        settled_at=turn.now,
    )
    if succeeded:
        turn.emit("charge.refunded", refund)
        return
    attempt = turn.attempts.get(refund.attempt)
    if attempt is not None:
        turn.alter(attempt, amount_refunded=attempt.amount_refunded - refund.amount)
