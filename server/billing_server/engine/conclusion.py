"""What a caller is told once the charge that its command needed has an outcome."""

from __future__ import annotations

import msgspec

from billing_server.domain.book import Book
from billing_server.domain.commands import (
    CancelSubscription,
    Command,
    ConfirmPaymentIntent,
    CreateSubscription,
    PayInvoice,
    ResumeSubscription,
    UpdateSubscription,
)
from billing_server.domain.errors import REASONS, Conflict, DomainError, PaymentFailed
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import UNRESOLVED, PaymentAttempt
from billing_server.domain.subscription import Subscription

_ABOUT_SUBSCRIPTIONS = (CreateSubscription, UpdateSubscription, CancelSubscription, ResumeSubscription)
_ALL_OR_NOTHING = (CreateSubscription, UpdateSubscription)
_ASKED_AGAIN_SECONDS = 5


def about_subscription(command: Command) -> bool:
    """Whether the command's result is a subscription; of the others that charge it is an invoice."""
    return isinstance(command, _ABOUT_SUBSCRIPTIONS)


def refusal_of(command: Command, attempt: PaymentAttempt) -> DomainError | None:
    """The refusal that a caller gets for an attempt that did not succeed, or None when the result tells it."""
    demands = isinstance(command, PayInvoice | ConfirmPaymentIntent) or (
        isinstance(command, _ALL_OR_NOTHING) and command.payment_behavior == "error_if_incomplete"
    )
    if not demands or (attempt.state == "succeeded" and attempt.proposal is None):
        return None
    if attempt.state in UNRESOLVED:
        return Conflict(
            "payment_outcome_unknown",
            "the payment gateway has not answered; the outcome will be found out. "
            "Ask again with the same idempotency key, or read the object",
            retry_after_seconds=_ASKED_AGAIN_SECONDS,
        )
    if attempt.state == "requires_action" and isinstance(command, ConfirmPaymentIntent):
        return None
    return _declined(attempt)


def _declined(attempt: PaymentAttempt) -> PaymentFailed:
    error = attempt.error
    if error is None:
        if attempt.state == "succeeded":
            return PaymentFailed(
                "processing_error", "the change was no longer possible when it was paid; the payment is refunded"
            )
        return PaymentFailed("authentication_required", "the customer has to authenticate this payment")
    reason = error.code if error.code in REASONS else "card_declined"
    return PaymentFailed(reason, error.message, decline_code=error.decline_code)


def conclude(before: msgspec.Struct | None, after: Book, made: msgspec.Struct | None) -> msgspec.Struct | None:
    """The command's result as it is after the settlement; `made` is what a proposal has made."""
    if before is None:
        return made
    if isinstance(before, Subscription):
        return after.subscriptions.get(before.id, before)
    if isinstance(before, Invoice):
        return after.invoices.get(before.id, before)
    return before
