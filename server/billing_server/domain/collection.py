"""Collecting money: which payment method, starting an attempt, settling its outcome, retrying.

A charge has three steps (promises 1 to 3). `start` writes the attempt; the engine asks the gateway once that
is committed; `settle` takes the answer. An attempt whose outcome is unknown blocks every further one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from billing_server.domain import automation_runs, correspondence, standing
from billing_server.domain.automation import Automation
from billing_server.domain.calendar import DAY
from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.customer import PaymentMethod
from billing_server.domain.dunning import RetryPolicy, is_hard_decline, next_retry_at
from billing_server.domain.errors import Conflict, InvalidArgument, Violation
from billing_server.domain.invoice import Invoice
from billing_server.domain.invoicing import cancel_intent, mark_uncollectible, new_intent, void
from billing_server.domain.method_lookup import find_method
from billing_server.domain.payment import (
    UNRESOLVED,
    AttemptKind,
    PaymentAttempt,
    PaymentError,
    PaymentIntent,
    Refund,
)
from billing_server.domain.turn import Turn

CHARGE_LEASE_SECONDS = 60
"""How long a charge may be under way before its outcome counts as unknown."""

UNKNOWN_CHECK_SECONDS = (300, 3600)
"""When the gateway is asked again about an unknown outcome; daily after these (promise 3)."""

REVIEW_AFTER_CHECKS = 7
"""An outcome that is still unknown after this many questions is flagged for review."""

GATEWAY_KEY_LIFETIME_SECONDS = 86_400
"""How long a gateway is trusted to remember a key; past that it is only asked, never charged again."""

NO_PAYMENT_METHOD = PaymentError(
    type="invalid_request_error",
    code="invoice_no_payment_method",
    message="there is no payment method to charge: the invoice, the subscription and the customer have none",
)


def chargeable_method(turn: Turn, method_id: str, field: str) -> PaymentMethod:
    """The attached method with this id, refused when it cannot be charged (semantics 1, PaymentMethod)."""
    method = turn.payment_method(method_id, field)
    if method.type == "customer_balance":
        raise InvalidArgument(
            Violation(
                field,
                "payment_method_unsuitable",
                "bank transfers arrive on their own and cannot be charged; use send_invoice or another method",
            )
        )
    return method


def awaits_confirmation(turn: Turn, invoice: Invoice) -> bool:
    """Whether it is the first invoice of an incomplete subscription, which only its caller pays (semantics 2.1)."""
    subscription = turn.subscription_of(invoice)
    return subscription is not None and subscription.status == "incomplete"


def refuse_unresolved(turn: Turn, invoice: Invoice) -> None:
    """No second attempt, and no change of amounts, while it is unknown whether money moved."""
    if turn.unresolved_attempt(invoice.id) is not None:
        raise Conflict(
            "payment_in_progress",
            f"a payment of invoice '{invoice.id}' is under way or its outcome is unknown; try again later",
            retry_after_seconds=5,
        )


# --- starting


def start(
    turn: Turn,
    invoice: Invoice,
    kind: AttemptKind,
    *,
    method: PaymentMethod | None,
    off_session: bool,
    authenticated: bool = False,
) -> Invoice:
    """Begin an attempt to collect an open invoice. Without a chargeable method it fails at once, unexecuted."""
    refuse_unresolved(turn, invoice)
    if invoice.payment_intent is None:
        invoice = turn.note(invoice, payment_intent=new_intent(turn, invoice, invoice.amount_remaining))
        turn.emit("payment_intent.created", _intent(invoice))
    blocked = kind == "retry" and method is not None and method.id == invoice.hard_declined_method
    executed = method is not None and not blocked
    attempt = PaymentAttempt(
        id=turn.new_id("pa"),
        created=turn.now,
        created_real=turn.wall_now,
        customer=invoice.customer,
        invoice=invoice.id,
        subscription=invoice.subscription,
        number=invoice.attempts_started + 1,
        kind=kind,
        due_at=turn.now,
        amount=invoice.amount_remaining,
        currency=invoice.currency,
        payment_method=None if method is None else method.id,
        token=None if method is None else method.token,
        off_session=off_session,
        authenticated=authenticated,
        state="started" if executed else "not_executed",
        check_at=turn.wall_now + CHARGE_LEASE_SECONDS if executed else None,
        statement_descriptor=invoice.statement_descriptor,
    )
    turn.put(attempt)
    invoice = turn.note(invoice, attempts_started=attempt.number, charging=executed)
    if executed:
        turn.charges.append(attempt)
        return invoice
    error = NO_PAYMENT_METHOD if method is None else _not_retried(invoice)
    turn.put(msgspec.structs.replace(attempt, error=error, settled_at=turn.now))
    return failed(turn, invoice, attempt, error)


def _not_retried(invoice: Invoice) -> PaymentError:
    intent = invoice.payment_intent
    last = None if intent is None else intent.last_payment_error
    return PaymentError(
        code="card_declined" if last is None else last.code,
        decline_code=None if last is None else last.decline_code,
        message="no charge was made: the payment method was declined for good; another one is needed",
    )


def collect(turn: Turn, invoice: Invoice, kind: AttemptKind = "initial", *, off_session: bool = True) -> Invoice:
    """Charge an open invoice with the payment method that the lookup finds."""
    method = find_method(turn, invoice, turn.subscription_of(invoice))
    return start(turn, invoice, kind, method=method, off_session=off_session)


# --- settling


def settle(turn: Turn, attempt: PaymentAttempt, outcome: ChargeOutcome) -> None:
    """Take the gateway's answer, once: an attempt that is resolved already stays as it is."""
    if attempt.state not in UNRESOLVED:
        return
    if outcome.state == "unknown":
        _ask_later(turn, attempt)
    elif outcome.state == "not_found" and _still_wanted(turn, attempt):
        _charge_again(turn, attempt)
    else:
        _resolve(turn, attempt, outcome)


