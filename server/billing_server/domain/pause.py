"""Paused collection: invoices keep coming, money does not (semantics 7)."""

from __future__ import annotations

from billing_server.domain.invoice import Invoice
from billing_server.domain.invoicing import (
    finalize,
    mark_uncollectible,
    tell_created,
    void,
)
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn


def handle_born_paused(turn: Turn, subscription: Subscription, invoice: Invoice) -> Invoice:
    """Do with a new draft what the pause says; only its creation and its end are told (decision 17)."""
    pause = subscription.pause_collection
    if pause is None:
        raise AssertionError(f"subscription {subscription.id} is not paused")
    invoice = turn.alter(
        invoice,
        auto_advance=False,
        automatically_finalizes_at=None,
        next_payment_attempt=None,
        collection_paused=True,
    )
    tell_created(turn, invoice)
    if pause.behavior == "void":
        return void(turn, invoice)
    if pause.behavior == "mark_uncollectible":
        invoice = finalize(turn, invoice, quiet=True)
        if invoice.status == "open":
            invoice = mark_uncollectible(turn, invoice)
    return invoice


def resume_collection(turn: Turn, subscription: Subscription) -> Subscription:
    """`resumes_at` has come: later invoices are collected again; earlier ones stay as they are."""
    subscription = turn.alter(subscription, pause_collection=None)
    turn.updated(subscription)
    return subscription
