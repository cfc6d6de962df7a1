"""Which payment method is charged: one rule for collection, for the end of trials and for what customers are told."""

from __future__ import annotations

from billing_server.domain.customer import PaymentMethod
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import PaymentIntentStatus
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn


def find_method(turn: Turn, invoice: Invoice | None, subscription: Subscription | None) -> PaymentMethod | None:
    """The payment method to charge: the invoice's, else the subscription's, else the customer's (semantics 3)."""
    candidates = (
        None if invoice is None else invoice.default_payment_method,
        None if subscription is None else subscription.default_payment_method,
        turn.customer.default_payment_method,
    )
    for candidate in candidates:
        if candidate is not None:
            method = turn.payment_methods.get(candidate)
            if method is not None and method.detached_at is None and method.type != "customer_balance":
                return method
    return None


def awaited(turn: Turn, invoice: Invoice, subscription: Subscription) -> PaymentIntentStatus:
    """What the intent waits for when the caller pays later (`default_incomplete`): the caller's word, or a card."""
    known = find_method(turn, invoice, subscription) is not None
    return "requires_confirmation" if known else "requires_payment_method"