def _ask_later(turn: Turn, attempt: PaymentAttempt) -> None:
    turn.alter(attempt, state="unknown", **next_check(attempt.checks, turn.wall_now))


def next_check(checks: int, asked_at: int) -> dict[str, Any]:
    """When the gateway is asked again after so many questions without an answer, and whether people must look."""
    wait = UNKNOWN_CHECK_SECONDS[checks] if checks < len(UNKNOWN_CHECK_SECONDS) else DAY
    return {
        "checks": checks + 1,
        "check_at": asked_at + wait,
        "needs_review": checks + 1 >= REVIEW_AFTER_CHECKS,
    }


def _still_wanted(turn: Turn, attempt: PaymentAttempt) -> bool:
    """Whether a charge that was never made may still be: its key is known, and its invoice waits for the money."""
    if turn.wall_now - attempt.created_real >= GATEWAY_KEY_LIFETIME_SECONDS:
        return False
    return attempt.proposal is not None or turn.invoice(attempt.invoice).collectible


def _charge_again(turn: Turn, attempt: PaymentAttempt) -> None:
    """The gateway never saw the key: the same attempt, with the same key, is still to be made."""
    turn.charges.append(turn.alter(attempt, state="started", check_at=turn.wall_now + CHARGE_LEASE_SECONDS))


def _resolve(turn: Turn, attempt: PaymentAttempt, outcome: ChargeOutcome) -> None:
    error = outcome.error
    if outcome.state == "not_found":
        error = PaymentError(
            type="api_error",
            code="processing_error",
            message="the payment gateway has no record of this charge",
        )
    succeeded = outcome.state == "succeeded"
    needs_action = outcome.state == "requires_action"
    attempt = turn.alter(
        attempt,
        state="succeeded" if succeeded else "requires_action" if needs_action else "failed",
        check_at=None,
        needs_review=False,
        settled_at=turn.now,
        gateway_reference=outcome.gateway_reference,
        error=None if succeeded else error,
    )
    if attempt.proposal is not None:
        return
    invoice = turn.note(turn.invoice(attempt.invoice), charging=False)
    if succeeded:
        _succeeded(turn, invoice, attempt)
    elif invoice.status in ("open", "uncollectible"):
        failed(turn, invoice, attempt, error, needs_action=needs_action)


def _succeeded(turn: Turn, invoice: Invoice, attempt: PaymentAttempt) -> None:
    if not invoice.collectible:
        give_back(turn, attempt)
        return
    invoice = turn.note(invoice, payment_intent=succeeded_intent(invoice, attempt))
    turn.emit("payment_intent.succeeded", _intent(invoice))
    invoice = turn.alter(invoice, attempted=True, attempt_count=_attempt_count(invoice, attempt.kind))
    invoice = pay(turn, invoice, paid_with=attempt.payment_method)
    correspondence.receipt(turn, invoice, attempt)


