"""Ends of subscriptions: now, at the end of the period, at a moment (semantics 2.6 and 4, cancel_at; decision 11)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.shop import BAD, OK
from tests.domain.rules.sights import (
    balance,
    charges,
    customer,
    events,
    invoice,
    invoices,
    no_events,
    pending,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import Row, attach, cancel, item, mark, pause, pay, row, subscribe, to, update

APRIL = "2025-04-01"
UPGRADED = (subscribe("M10"), to("2025-04-16"), update(price="M20"))
"""Half of April at 1000, half at 2000: -500 and +1000 wait for May."""

NOW = [
    row(
        "drafts and open invoices stay, without automatic collection",
        subscribe("M31"),
        attach(BAD),
        to("2025-03-01 00:30"),
        invoices("paid", "open", "draft"),
        mark(),
        cancel(comment="too far", feedback="too_expensive"),
        sub(status="canceled", ended_at="2025-03-01 00:30", canceled_at="2025-03-01 00:30"),
        sub(cancellation_details__reason="cancellation_requested", cancellation_details__comment="too far"),
        invoice(1, status="open", auto_advance=False, next_payment_attempt=None),
        invoice(2, status="draft", auto_advance=False, next_payment_attempt=None),
        events("""
            customer.subscription.deleted status=canceled
            invoice.updated was=auto_advance
            invoice.updated was=auto_advance,automatically_finalizes_at,next_payment_attempt
        """),
        mark(),
        to("2025-06-01"),
        no_events(),
        attach(OK),
        pay(1),
        invoice(1, status="paid"),
        sub(status="canceled"),
        customer(delinquent=False),
        settings=Settings(subscription_final_action="past_due"),
    ),
    row(
        "an open invoice that is being retried is retried no more",
        subscribe("M31"),
        attach(BAD),
        to("2025-02-02"),
        mark(),
        cancel(),
        events("""
            customer.subscription.deleted
            invoice.updated was=auto_advance,next_payment_attempt
        """),
        to("2025-06-01"),
        invoices("paid", "open"),
        charges(2),
    ),
    row(
        "pending prorations go with it",
        UPGRADED,
        mark(),
        cancel(),
        pending(),
        events("""
            invoiceitem.deleted
            invoiceitem.deleted
            customer.subscription.deleted
        """),
        to("2025-06-01"),
        totals(1000),
        start=APRIL,
    ),
    row(
        "other pending items stay, and are billed with the customer's next invoice",
        subscribe("M10"),
        item(700, of_subscription=True),
        cancel(),
        pending(700),
        subscribe("M31"),
        invoice(lines=[700, 3100]),
    ),
    row(
        "S94: prorate and invoice_now give back to the balance",
        subscribe("M31"),
        to("2025-01-11"),
        mark(),
        cancel(prorate=True, invoice_now=True),
        invoice(status="paid", total=-2100, amount_due=0, lines=[(-2100, "2025-01-11", "2025-02-01")]),
        balance(-2100, "applied_to_invoice"),
        events("""
            customer.subscription.deleted
            invoiceitem.created amount=-2100
            customer.subscription.updated was=latest_invoice
            invoice.created
            invoiceitem.updated
            invoice.finalized
            invoice.paid
            invoice.payment_succeeded
            customer.updated was=balance
        """),
    ),
    row(
        "prorate alone: the credit waits for the customer's next invoice",
        subscribe("M31"),
        to("2025-01-11"),
        cancel(prorate=True),
        pending(-2100),
        subscribe("M31"),
        invoice(lines=[-2100, 3100], total=1000),
    ),
    row(
        "prorate alone keeps pending prorations as well",
        UPGRADED,
        cancel(prorate=True),
        pending(-500, 1000, -1000),
        start=APRIL,
    ),
    row(
        "invoice_now alone: pending prorations are charged at once",
        UPGRADED,
        cancel(invoice_now=True),
        invoice(status="paid", total=500, lines=[1000, -500]),
        start=APRIL,
    ),
    row(
        "invoice_now leaves items that are no prorations",
        UPGRADED,
        item(700, of_subscription=True),
        cancel(invoice_now=True),
        invoice(total=500),
        pending(700),
        start=APRIL,
    ),
    row(
        "invoice_now with nothing to bill makes no invoice",
        subscribe("M31"),
        cancel(invoice_now=True),
        invoices("paid"),
    ),
    row(
        "invoice_now, declined: retried, the customer delinquent, the subscription canceled",
        UPGRADED,
        attach(BAD),
        cancel(invoice_now=True),
        sub(status="canceled"),
        invoice(status="open", next_payment_attempt="2025-04-19"),
        customer(delinquent=True),
        attach(OK),
        to("2025-04-19"),
        invoice(status="paid"),
        customer(delinquent=False),
        start=APRIL,
    ),
    row(
        "the final invoice of a past due subscription that is paid by a credit clears the customer",
        subscribe("M31"),
        attach(BAD),
        to("2025-02-02"),
        customer(delinquent=True),
        cancel(prorate=True, invoice_now=True),
        invoice(status="paid", total=-2989),
        customer(delinquent=False),
    ),
    row(
        "during a trial: no invoice, nothing to prorate",
        subscribe("M31", trial_period_days=14),
        to("2025-01-05"),
        cancel(prorate=True, invoice_now=True),
        sub(status="canceled"),
        invoices("paid"),
    ),
    row(
        "send_invoice: the final invoice is a draft for an hour",
        subscribe("M10", collection_method="send_invoice", days_until_due=10),
        to("2025-04-16"),
        update(price="M20"),
        cancel(invoice_now=True),
        invoice(status="draft", total=500, automatically_finalizes_at="2025-04-16 01:00"),
        to("2025-04-16 01:00"),
        invoice(status="open"),
        start=APRIL,
    ),
    row("twice", subscribe("M31"), cancel(), cancel(), refused("subscription_terminal")),
    row(
        "an expired one",
        subscribe("M31"),
        to("2025-01-02"),
        cancel(),
        refused("subscription_terminal"),
        card=BAD,
    ),
    row(
        "afterwards metadata and details may change, and nothing else moves",
        subscribe("M31", trial_end="2025-03-15"),
        to("2025-01-20"),
        cancel(),
        mark(),
        update(metadata={"a": "1"}),
        update(cancellation_comment="bye", cancellation_feedback="unused"),
        sub(status="canceled", cancellation_details__comment="bye", current_period_end="2025-03-15"),
        pending(),
        events("""
            customer.subscription.updated was=metadata
            customer.subscription.updated was=cancellation_details
        """),
    ),
    row(
        "afterwards a description may not change",
        subscribe("M31"),
        cancel(),
        update(description="d"),
        refused("subscription_terminal", "description"),
    ),
    row(
        "afterwards nothing new is billed to it",
        subscribe("M31"),
        cancel(),
        item(100, of_subscription=True),
        refused("subscription_terminal", "subscription"),
    ),
    row(
        "what was said of it before is kept",
        subscribe("M31"),
        update(cancellation_feedback="unused", cancellation_comment="later"),
        cancel(comment="now"),
        sub(cancellation_details__feedback="unused", cancellation_details__comment="now"),
    ),
]

AT_PERIOD_END = [
    row(
        "S93: asked for on January 10, ended on February 1",
        subscribe("M31"),
        to("2025-01-10"),
        mark(),
        update(cancel_at_period_end=True),
        sub(status="active", cancel_at_period_end=True, canceled_at="2025-01-10", ended_at=None),
        events("""
            customer.subscription.updated was=cancel_at_period_end,canceled_at,cancellation_details
        """),
        to("2025-01-31 23:59:59"),
        sub(status="active"),
        no_events(),
        to("2025-02-01"),
        sub(status="canceled", ended_at="2025-02-01", canceled_at="2025-01-10"),
        sub(cancellation_details__reason="cancellation_requested"),
        events("customer.subscription.deleted @2025-02-01"),
        invoices("paid"),
    ),
    row(
        "undone before",
        subscribe("M31"),
        to("2025-01-10"),
        update(cancel_at_period_end=True),
        to("2025-01-20"),
        mark(),
        update(cancel_at_period_end=False),
        sub(cancel_at_period_end=False, canceled_at=None, cancellation_details__reason=None),
        to("2025-02-01 01:00"),
        invoices("paid", "paid"),
        sub(status="active"),
    ),
    row(
        "no renewal is announced, and it is again when undone",
        subscribe("M31"),
        update(cancel_at_period_end=True),
        mark(),
        to("2025-01-26"),
        no_events(),
        update(cancel_at_period_end=False),
        mark(),
        to("2025-01-31"),
        no_events(),
    ),
    row(
        "pending prorations and items are collected at the end",
        UPGRADED,
        item(700, of_subscription=True),
        update(cancel_at_period_end=True),
        to("2025-05-01"),
        sub(status="canceled"),
        invoice(status="paid", lines=[700, 1000, -500], total=1200),
        start=APRIL,
    ),
    row(
        "of a trial: ended with it, without an invoice",
        subscribe("M31", trial_period_days=14, cancel_at_period_end=True),
        to("2025-01-15"),
        sub(status="canceled", canceled_at="2025-01-01", ended_at="2025-01-15"),
        invoices("paid"),
    ),
    row(
        "a cancellation by unpaid invoices says so, whatever was asked for before",
        subscribe("W7"),
        attach(BAD),
        to("2025-01-20"),
        update(cancel_at_period_end=True),
        to("2025-02-20"),
        sub(status="canceled", cancellation_details__reason="cancellation_requested", ended_at="2025-01-22"),
    ),
    row(
        "a yearly one whose payments fail before its end",
        subscribe("Y120"),
        attach(BAD),
        to("2026-01-02"),
        update(cancel_at_period_end=True),
        to("2026-02-01"),
        sub(status="canceled", cancellation_details__reason="payment_failed", ended_at="2026-01-16 01:00"),
    ),
    row(
        "a paused collection holds for the last invoice too",
        UPGRADED,
        pause("keep_as_draft"),
        update(cancel_at_period_end=True),
        to("2025-06-01"),
        invoice(status="draft", auto_advance=False, total=500),
        charges(1),
        start=APRIL,
    ),
]


@pytest.mark.parametrize("row", NOW)
def test_canceled_now(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", AT_PERIOD_END)
def test_canceled_at_the_end_of_the_period(row: Row) -> None:
    row.play()
