"""Invoices from draft to open: the draft hour, and invoices made by hand (semantics 3)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from billing_server.domain.dunning import RetryPolicy
from tests.domain.rules.shop import BAD
from tests.domain.rules.sights import charges, customer, events, invoice, invoices, no_events, pending, refused, sub
from tests.domain.rules.steps import (
    Fields,
    Row,
    attach,
    bill,
    cancel,
    change_customer,
    change_invoice,
    delete_invoice,
    finalize,
    give_up,
    item,
    mark,
    one_off,
    pay,
    row,
    send,
    subscribe,
    to,
    void,
)

FEBRUARY = (subscribe("M31"), to("2025-02-01"), mark())
"""A renewal's draft, just made."""

SENT: Fields = {"collection_method": "send_invoice", "days_until_due": 10}

DRAFT_HOUR = [
    row(
        "a renewal is a draft for an hour",
        FEBRUARY,
        invoice(status="draft", auto_advance=True, automatically_finalizes_at="2025-02-01 01:00"),
        invoice(next_payment_attempt="2025-02-01 01:00", due_date=None, billing_reason="subscription_cycle"),
        invoice(period_start="2025-01-01", period_end="2025-02-01"),
        to("2025-02-01 00:59:59"),
        invoice(status="draft"),
        no_events(),
        to("2025-02-01 01:00"),
        invoice(status="paid", finalized_at="2025-02-01 01:00", effective_at="2025-02-01 01:00"),
        invoice(automatically_finalizes_at=None, next_payment_attempt=None, auto_advance=False),
    ),
    row(
        "the delay is a setting",
        FEBRUARY,
        invoice(status="draft", automatically_finalizes_at="2025-02-01 00:10"),
        to("2025-02-01 00:10"),
        invoice(status="paid"),
        settings=Settings(finalization_delay_seconds=600),
    ),
    row(
        "without a delay it is finalized and charged at once",
        FEBRUARY,
        invoice(status="paid", finalized_at="2025-02-01"),
        settings=Settings(finalization_delay_seconds=0),
    ),
    row(
        "a line is added within the hour",
        FEBRUARY,
        item(900, on=1),
        invoice(lines=[3100, 900], amount_due=4000),
        to("2025-02-01 01:00"),
        invoice(status="paid", amount_paid=4000),
    ),
    row(
        "an item that names no invoice waits for the next month",
        FEBRUARY,
        item(900, of_subscription=True),
        invoice(lines=[3100]),
        to("2025-03-01"),
        invoice(lines=[900, 3100]),
    ),
    row(
        "finalized by hand: charged at once",
        FEBRUARY,
        finalize(),
        invoice(status="paid", finalized_at="2025-02-01"),
    ),
    row(
        "finalized by hand without automatic collection: open, and left alone",
        FEBRUARY,
        finalize(auto_advance=False),
        invoice(status="open", auto_advance=False, attempt_count=0),
        to("2025-02-20"),
        invoice(status="open", attempt_count=0),
        charges(1),
    ),
    row(
        "paid by hand within the hour",
        FEBRUARY,
        pay(),
        invoice(status="paid", attempt_count=1),
        to("2025-02-02"),
        charges(2),
    ),
    row(
        "declined by hand within the hour: the first attempt, so the retries follow",
        FEBRUARY,
        attach(BAD),
        pay(),
        invoice(status="open", attempt_count=1, next_payment_attempt="2025-02-04"),
        sub(status="past_due"),
        to("2025-02-04"),
        invoice(attempt_count=2, next_payment_attempt="2025-02-09"),
    ),
    row(
        "automatic collection switched off: stays a draft",
        FEBRUARY,
        change_invoice(auto_advance=False),
        invoice(auto_advance=False, automatically_finalizes_at=None, next_payment_attempt=None),
        to("2025-02-28"),
        invoice(status="draft"),
        mark(),
        change_invoice(auto_advance=True),
        invoice(automatically_finalizes_at="2025-02-28 01:00", next_payment_attempt="2025-02-28 01:00"),
        to("2025-02-28 01:00"),
        invoice(status="paid"),
    ),
    row(
        "a draft without lines is not finalized: collection stops",
        bill(currency="usd", auto_advance=True),
        mark(),
        to("2025-01-01 01:00"),
        invoice(status="draft", auto_advance=False, automatically_finalizes_at=None),
        events("invoice.finalization_failed auto_advance=False"),
    ),
    row("and not by hand either", bill(currency="usd"), finalize(), refused("invoice_no_lines")),
]

