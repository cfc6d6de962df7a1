"""What follows when no retry is left, and outcomes that stay unknown (semantics 6; decisions 14 and 15)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.shop import BAD, MUTE, OK
from tests.domain.rules.sights import charges, customer, events, events_of, invoice, invoices, no_events, sub
from tests.domain.rules.steps import (
    Row,
    attach,
    cancel,
    change_invoice,
    gateway,
    give_up,
    mark,
    pay,
    resolve,
    row,
    subscribe,
    to,
)

BASE = (subscribe("M31"), to("2025-01-26"), attach(BAD), mark())
"""Paid in January, then the card replaced by one that is declined: F, the first failure, is February 1, 01:00."""


FINAL = [
    row(
        f"final action: {action} and {ends}",
        BASE,
        to("2025-02-16 01:00"),
        sub(status=status),
        invoice(status=left, auto_advance=left == "open" and action != "cancel", next_payment_attempt=None),
        customer(delinquent=True),
        settings=Settings(subscription_final_action=action, invoice_final_action=ends),  # type: ignore[arg-type]  # theirs
    )
    for action, status in (("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due"))
    for ends, left in (("leave_open", "open"), ("uncollectible", "uncollectible"), ("void", "void"))
]


UNPAID = Settings(subscription_final_action="unpaid")


LEFT = Settings(subscription_final_action="past_due")


AFTERWARDS = [
    row(
        "the order: the failure, the end of the subscription, then that of the invoice",
        BASE,
        to("2025-02-16"),
        mark(),
        to("2025-02-16 01:00"),
        events("""
            payment_intent.payment_failed
            invoice.updated
            invoice.payment_failed
            customer.subscription.deleted
            invoice.updated was=auto_advance
            invoice.marked_uncollectible
        """),
        settings=Settings(invoice_final_action="uncollectible"),
    ),
    row(
        "the same, voided",
        BASE,
        to("2025-02-16"),
        mark(),
        to("2025-02-16 01:00"),
        events("""
            payment_intent.payment_failed
            invoice.updated
            invoice.payment_failed
            customer.subscription.deleted
            invoice.updated
            invoice.voided
            payment_intent.canceled
        """),
        settings=Settings(invoice_final_action="void"),
    ),
    row(
        "S17: unpaid: later invoices are drafts, and stay so",
        BASE,
        to("2025-02-16"),
        mark(),
        to("2025-02-16 01:00"),
        sub(status="unpaid"),
        events("""
            payment_intent.payment_failed
            invoice.updated
            invoice.payment_failed
            customer.subscription.updated was=status was.status=past_due
        """),
        to("2025-03-01"),
        invoice(created="2025-03-01", status="draft", auto_advance=False, next_payment_attempt=None),
        events("""
            customer.subscription.updated
            invoice.created
        """),
        to("2025-03-01 01:00"),
        invoice(status="draft", attempt_count=0),
        invoice(1, status="open"),
        no_events(),
        to("2025-04-02"),
        invoices("paid", "open", "draft", "draft"),
        settings=UNPAID,
    ),
    row(
        "unpaid, then the latest open invoice is paid: active; earlier drafts wait to be released",
        BASE,
        to("2025-03-10"),
        attach(OK),
        pay(1),
        sub(status="active"),
        customer(delinquent=False),
        invoice(2, status="draft", auto_advance=False),
        to("2025-04-01 01:00"),
        invoices("paid", "paid", "draft", "paid"),
        change_invoice(2, auto_advance=True),
        to("2025-04-01 02:00"),
        invoices("paid", "paid", "paid", "paid"),
        settings=UNPAID,
    ),
    row(
        "unpaid, and given up: still unpaid",
        BASE,
        to("2025-03-10"),
        give_up(1),
        sub(status="unpaid"),
        settings=UNPAID,
    ),
    row(
        "unpaid, then canceled",
        BASE,
        to("2025-03-10"),
        cancel(),
        sub(status="canceled"),
        settings=UNPAID,
    ),
    row(
        "unpaid: nothing else of the subscription is tried any more",
        subscribe("W7"),
        attach(BAD),
        to("2025-01-23 01:00"),
        sub(status="unpaid"),
        invoices("paid", "open", "open", "open"),
        invoice(2, auto_advance=False, next_payment_attempt=None),
        invoice(3, auto_advance=False, next_payment_attempt=None),
        to("2025-01-28"),
        charges(8),
        settings=UNPAID,
    ),
    row(
        "left past due: later invoices are charged and retried",
        BASE,
        to("2025-03-01 01:00"),
        invoices("paid", "open", "open"),
        invoice(attempt_count=1, next_payment_attempt="2025-03-04 01:00"),
        attach(OK),
        to("2025-03-04 01:00"),
        sub(status="active"),
        invoices("paid", "open", "paid"),
        settings=LEFT,
    ),
    row(
        "canceled by an older invoice: the retries of a newer one stop",
        subscribe("W7"),
        attach(BAD),
        to("2025-01-23 01:00"),
        sub(status="canceled"),
        events_of("customer.subscription.deleted", "customer.subscription.deleted"),
        invoice(2, auto_advance=False, next_payment_attempt=None),
        mark(),
        to("2025-03-01"),
        no_events(),
    ),
]


UNKNOWN = [
    row(
        "unknown: nothing else is tried until the gateway tells",
        subscribe("M31"),
        attach(MUTE),
        to("2025-02-10"),
        invoice(status="open", attempt_count=0, charging=True),
        sub(status="active"),
        charges(2),
        mark(),
        resolve("declined"),
        sub(status="past_due"),
        invoice(attempt_count=1, next_payment_attempt="2025-02-10"),
        attach(OK),
        to("2025-02-10 00:01"),
        invoice(status="paid", attempt_count=2),
    ),
    row(
        "unknown, then paid",
        subscribe("M31"),
        attach(MUTE),
        to("2025-02-03"),
        mark(),
        resolve("paid"),
        invoice(status="paid", attempt_count=1, charging=False),
        events("""
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
    ),
    row(
        "asked again and again without an answer",
        subscribe("M31"),
        attach(MUTE),
        to("2025-02-03"),
        resolve("unknown"),
        resolve("unknown"),
        invoice(status="open", attempt_count=0),
        resolve("paid"),
        invoice(status="paid"),
    ),
    row(
        "the gateway never saw it: charged after all, with the same attempt",
        subscribe("M31"),
        attach(MUTE),
        to("2025-02-01 02:00"),
        gateway("paid"),
        resolve("not found"),
        invoice(status="paid", attempts_started=1),
        charges(3),
    ),
    row(
        "the gateway has forgotten it: failed, and retried",
        subscribe("M31"),
        attach(MUTE),
        to("2025-02-01 01:00"),
        to("2025-02-02 01:00:01"),
        resolve("not found"),
        invoice(status="open", attempt_count=1, next_payment_attempt="2025-02-04 01:00"),
        charges(2),
    ),
    row(
        "paid on a subscription that was canceled meanwhile: the invoice was owed, and is paid",
        subscribe("M31"),
        attach(MUTE),
        to("2025-02-03"),
        cancel(),
        resolve("paid"),
        invoice(status="paid"),
        sub(status="canceled"),
    ),
    row(
        "an open question keeps invoices as they are",
        subscribe("M31"),
        attach(MUTE),
        to("2025-02-03"),
        attach(OK),
        change_invoice(auto_advance=False),
        to("2025-02-20"),
        resolve("declined"),
        invoice(status="open", next_payment_attempt=None, attempt_count=1),
        sub(status="active"),
    ),
]


@pytest.mark.parametrize("row", FINAL + AFTERWARDS)
def test_final_actions(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", UNKNOWN)
def test_unknown_outcomes(row: Row) -> None:
    row.play()