def succeeded_intent(invoice: Invoice, attempt: PaymentAttempt) -> PaymentIntent:
    """The invoice's intent after this attempt collected it."""
    return msgspec.structs.replace(
        _intent(invoice),
        status="succeeded",
        amount_received=attempt.amount,
        payment_method=attempt.payment_method,
        last_payment_error=None,
    )


def pay(turn: Turn, invoice: Invoice, *, paid_with: str | None = None, out_of_band: bool = False) -> Invoice:
    """The whole amount came in: `invoice.updated`, `invoice.paid`, `invoice.payment_succeeded`, and what follows.

    An intent that did not bring it, as when it came out of band or was credited, is canceled: it asks for nothing.
    """
    invoice = turn.alter(
        invoice,
        status="paid",
        paid_at=turn.now,
        amount_paid=invoice.amount_paid + invoice.amount_remaining,
        amount_remaining=0,
        paid_out_of_band=out_of_band,
        auto_advance=False,
        next_payment_attempt=None,
        overdue_deadline_at=None,
    )
    turn.updated(invoice)
    turn.emit("invoice.paid", invoice)
    turn.emit("invoice.payment_succeeded", invoice)
    invoice = cancel_intent(turn, invoice, "automatic")
    standing.invoice_paid(turn, invoice, paid_with=paid_with)
    return invoice


def give_back(turn: Turn, attempt: PaymentAttempt) -> Refund:
    """A charge succeeded for an invoice that nobody has to pay any more: refund it, once (promise 4)."""
    refund = Refund(
        id=turn.new_id("re"),
        created=turn.now,
        created_real=turn.wall_now,
        customer=attempt.customer,
        invoice=attempt.invoice,
        attempt=attempt.id,
        amount=attempt.amount,
        currency=attempt.currency,
        reason="late_payment",
        status="pending",
        check_at=turn.wall_now + CHARGE_LEASE_SECONDS,
        charge_reference=attempt.gateway_reference,
    )
    turn.put(refund)
    turn.alter(attempt, amount_refunded=attempt.amount)
    turn.refunds_started.append(refund)
    return refund


# --- failing and retrying


def failed(
    turn: Turn,
    invoice: Invoice,
    attempt: PaymentAttempt,
    error: PaymentError | None,
    *,
    needs_action: bool = False,
) -> Invoice:
    """An attempt did not bring the money: count it, tell it, plan the next or take the final action.

    A first attempt begins the schedule, whoever made it; later ones by hand leave it alone (decision 8).
    """
    scheduled = attempt.kind != "manual" or invoice.attempt_count == 0
    first_failure = invoice.first_failure_at or (attempt.due_at if scheduled else None)
    retried = scheduled and _retried(turn, invoice)
    automation = _automation(turn, invoice) if retried and invoice.first_failure_at is None else None
    owned = automation is not None or invoice.automation_run is not None
    retries_done = invoice.retries_done + (1 if attempt.kind == "retry" else 0)
    following = invoice.next_payment_attempt
    if owned and scheduled:
        # A run plans the next try, and tells it after this failure (semantics 8.4).
        following = None
    elif retried:
        following = next_retry_at(_policy(turn, invoice), first_failure or attempt.due_at, attempt.due_at, retries_done)
    if following is not None and attempt.checks:
        # What was planned for while the outcome was unknown is made up for, not dated back.
        following = max(following, turn.now)
    intent = _intent(invoice)
    waits = intent.status == "requires_action" and intent.payment_method == attempt.payment_method
    untouched = attempt.state == "not_executed" and waits
    intent = msgspec.structs.replace(
        intent,
        # Where no charge was made, the customer may still pass the check that the last charge asked for.
        status="requires_action" if needs_action or untouched else "requires_payment_method",
        last_payment_error=error,
        payment_method=attempt.payment_method,
    )
    hard = error is not None and is_hard_decline(error.decline_code or error.code)
    invoice = turn.alter(
        invoice,
        attempted=True,
        attempt_count=_attempt_count(invoice, attempt.kind),
        next_payment_attempt=following,
        retries_done=retries_done,
        first_failure_at=first_failure,
        last_attempt_due_at=attempt.due_at if scheduled else invoice.last_attempt_due_at,
        hard_declined_method=attempt.payment_method if hard else invoice.hard_declined_method,
        payment_intent=intent,
        automation_run=invoice.automation_run if automation is None else turn.new_id("bautorun"),
    )
    _tell_failure(turn, invoice, attempt, needs_action)
    if not retried:
        return turn.invoices[invoice.id]
    if owned:
        standing.payment_failed(turn, invoice, automatic=attempt.kind != "manual")
        planned = _hand_over(turn, turn.invoices[invoice.id], attempt, automation)
        correspondence.payment_failed(turn, invoice, attempt, needs_action=needs_action, next_attempt=planned)
        return turn.invoices[invoice.id]
    correspondence.payment_failed(
        turn, invoice, attempt, needs_action=needs_action, next_attempt=invoice.next_payment_attempt
    )
    standing.payment_failed(turn, invoice, automatic=attempt.kind != "manual")
    if invoice.next_payment_attempt is None:
        _give_up(turn, turn.invoices[invoice.id])
    return turn.invoices[invoice.id]