ONE_OFF = [
    row(
        "S25: without automatic collection a decline changes nothing, ever",
        one_off(1000),
        invoice(auto_advance=False, automatically_finalizes_at=None, billing_reason="manual"),
        finalize(),
        attach(BAD),
        pay(),
        invoice(status="open", attempt_count=1, next_payment_attempt=None),
        mark(),
        to("2025-04-01"),
        no_events(),
        invoice(status="open", attempt_count=1),
        customer(delinquent=False),
    ),
    row(
        "with automatic collection: finalized after an hour, charged, retried",
        one_off(1000, auto_advance=True),
        attach(BAD),
        invoice(automatically_finalizes_at="2025-01-01 01:00", next_payment_attempt="2025-01-01 01:00"),
        to("2025-01-01 01:00"),
        invoice(status="open", attempt_count=1, next_payment_attempt="2025-01-04 01:00"),
        customer(delinquent=True),
        to("2025-01-16 01:00"),
        invoice(status="open", attempt_count=4, next_payment_attempt=None, auto_advance=True),
        to("2025-06-01"),
        charges(4),
    ),
    *(
        row(
            f"with automatic collection, exhausted: {action}",
            one_off(1000, auto_advance=True),
            attach(BAD),
            to("2025-01-02 01:00"),
            invoice(status=status, attempt_count=2),
            settings=Settings(
                one_off_retry_policy=RetryPolicy(kind="custom", retry_days=(1,)),
                one_off_invoice_final_action=action,  # type: ignore[arg-type]  # one of the actions
            ),
        )
        for action, status in (("leave_open", "open"), ("uncollectible", "uncollectible"), ("void", "void"))
    ),
    row(
        "S27: sent and past due: open, may be given up",
        one_off(1000, **SENT),
        finalize(),
        invoice(due_date="2025-01-11"),
        to("2025-03-01"),
        invoice(status="open", overdue=True),
        customer(delinquent=True),
        give_up(),
        invoice(status="uncollectible"),
        customer(delinquent=False),
    ),
    row("S27: or voided", one_off(1000, **SENT), finalize(), to("2025-03-01"), void(), invoice(status="void")),
    row(
        "sent automatically",
        one_off(1000, auto_advance=True, **SENT),
        invoice(automatically_finalizes_at="2025-01-01 01:00", next_payment_attempt=None),
        mark(),
        to("2025-01-01 01:00"),
        invoice(status="open", next_payment_attempt=None),
        events("""
            invoice.finalized
            payment_intent.created
            invoice.sent
        """),
    ),
    row(
        "sent by hand, again and again",
        one_off(1000, **SENT),
        mark(),
        send(),
        send(),
        events("""
            invoice.finalized
            payment_intent.created
            invoice.sent
            invoice.sent
        """),
    ),
    row("what is charged is not sent", one_off(1000), send(), refused("invoice_state_invalid")),
    row(
        "a due date of its own",
        one_off(1000, collection_method="send_invoice", due_date="2025-02-15"),
        invoice(due_date="2025-02-15"),
    ),
    row(
        "a due date in the past",
        bill(currency="usd", collection_method="send_invoice", due_date="2024-12-31"),
        refused("time_out_of_range", "due_date"),
    ),
    row("without a currency anywhere", bill(), refused("parameter_missing", "currency")),
    row("in another currency", one_off(1000), bill(currency="eur"), refused("currency_mismatch")),
    row(
        "pending items are left out",
        item(700),
        bill(currency="usd"),
        invoice(lines=[]),
        pending(700),
    ),
    row(
        "pending items are taken in when asked for, but not those of a subscription",
        subscribe("M31"),
        item(700),
        item(300, of_subscription=True),
        bill(pending_invoice_items_behavior="include"),
        invoice(lines=[700]),
        pending(300),
    ),
    row(
        "those of a subscription with the subscription",
        subscribe("M31"),
        item(700),
        item(300, of_subscription=True),
        bill(of_subscription=True, pending_invoice_items_behavior="include"),
        invoice(lines=[300, 700], billing_reason="manual", subscription="set"),
        sub(status="active"),
        pending(),
    ),
    row(
        "no invoice for a subscription that has ended",
        subscribe("M31"),
        cancel(),
        bill(of_subscription=True),
        refused("subscription_terminal", "subscription"),
    ),
    row(
        "deleted while a draft: its items wait again",
        item(700),
        bill(currency="usd", pending_invoice_items_behavior="include"),
        pending(),
        mark(),
        delete_invoice(),
        invoices(),
        pending(700),
        events("""
            invoice.deleted
            invoiceitem.updated was=invoice
        """),
    ),
    row("a finalized one is not deleted", one_off(10), finalize(), delete_invoice(), refused("invoice_not_deletable")),
    row("a subscription's is not deleted", FEBRUARY, delete_invoice(), refused("invoice_not_deletable")),
    row(
        "its own payment method goes before the customer's",
        attach(BAD, default=False),
        one_off(1000, auto_advance=True),
        change_invoice(default_payment_method=BAD),
        to("2025-01-01 01:00"),
        invoice(status="open", attempt_count=1),
        change_customer(name="Jenny"),
        to("2025-01-04 01:00"),
        invoice(attempt_count=2),
    ),
]


@pytest.mark.parametrize("row", DRAFT_HOUR + ONE_OFF)
def test_from_draft_to_open(row: Row) -> None:
    row.play()
