"""Paused collection: invoices keep coming, money does not (seed S4, semantics 7; decisions 16 to 18)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import BAD, OK
from tests.domain.rules.sights import (
    balance,
    charges,
    customer,
    events,
    events_of,
    invoice,
    invoices,
    no_events,
    pending,
    period,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import (
    Row,
    adjust_balance,
    attach,
    bill,
    change_invoice,
    finalize,
    item,
    mark,
    one_off,
    pause,
    pay,
    phase,
    row,
    schedule,
    subscribe,
    to,
    unpause,
    update,
    void,
)

JANUARY = (subscribe("M31"), to("2025-01-10"), mark())

BEHAVIORS = [
    row(
        "S73: void until March 15: February and March void, April charged",
        JANUARY,
        pause("void", "2025-03-15"),
        to("2025-02-01"),
        sub(status="active"),
        period("2025-02-01", "2025-03-01"),
        invoice(status="void", total=3100, auto_advance=False, number=None),
        to("2025-03-14 23:59:59"),
        sub(pause_collection="set"),
        mark(),
        to("2025-03-15"),
        sub(pause_collection=None, status="active"),
        events("customer.subscription.updated was=pause_collection @2025-03-15"),
        to("2025-04-01 01:00"),
        invoices("paid", "void", "void", "paid"),
        charges(2),
    ),
    row(
        "void: the log tells the creation and the end, and nothing else",
        JANUARY,
        pause("void"),
        mark(),
        to("2025-02-10"),
        events("""
            customer.subscription.updated was=current_period_end,current_period_start,latest_invoice
            invoice.created status=draft auto_advance=False
            invoice.voided status=void
        """),
    ),
    row(
        "void leaves the balance untouched",
        adjust_balance(-500, currency="usd"),
        JANUARY,
        pause("void"),
        adjust_balance(-700),
        to("2025-02-10"),
        balance(-700),
    ),
    row(
        "S74: keep_as_draft: a draft, indefinitely",
        JANUARY,
        pause("keep_as_draft"),
        mark(),
        to("2025-02-28"),
        sub(status="active"),
        invoice(status="draft", auto_advance=False, automatically_finalizes_at=None, next_payment_attempt=None),
        events("""
            customer.subscription.updated
            invoice.created status=draft auto_advance=False
        """),
        charges(1),
    ),
    row(
        "keep_as_draft, then released: charged an hour later",
        JANUARY,
        pause("keep_as_draft"),
        to("2025-02-28"),
        mark(),
        change_invoice(auto_advance=True),
        invoice(automatically_finalizes_at="2025-02-28 01:00"),
        to("2025-02-28 01:00"),
        invoice(status="paid"),
        events("""
            invoice.updated was=auto_advance,automatically_finalizes_at,next_payment_attempt
            invoice.finalized
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
    ),
    row(
        "keep_as_draft, then finalized and paid by hand",
        JANUARY,
        pause("keep_as_draft"),
        to("2025-02-28"),
        finalize(),
        invoice(status="open", collection_paused=False),
        pay(),
        invoice(status="paid"),
        sub(status="active"),
    ),
    row(
        "S76: mark_uncollectible: uncollectible, nothing charged",
        JANUARY,
        pause("mark_uncollectible"),
        mark(),
        to("2025-02-10"),
        sub(status="active"),
        invoice(status="uncollectible", attempt_count=0, auto_advance=False, amount_remaining=3100, number="set"),
        customer(delinquent=False),
        charges(1),
        events("""
            customer.subscription.updated
            invoice.created status=draft
            invoice.marked_uncollectible status=uncollectible
        """),
    ),
    row(
        "mark_uncollectible: a balance that covers all pays",
        JANUARY,
        pause("mark_uncollectible"),
        adjust_balance(-5000),
        mark(),
        to("2025-02-10"),
        invoice(status="paid", amount_due=0),
        balance(-1900, "adjustment", "applied_to_invoice"),
        events("""
            customer.subscription.updated
            invoice.created
            invoice.paid
            customer.updated was=balance @2025-02-01
        """),
    ),
    row(
        "decision 16: a balance that covers a part is consumed",
        JANUARY,
        pause("mark_uncollectible"),
        adjust_balance(-1000),
        to("2025-02-10"),
        invoice(status="uncollectible", amount_due=2100),
        balance(0),
    ),
    row(
        "mark_uncollectible, paid by hand later",
        JANUARY,
        pause("mark_uncollectible"),
        to("2025-02-10"),
        mark(),
        pay(),
        invoice(status="paid"),
        events("""
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
    ),
    row(
        "send_invoice: nothing is sent either",
        subscribe("M31", collection_method="send_invoice", days_until_due=10),
        to("2025-01-02"),
        pay(paid_out_of_band=True),
        pause("keep_as_draft"),
        to("2025-02-20"),
        invoice(status="draft", auto_advance=False),
        sub(status="active"),
        card=None,
    ),
]

BOUNDS = [
    row(
        "S80: setting and unsetting tell a change of the subscription, nothing of paused or resumed",
        JANUARY,
        pause("void"),
        sub(status="active", pause_collection__behavior="void", pause_collection__resumes_at=None),
        events("customer.subscription.updated was=pause_collection was.pause_collection=None"),
        unpause(),
        sub(pause_collection=None),
        events("customer.subscription.updated was=pause_collection"),
    ),
    row(
        "an invoice created at resumes_at itself is collected",
        JANUARY,
        pause("void", "2025-02-01"),
        mark(),
        to("2025-02-01"),
        invoice(status="draft", auto_advance=True),
        sub(pause_collection=None),
        events_of("customer", "customer.subscription.updated customer.subscription.updated"),
        to("2025-02-01 01:00"),
        invoice(status="paid"),
    ),
    row(
        "one created a second before is not",
        JANUARY,
        pause("void", "2025-02-01 00:00:01"),
        to("2025-02-01 01:00"),
        invoice(status="void"),
    ),
    row(
        "resumes_at in the past",
        JANUARY,
        pause("void", "2025-01-09"),
        refused("time_out_of_range", "pause_collection.resumes_at"),
    ),
    row(
        "unset by hand: later invoices are collected, drafts stay drafts",
        JANUARY,
        pause("keep_as_draft"),
        to("2025-02-10"),
        unpause(),
        to("2025-03-01 01:00"),
        invoices("paid", "draft", "paid"),
        invoice(1, auto_advance=False),
    ),
    row(
        "another behavior from now on",
        JANUARY,
        pause("keep_as_draft"),
        to("2025-02-10"),
        pause("void"),
        to("2025-03-10"),
        invoices("paid", "draft", "void"),
    ),
    row(
        "S82: no renewal is announced while its invoice will be paused",
        JANUARY,
        pause("void"),
        mark(),
        to("2025-01-31"),
        no_events(),
    ),
    row(
        "a renewal after the end of the pause is",
        JANUARY,
        pause("void", "2025-01-30"),
        mark(),
        to("2025-01-31"),
        events("""
            invoice.upcoming @2025-01-25
            customer.subscription.updated @2025-01-30
        """),
    ),
]

OTHERS = [
    row(
        "earlier invoices are retried all the same",
        subscribe("M31"),
        attach(BAD),
        to("2025-02-02"),
        pause("void"),
        to("2025-02-04 01:00"),
        invoice(attempt_count=2),
        attach(OK),
        to("2025-02-09 01:00"),
        invoice(status="paid"),
        sub(status="active"),
    ),
    row(
        "and not when they are voided",
        subscribe("M31"),
        attach(BAD),
        to("2025-02-02"),
        pause("void"),
        void(),
        sub(status="active"),
        to("2025-02-20"),
        charges(2),
    ),
    row(
        "past due stays past due, whatever becomes of invoices that are born paused",
        subscribe("W7"),
        attach(BAD),
        to("2025-01-09"),
        pause("void"),
        to("2025-01-15 01:00"),
        sub(status="past_due"),
        pause("mark_uncollectible"),
        adjust_balance(-700),
        to("2025-01-22 01:00"),
        invoices("paid", "open", "void", "paid"),
        sub(status="past_due"),
    ),
    row(
        "active stays active",
        JANUARY,
        attach(BAD),
        pause("mark_uncollectible"),
        to("2025-06-15"),
        sub(status="active"),
        customer(delinquent=False),
        charges(1),
    ),
    row(
        "the invoice of a change is born paused too",
        JANUARY,
        pause("keep_as_draft"),
        update(quantity=2, proration_behavior="always_invoice"),
        invoice(status="draft", auto_advance=False),
        charges(1),
    ),
    row(
        "a change that would wait for its payment waits for nothing",
        JANUARY,
        pause("void"),
        mark(),
        update(quantity=2, proration_behavior="always_invoice", payment_behavior="pending_if_incomplete"),
        sub(pending_update=None, items__0__quantity=2),
        invoice(status="void", total=2200),
        charges(1),
    ),
    row(
        "invoices of pending items too",
        subscribe("M31", pending_invoice_item_interval=("week", 1)),
        pause("void"),
        item(900, of_subscription=True),
        to("2025-01-08"),
        invoice(status="void", total=900),
        sub(status="active"),
    ),
    row(
        "invoices made by hand are not",
        JANUARY,
        pause("void"),
        one_off(900, auto_advance=True),
        bill(of_subscription=True),
        item(800, on=-1),
        pay(),
        to("2025-01-10 01:00"),
        totals(3100, 900, 800),
        invoices("paid", "paid", "paid"),
    ),
    row(
        "decision 18: a trial that ends meanwhile never pauses the subscription",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
        pause("keep_as_draft"),
        to("2025-02-15"),
        sub(status="active"),
        invoices("paid", "draft", "draft"),
        card=None,
    ),
    row(
        "unless collection is resumed in the second in which it ends",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
        pause("void", "2025-01-15"),
        to("2025-01-15"),
        sub(status="paused", pause_collection=None),
        invoices("paid"),
        card=None,
    ),
    row(
        "a draft from before the pause goes its way, though it is finalized within it",
        JANUARY,
        to("2025-02-01 00:30"),
        pause("void"),
        to("2025-02-01 01:00"),
        invoice(status="paid"),
        to("2025-03-01 01:00"),
        invoices("paid", "paid", "void"),
    ),
    row(
        "a draft that is released and not paid: past due within the pause, active again when it is void",
        JANUARY,
        pause("keep_as_draft"),
        attach(BAD),
        to("2025-02-02"),
        change_invoice(auto_advance=True),
        to("2025-02-02 01:00"),
        sub(status="past_due", pause_collection="set"),
        invoice(status="open", next_payment_attempt="2025-02-05 01:00"),
        void(),
        sub(status="active"),
    ),
    row(
        "phases begin as they would: what they invoice is born paused, and released by hand only",
        schedule(
            phase("M31", end_date="2025-02-10"),
            phase("M20", end_date="2025-03-10"),
            phase("Y120", end_date="2026-03-10"),
            end_behavior="cancel",
        ),
        to("2025-01-10"),
        pause("keep_as_draft"),
        to("2025-03-12"),
        sub(status="active", interval="year"),
        invoices("paid", "draft", "draft", "draft"),
        unpause(),
        to("2025-03-20"),
        invoices("paid", "draft", "draft", "draft"),
        charges(1),
        change_invoice(auto_advance=True),
        to("2025-03-20 01:00"),
        invoices("paid", "draft", "draft", "paid"),
        to("2026-03-10"),
        sub(status="canceled"),
    ),
    row(
        "nor cancels it",
        subscribe("M31", trial_period_days=14, missing_payment_method="cancel"),
        pause("mark_uncollectible"),
        to("2025-01-15"),
        sub(status="active"),
        invoices("paid", "uncollectible"),
        card=None,
    ),
    row(
        "voided lines are not billed again",
        JANUARY,
        item(500, of_subscription=True),
        pause("void", "2025-02-10"),
        to("2025-03-01"),
        invoice(1, lines=[500, 3100], status="void"),
        invoice(2, lines=[3100]),
        pending(),
    ),
]


@pytest.mark.parametrize("row", BEHAVIORS)
def test_behaviors(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", BOUNDS)
def test_from_when_to_when(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", OTHERS)
def test_what_else_goes_on(row: Row) -> None:
    row.play()
