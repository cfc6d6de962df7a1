"""How payment attempts and refunds are stored and listed. Payment intents live in their invoices."""

from __future__ import annotations

from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

PAYMENT_ATTEMPTS = Rows(PaymentAttempt, "payment_attempt", "payment_attempts", "payment_attempt_row")
REFUNDS = Rows(Refund, "refund", "refunds", "refund_row")


class PaymentAttemptFilter(Filter[PaymentAttempt], frozen=True, kw_only=True):
    """Which payment attempts to list."""

    customer: str | None = None
    invoice: str | None = None


class RefundFilter(Filter[Refund], frozen=True, kw_only=True):
    """Which refunds to list."""

    customer: str | None = None
    invoice: str | None = None
