"""Confirming a payment intent: the caller's word that its payment may be tried now (semantics 2.3)."""

from __future__ import annotations

from billing_server.domain.collection import chargeable_method, refuse_unresolved, start
from billing_server.domain.commands import ConfirmPaymentIntent
from billing_server.domain.errors import ResourceMissing, WrongState
from billing_server.domain.invoice import Invoice
from billing_server.domain.method_lookup import find_method
from billing_server.domain.turn import Turn


def confirm_payment_intent(turn: Turn, command: ConfirmPaymentIntent) -> Invoice:
    """Charge the invoice of an intent; in `requires_action` this is the customer's passed check."""
    invoice = turn.invoices.get(f"in_{command.id.removeprefix('pi_')}")
    if invoice is None or invoice.payment_intent is None:
        raise ResourceMissing("payment_intent", command.id)
    intent = invoice.payment_intent
    if intent.status in ("succeeded", "canceled") or not invoice.collectible:
        raise WrongState(
            "payment_intent_unexpected_state",
            f"the payment intent is {intent.status} and its invoice {invoice.status}; there is nothing to confirm",
            subject=intent.id,
        )
    refuse_unresolved(turn, invoice)
    method = (
        chargeable_method(turn, command.payment_method, "payment_method")
        if command.payment_method is not None
        else find_method(turn, invoice, turn.subscription_of(invoice))
    )
    if method is None:
        raise WrongState(
            "invoice_no_payment_method",
            "there is no payment method to charge; attach one, or name one in payment_method",
            subject=invoice.id,
        )
    authenticated = intent.status == "requires_action" and method.id == intent.payment_method
    return start(
        turn,
        invoice,
        "manual",
        method=method,
        off_session=command.off_session,
        authenticated=authenticated and not command.off_session,
    )
