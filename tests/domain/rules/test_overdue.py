"""Invoices that are sent and not paid in time, and what the overdue policy does (semantics 6, send_invoice)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import OverduePolicy, Settings
from tests.domain.rules.sights import charges, customer, events, invoice, invoices, no_events, refused, sub
from tests.domain.rules.steps import (
    Fields,
    Row,
    change_invoice,
    finalize,
    give_up,
    mark,
    one_off,
    pay,
    row,
    subscribe,
    to,
    update,
    void,
)

SENT: Fields = {"collection_method": "send_invoice", "days_until_due": 30}
DUE = (subscribe("M31", **SENT), to("2025-01-31"), mark())
"""Due on January 31, and not paid."""


def policy(**fields: object) -> Settings:
    """Settings with this overdue policy, thirty days after the due date."""
    return Settings(overdue_policy=OverduePolicy(days_after_due=30, **fields))  # type: ignore[arg-type]  # its own


POLICIES = [
    row(
        f"thirty days after the due date: {action} and {ends}",
        DUE,
        to("2025-03-01 23:59:59"),
        sub(status="past_due"),
        invoice(0, status="open"),
        to("2025-03-02"),
        sub(status=status),
        invoice(0, status=left),
        charges(0),
        settings=policy(subscription_action=action, invoice_action=ends),
        card=None,
    )
    for action, status in (("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due"))
    for ends, left in (("leave_open", "open"), ("uncollectible", "uncollectible"), ("void", "void"))
]

ROWS = [
    row(
        "without a policy it stays past due and open",
        DUE,
        to("2025-01-31 12:00"),
        mark(),
        to("2025-01-31 23:00"),
        no_events(),
        to("2026-01-01"),
        sub(status="past_due"),
        invoice(0, status="open", overdue=True),
        charges(0),
        card=None,
    ),
    row(
        "paid in the extra time: active, and nothing follows",
        DUE,
        to("2025-02-15"),
        pay(0, paid_out_of_band=True),
        sub(status="active"),
        to("2025-03-02"),
        sub(status="active"),
        settings=policy(subscription_action="cancel"),
        card=None,
    ),
    row(
        "the order of the end",
        DUE,
        to("2025-03-01 12:00"),
        mark(),
        to("2025-03-02"),
        events("""
            customer.subscription.deleted cancellation_details.reason=payment_failed
            invoice.updated was=auto_advance
            invoice.updated was=auto_advance
            invoice.updated was=auto_advance
            invoice.voided
            payment_intent.canceled
        """),
        settings=policy(subscription_action="cancel", invoice_action="void"),
        card=None,
    ),
    row(
        "unpaid: later invoices are drafts, not sent",
        DUE,
        to("2025-04-02"),
        invoices("open", "open", "open", "draft"),
        invoice(3, auto_advance=False),
        settings=policy(subscription_action="unpaid"),
        card=None,
    ),
    row(
        "one-off: the invoice alone",
        one_off(1000, auto_advance=True, **SENT),
        to("2025-03-02"),
        invoice(status="uncollectible"),
        customer(delinquent=True),
        settings=policy(invoice_action="uncollectible"),
        card=None,
    ),
    row(
        "one-off without automatic collection: nothing, ever",
        one_off(1000, **SENT),
        finalize(),
        to("2026-01-01"),
        invoice(status="open"),
        settings=policy(invoice_action="uncollectible"),
        card=None,
    ),
    row(
        "automatic collection switched off in the extra time",
        DUE,
        change_invoice(0, auto_advance=False),
        to("2025-03-05"),
        invoice(0, status="open"),
        sub(status="past_due"),
        settings=policy(subscription_action="cancel", invoice_action="void"),
        card=None,
    ),
    row(
        "voided in the extra time",
        DUE,
        void(0),
        sub(status="active"),
        to("2025-03-02"),
        settings=policy(subscription_action="cancel"),
        card=None,
    ),
    row(
        "given up in the extra time",
        DUE,
        give_up(0),
        sub(status="active"),
        customer(delinquent=False),
        card=None,
    ),
    row(
        "a policy that comes later does not reach back",
        DUE,
        update(metadata={"a": "1"}),
        to("2025-06-01"),
        sub(status="past_due"),
        card=None,
    ),
    row(
        "days_until_due may be nothing: due at once",
        subscribe("M31", collection_method="send_invoice", days_until_due=0),
        to("2025-01-01 00:59:59"),
        mark(),
        to("2025-01-01 01:00"),
        sub(status="past_due"),
        events("""
            invoice.finalized
            payment_intent.created
            invoice.sent
            customer.subscription.updated was=status @2025-01-01T01:00
            customer.updated
        """),
        card=None,
    ),
    row(
        "days_until_due below zero",
        subscribe("M31", collection_method="send_invoice", days_until_due=-1),
        refused("parameter_invalid_integer", "days_until_due"),
        card=None,
    ),
]


@pytest.mark.parametrize("row", POLICIES + ROWS)
def test_overdue(row: Row) -> None:
    row.play()
