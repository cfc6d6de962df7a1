"""Payments: the intent shown to callers, the attempts that move money, and refunds.

An attempt is written before the gateway is called and settled afterwards by compare-and-set; its id is the
gateway's idempotency key. That is why a payment can be interrupted anywhere and still happen once.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PaymentIntentStatus = Literal[
    "requires_payment_method",
    "requires_confirmation",
    "requires_action",
    "processing",
    "canceled",
    "succeeded",
]
AttemptKind = Literal["initial", "retry", "manual"]
AttemptState = Literal["started", "unknown", "succeeded", "failed", "requires_action", "not_executed"]
RefundStatus = Literal["pending", "unknown", "succeeded", "failed"]
RefundReason = Literal["duplicate", "fraudulent", "requested_by_customer", "late_payment"]
PaymentErrorType = Literal["card_error", "api_error", "invalid_request_error"]

UNRESOLVED: frozenset[AttemptState] = frozenset({"started", "unknown"})
"""States in which it is not known whether money moved; no further attempt of the invoice may start."""


class PaymentError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a payment did not succeed."""

    type: PaymentErrorType = "card_error"
    code: str
    decline_code: str | None = None
    message: str


class PaymentIntent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The collection of one invoice's amount due. Its id shares the suffix of its invoice's id."""

    id: str
    created: int
    invoice: str
    customer: str
    amount: int
    currency: str
    status: PaymentIntentStatus
    amount_received: int = 0
    payment_method: str | None = None
    client_secret: str
    last_payment_error: PaymentError | None = None
    cancellation_reason: str | None = None
    canceled_at: int | None = None


class PaymentAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try to collect an invoice (promises 1 to 3). Unique per (invoice, number).

    `due_at` is the engine's or test clock's time of the attempt. `created_real` and `check_at` are real time:
    its beginning, and the end of the lease while `started`, or the next question to the gateway while
    `unknown`. `authenticated` tells that the customer has passed the check that the gateway asked for.
    `proposal` holds the serialized command that is carried out only if the charge succeeds
    (`error_if_incomplete`).
    """

    id: str
    created: int
    created_real: int
    customer: str
    invoice: str
    subscription: str | None = None
    number: int
    kind: AttemptKind
    due_at: int
    amount: int
    currency: str
    payment_method: str | None
    token: str | None
    off_session: bool
    authenticated: bool = False
    state: AttemptState
    check_at: int | None = None
    checks: int = 0
    needs_review: bool = False
    error: PaymentError | None = None
    gateway_reference: str | None = None
    settled_at: int | None = None
    amount_refunded: int = 0
    statement_descriptor: str | None = None
    proposal: bytes | None = None
    version: int = 1

    @property
    def waited_for(self) -> bool:
        """Whether a test clock waits for the outcome: it does not any longer once the outcome was unknown."""
        return self.state == "started" and self.checks == 0


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """Money given back for one succeeded attempt, in the same three steps as a charge."""

    id: str
    created: int
    created_real: int
    customer: str
    invoice: str
    attempt: str
    amount: int
    currency: str
    reason: RefundReason
    status: RefundStatus
    credit_note: str | None = None
    check_at: int | None = None
    checks: int = 0
    needs_review: bool = False
    charge_reference: str | None = None
    gateway_reference: str | None = None
    failure_message: str | None = None
    settled_at: int | None = None
    metadata: dict[str, str] = {}
    version: int = 1