def _automation(turn: Turn, invoice: Invoice) -> Automation | None:
    """The automation that takes over a subscription's invoice after its first failure, instead of the settings."""
    subscription = turn.subscription_of(invoice)
    if subscription is None or invoice.automation_run is not None:
        return None
    return automation_runs.matching(turn, "subscription_payment_fails", invoice=invoice, subscription=subscription)


def _hand_over(turn: Turn, invoice: Invoice, attempt: PaymentAttempt, automation: Automation | None) -> int | None:
    """Let the automation's run begin, or plan its next try; return when that is, as far as it is known."""
    if automation is None:
        automation_runs.attempt_failed(turn, invoice, attempt)
        return turn.invoices[invoice.id].next_payment_attempt
    automation_runs.start(
        turn,
        automation,
        "invoice.payment_failed",
        invoice=invoice,
        subscription=turn.subscription_of(invoice),
        identity=invoice.automation_run,
    )
    return automation_runs.first_retry_at(automation, turn.now)


def _tell_failure(turn: Turn, invoice: Invoice, attempt: PaymentAttempt, needs_action: bool) -> None:
    """The canonical order of a failure; an unexecuted retry made no attempt, so its intent says nothing."""
    if needs_action:
        turn.emit("payment_intent.requires_action", _intent(invoice))
        turn.emit("invoice.payment_action_required", invoice)
    else:
        if attempt.state != "not_executed":
            turn.emit("payment_intent.payment_failed", _intent(invoice))
        turn.updated(invoice)
    turn.emit("invoice.payment_failed", invoice)


def _give_up(turn: Turn, invoice: Invoice) -> None:
    """The last try failed: the final actions of the settings (semantics 6)."""
    settings = turn.settings
    subscription = turn.subscription_of(invoice)
    action = settings.one_off_invoice_final_action if subscription is None else settings.invoice_final_action
    if subscription is not None and subscription.status == "past_due":
        standing.final_action(turn, subscription, settings.subscription_final_action)
    end_invoice(turn, turn.invoices[invoice.id], action)


def end_invoice(turn: Turn, invoice: Invoice, action: str) -> None:
    """Leave an unpaid invoice open, give it up, or void it, as the settings say."""
    if action == "uncollectible":
        mark_uncollectible(turn, invoice)
    elif action == "void":
        void(turn, invoice)


def _retried(turn: Turn, invoice: Invoice) -> bool:
    """Whether failures of this invoice lead to retries (semantics 6).

    Not while auto_advance is off, and never those of the first invoice of an incomplete subscription.
    """
    if awaits_confirmation(turn, invoice):
        return False
    return invoice.auto_advance and invoice.collection_method == "charge_automatically" and invoice.status == "open"


def _policy(turn: Turn, invoice: Invoice) -> RetryPolicy:
    return turn.settings.one_off_retry_policy if invoice.subscription is None else turn.settings.retry_policy


def _attempt_count(invoice: Invoice, kind: AttemptKind) -> int:
    """Any first attempt makes it 1; afterwards only automatic retries count (decision 8)."""
    if invoice.attempt_count == 0:
        return 1
    return invoice.attempt_count + (1 if kind == "retry" else 0)


def _intent(invoice: Invoice) -> PaymentIntent:
    if invoice.payment_intent is None:
        raise AssertionError(f"invoice {invoice.id} is collected without a payment intent")
    return invoice.payment_intent
