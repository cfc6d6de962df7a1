"""Changes of a running subscription and how they are paid for (semantics 2.3 and 2.4, decision 6)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import ASK, BAD, OK
from tests.domain.rules.sights import (
    balance,
    charges,
    customer,
    events,
    invoice,
    invoices,
    no_events,
    pending,
    period,
    refunds,
    sub,
)
from tests.domain.rules.steps import Fields, Row, attach, confirm, mark, pay, resolve, row, subscribe, to, update

APRIL = "2025-04-01"
MIDDLE = (subscribe("M10"), to("2025-04-16"), mark())
"""1000 a month since April 1, half of the month gone."""
NO_MONEY = (subscribe("M10"), to("2025-04-16"), attach(BAD), mark())
UPGRADE: Fields = {"price": "M20", "proration_behavior": "always_invoice"}

BEHAVIORS = [
    row(
        "an upgrade invoiced at once and paid",
        MIDDLE,
        update(**UPGRADE),
        sub(status="active", items__0__price="M20"),
        period("2025-04-01", "2025-05-01"),
        invoice(status="paid", total=500, billing_reason="subscription_update", attempt_count=1, auto_advance=False),
        invoice(lines=[(1000, "2025-04-16", "2025-05-01"), (-500, "2025-04-16", "2025-05-01")]),
        events("""
            invoiceitem.created amount=-500
            invoiceitem.created amount=1000
            customer.subscription.updated was=items,latest_invoice
            invoice.created status=draft
            invoiceitem.updated was=invoice
            invoiceitem.updated was=invoice
            invoice.finalized status=open
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
        to("2025-05-01"),
        invoice(lines=[2000]),
        start=APRIL,
    ),
    row(
        "allow_incomplete, declined: applied, past due, retried like a renewal",
        NO_MONEY,
        update(**UPGRADE),
        sub(status="past_due", items__0__price="M20"),
        invoice(status="open", attempt_count=1, auto_advance=True, next_payment_attempt="2025-04-19"),
        customer(delinquent=True),
        events("""
            invoiceitem.created
            invoiceitem.created
            customer.subscription.updated was=items,latest_invoice
            invoice.created
            invoiceitem.updated
            invoiceitem.updated
            invoice.finalized
            payment_intent.created
            payment_intent.payment_failed
            invoice.updated was=attempt_count,attempted,next_payment_attempt
            invoice.payment_failed next_payment_attempt=2025-04-19
            customer.subscription.updated was=status was.status=active
            customer.updated was=delinquent
        """),
        attach(OK),
        to("2025-04-19"),
        sub(status="active"),
        invoice(status="paid", attempt_count=2),
        customer(delinquent=False),
        start=APRIL,
    ),
    row(
        "allow_incomplete, an action needed: past due",
        subscribe("M10"),
        to("2025-04-16"),
        attach(ASK),
        update(**UPGRADE),
        sub(status="past_due"),
        confirm(),
        sub(status="active"),
        start=APRIL,
    ),
    row(
        "default_incomplete: applied, past due until the intent is confirmed",
        MIDDLE,
        update(**UPGRADE, payment_behavior="default_incomplete"),
        sub(status="past_due", items__0__price="M20"),
        invoice(status="open", attempt_count=0, payment_intent__status="requires_confirmation"),
        customer(delinquent=False),
        charges(1),
        events("""
            invoiceitem.created
            invoiceitem.created
            customer.subscription.updated was=items,latest_invoice
            invoice.created
            invoiceitem.updated
            invoiceitem.updated
            invoice.finalized
            payment_intent.created status=requires_confirmation
            customer.subscription.updated was=status
        """),
        confirm(),
        sub(status="active"),
        invoice(status="paid"),
        start=APRIL,
    ),
    row(
        "default_incomplete with nothing due: active",
        MIDDLE,
        update(price="M_FREE", proration_behavior="always_invoice", payment_behavior="default_incomplete"),
        sub(status="active"),
        invoice(status="paid", total=-500),
        start=APRIL,
    ),
    row(
        "an older invoice that is paid does not hide an update that waits to be confirmed",
        subscribe("M10"),
        attach(BAD),
        to("2025-05-01 01:00"),
        sub(status="past_due"),
        attach(OK),
        update(price="M20", proration_behavior="always_invoice", payment_behavior="default_incomplete"),
        pay(1),
        sub(status="past_due"),
        confirm(2),
        sub(status="active"),
        start=APRIL,
    ),
    row(
        "error_if_incomplete, declined: nothing changed, nothing told",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="error_if_incomplete"),
        sub(items__0__price="M10", status="active"),
        invoices("paid"),
        pending(),
        no_events(),
        charges(2),
        start=APRIL,
    ),
    row(
        "error_if_incomplete, paid",
        MIDDLE,
        update(**UPGRADE, payment_behavior="error_if_incomplete"),
        sub(items__0__price="M20", status="active"),
        invoices("paid", "paid"),
        charges(2),
        start=APRIL,
    ),
    row(
        "error_if_incomplete without anything to pay now is applied",
        NO_MONEY,
        update(price="M20", payment_behavior="error_if_incomplete"),
        sub(items__0__price="M20"),
        pending(-500, 1000),
        charges(1),
        start=APRIL,
    ),
    row(
        "error_if_incomplete, unknown, then the month ends, then it was paid: the money goes back",
        subscribe("M10", answers=["paid"]),
        to("2025-04-30 23:00"),
        update(
            quantity=500,
            proration_behavior="always_invoice",
            payment_behavior="error_if_incomplete",
            answers=["unknown"],
        ),
        to("2025-05-01 06:00"),
        resolve("paid"),
        sub(items__0__quantity=1),
        refunds(693),
        start=APRIL,
    ),
    row(
        "an update whose only effect is its invoice's total below the minimum is applied and owed",
        subscribe("M10"),
        to("2025-04-30 12:00"),
        update(**UPGRADE),
        invoice(status="paid", total=16, amount_due=0),
        sub(status="active"),
        balance(16, "invoice_too_small"),
        start=APRIL,
    ),
    row(
        "a credit on the newest invoice makes a past due subscription active",
        subscribe("M20"),
        attach(BAD),
        to("2025-05-01 01:00"),
        sub(status="past_due"),
        update(price="M10", proration_behavior="always_invoice"),
        sub(status="active"),
        invoices("paid", "open", "paid"),
        customer(delinquent=False),
        start=APRIL,
    ),
    row(
        "send_invoice: the invoice of a change is a draft for an hour, then sent",
        subscribe("M10", collection_method="send_invoice", days_until_due=10),
        to("2025-04-16"),
        update(**UPGRADE),
        invoice(status="draft", total=500, automatically_finalizes_at="2025-04-16 01:00", due_date="2025-04-26"),
        to("2025-04-16 01:00"),
        invoice(status="open"),
        start=APRIL,
    ),
    row(
        "a change that changes nothing is no change",
        MIDDLE,
        update(metadata={}),
        update(quantity=1),
        update(price="M10"),
        sub(version=2),
        no_events(),
        start=APRIL,
    ),
]


@pytest.mark.parametrize("row", BEHAVIORS)
def test_payment_behavior_of_updates(row: Row) -> None:
    row.play()
