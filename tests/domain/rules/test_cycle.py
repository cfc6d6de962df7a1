"""The billing cycle: anchors, ways to the anchor, resets, backdating (semantics 4; decision 10)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.shop import BAD
from tests.domain.rules.sights import (
    balance,
    charges,
    events,
    invoice,
    invoices,
    no_events,
    pending,
    period,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import Fields, Row, attach, item, mark, row, subscribe, to, update

JULY = "2024-07-15"

ANCHORS = [
    row(
        "S83: the anchor's day, clamped to shorter months, never forgotten",
        subscribe("M31"),
        to("2024-04-30 10:00"),
        invoice(0, created="2024-01-31 10:00"),
        invoice(1, created=1709200800),
        invoice(2, created=1711879200),
        invoice(3, created=1714471200),
        start="2024-01-31 10:00",
    ),
    row(
        "S84: yearly from a leap day",
        subscribe("Y120"),
        to("2028-02-29"),
        invoice(1, created="2025-02-28"),
        invoice(2, created="2026-02-28"),
        invoice(3, created="2027-02-28"),
        invoice(4, created="2028-02-29"),
        start="2024-02-29",
    ),
    row("weeks are 604800 seconds", subscribe("W7"), to("2025-01-15"), period("2025-01-15", "2025-01-22")),
    row("days are 86400 seconds", subscribe("D1"), to("2025-01-04"), totals(100, 100, 100, 100)),
    row("every three months", subscribe("Q90"), to("2025-04-01"), period("2025-04-01", "2025-07-01")),
    row(
        "a renewal tells the new period, then its draft",
        subscribe("M31"),
        to("2025-01-25"),
        mark(),
        to("2025-02-01"),
        events("""
            customer.subscription.updated was=current_period_end,current_period_start,latest_invoice @2025-02-01
            invoice.created status=draft
        """),
        invoice(lines=[(3100, "2025-02-01", "2025-03-01")]),
        to("2025-02-01 01:00"),
        events("""
            invoice.finalized status=open @2025-02-01T01:00
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
        sub(status="active"),
    ),
    row(
        "a renewal is announced seven days before",
        subscribe("M31"),
        mark(),
        to("2025-01-25"),
        events("invoice.upcoming @2025-01-25 billing_reason=upcoming total=3100 status=draft period_end=2025-02-01"),
    ),
    row(
        "or as many as the setting says",
        subscribe("M31"),
        mark(),
        to("2025-01-29"),
        events("invoice.upcoming @2025-01-29"),
        settings=Settings(upcoming_renewal_days=3),
    ),
    row(
        "or never",
        subscribe("M31"),
        mark(),
        to("2025-01-31"),
        no_events(),
        settings=Settings(upcoming_renewal_days=0),
    ),
    row(
        "an announcement counts what is pending and the balance",
        subscribe("M31"),
        item(500),
        mark(),
        to("2025-01-25"),
        events("invoice.upcoming total=3600 amount_due=3600"),
    ),
    row(
        "invoices that are sent are not announced",
        subscribe("M31", collection_method="send_invoice", days_until_due=30),
        to("2025-01-02"),
        mark(),
        to("2025-01-30"),
        no_events(),
    ),
    row(
        "S24: switched to send_invoice: only what is created later",
        subscribe("M31"),
        to("2025-01-10"),
        update(collection_method="send_invoice", days_until_due=14),
        invoice(collection_method="charge_automatically", due_date=None),
        to("2025-02-01"),
        invoice(collection_method="send_invoice", due_date="2025-02-15", next_payment_attempt=None),
        to("2025-02-01 01:00"),
        invoice(status="open"),
        update(collection_method="charge_automatically"),
        sub(days_until_due=None),
        to("2025-03-01"),
        invoice(collection_method="charge_automatically", due_date=None),
    ),
    row(
        "send_invoice needs days",
        subscribe("M31"),
        update(collection_method="send_invoice"),
        refused("parameter_missing", "days_until_due"),
    ),
    row(
        "an outage of two months bills what would have been billed",
        subscribe("M31"),
        to("2025-03-10"),
        invoice(1, created="2025-02-01", paid_at="2025-02-01 01:00"),
        invoice(2, created="2025-03-01", paid_at="2025-03-01 01:00"),
    ),
]

STUBS = [
    row(
        "S92: the way to the anchor is charged to the second, in parts of the month that ends there",
        subscribe("M31", billing_cycle_anchor="2025-02-01"),
        period("2025-01-16", "2025-02-01"),
        sub(billing_cycle_anchor="2025-02-01"),
        invoice(status="paid", lines=[(1600, "2025-01-16", "2025-02-01")]),
        to("2025-02-01"),
        period("2025-02-01", "2025-03-01"),
        invoice(lines=[(3100, "2025-02-01", "2025-03-01")]),
        start="2025-01-16",
    ),
    row(
        "always_invoice is the same on creation",
        subscribe("M31", billing_cycle_anchor="2025-02-01", proration_behavior="always_invoice"),
        totals(1600),
        start="2025-01-16",
    ),
    row(
        "S92: without prorations it is free, and there is no invoice before the anchor",
        subscribe("M31", billing_cycle_anchor="2025-02-01", proration_behavior="none"),
        sub(status="active", latest_invoice=None),
        period("2025-01-16", "2025-02-01"),
        invoices(),
        events("""
            customer.updated was=currency
            customer.subscription.created status=active
        """),
        to("2025-02-01 01:00"),
        totals(3100),
        charges(1),
        start="2025-01-16",
    ),
    row(
        "free days are not prorated by a change",
        subscribe("M31", billing_cycle_anchor="2025-02-01", proration_behavior="none"),
        update(quantity=3),
        pending(),
        to("2025-02-01"),
        totals(9300),
        start="2025-01-16",
    ),
    row(
        "later periods are",
        subscribe("M31", billing_cycle_anchor="2025-02-01", proration_behavior="none"),
        to("2025-02-15"),
        update(quantity=2),
        pending(-1550, 3100),
        start="2025-01-16",
    ),
    row(
        "one-off prices of free days are charged at once",
        subscribe("M31", billing_cycle_anchor="2025-02-01", proration_behavior="none", add_invoice_items=["SETUP"]),
        invoice(status="paid", lines=[2000]),
        start="2025-01-16",
    ),
    row(
        "an anchor a whole period away is no way at all",
        subscribe("M31", billing_cycle_anchor="2025-02-01"),
        totals(3100),
        period("2025-01-01", "2025-02-01"),
    ),
    row(
        "a change on the way is prorated in parts of the whole month",
        subscribe("M31", billing_cycle_anchor="2025-02-01"),
        to("2025-01-25"),
        update(quantity=2),
        pending(-700, 1400),
        start="2025-01-16",
    ),
    row(
        "an anchor in the past",
        subscribe("M31", billing_cycle_anchor="2024-12-31"),
        refused("time_out_of_range", "billing_cycle_anchor"),
    ),
    row(
        "an anchor beyond the next natural date",
        subscribe("M31", billing_cycle_anchor="2025-02-01 00:00:01"),
        refused("time_out_of_range", "billing_cycle_anchor"),
    ),
    row(
        "a day of the month: the last of a short one",
        subscribe("M31", billing_cycle_anchor_config={"day_of_month": 31}),
        period("2025-02-10", "2025-02-28"),
        invoice(lines=[(1993, "2025-02-10", "2025-02-28")]),
        to("2025-02-28"),
        period("2025-02-28", "2025-03-31"),
        start="2025-02-10",
    ),
    row(
        "a day of the month and a time of day",
        subscribe("M31", billing_cycle_anchor_config={"day_of_month": 20, "hour": 12, "minute": 30, "second": 15}),
        period("2025-02-10 08:00", "2025-02-20 12:30:15"),
        start="2025-02-10 08:00",
    ),
    row(
        "the time of day is that of the creation otherwise",
        subscribe("M31", billing_cycle_anchor_config={"day_of_month": 20}),
        period("2025-02-10 08:00", "2025-02-20 08:00"),
        start="2025-02-10 08:00",
    ),
    row(
        "every three months with July: from February 10 the cycle begins in April",
        subscribe("Q90", billing_cycle_anchor_config={"day_of_month": 1, "month": 7}),
        period("2025-02-10", "2025-04-01"),
        to("2025-04-01"),
        period("2025-04-01", "2025-07-01"),
        start="2025-02-10",
    ),
    row(
        "a day of the month means nothing to weeks",
        subscribe("W7", billing_cycle_anchor_config={"day_of_month": 1}),
        refused("parameter_invalid", "billing_cycle_anchor_config"),
    ),
]

MIDDLE = (subscribe("M31"), to("2025-01-11"), mark())
"""3100 for January, ten days gone: 2100 unused."""

RESETS = [
    row(
        "anchor now: the unused time is given back, a full period charged at once",
        MIDDLE,
        update(billing_cycle_anchor_now=True),
        sub(billing_cycle_anchor="2025-01-11", status="active"),
        period("2025-01-11", "2025-02-11"),
        invoice(status="paid", lines=[(-2100, "2025-01-11", "2025-02-01"), (3100, "2025-01-11", "2025-02-11")]),
        events("""
            invoiceitem.created amount=-2100
            customer.subscription.updated was.billing_cycle_anchor=2025-01-01
            invoice.created billing_reason=subscription_update
            invoice.finalized
            payment_intent.created
            invoiceitem.updated
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
        to("2025-02-11"),
        invoice(total=3100),
    ),
    row(
        "anchor now without prorations: the full period, nothing given back",
        MIDDLE,
        update(billing_cycle_anchor_now=True, proration_behavior="none"),
        invoice(lines=[3100]),
        period("2025-01-11", "2025-02-11"),
    ),
    row(
        "another interval: the same",
        MIDDLE,
        update(price="Y120"),
        sub(interval="year", billing_cycle_anchor="2025-01-11"),
        period("2025-01-11", "2026-01-11"),
        invoice(status="paid", lines=[-2100, 12000], total=9900),
    ),
    row(
        "another interval without prorations: the new period in full",
        MIDDLE,
        update(price="Y120", proration_behavior="none"),
        invoice(status="paid", lines=[12000]),
    ),
    row(
        "another interval count",
        MIDDLE,
        update(price="Q90"),
        period("2025-01-11", "2025-04-11"),
        invoice(lines=[-2100, 9000]),
    ),
    row(
        "a longer one to a shorter one: credit is left",
        subscribe("Y120"),
        to("2025-01-11"),
        update(price="M31"),
        invoice(status="paid", lines=[-11671, 3100], amount_due=0),
        balance(-8571),
        to("2025-02-11 01:00"),
        invoice(status="paid", amount_due=0, starting_balance=-8571, ending_balance=-5471),
    ),
    row(
        "from free to paid: a new cycle, charged at once",
        subscribe("M_FREE"),
        to("2025-01-11"),
        update(price="M31"),
        sub(billing_cycle_anchor="2025-01-11"),
        period("2025-01-11", "2025-02-11"),
        invoice(status="paid", total=3100),
    ),
    row(
        "from paid to free keeps the dates",
        MIDDLE,
        update(price="M_FREE"),
        period("2025-01-01", "2025-02-01"),
        pending(-2100, 0),
    ),
    row(
        "from none to some of a paid price: no reset, no invoice",
        subscribe(("M31", 0)),
        to("2025-01-11"),
        update(quantity=2),
        period("2025-01-01", "2025-02-01"),
        pending(0, 4200),
        invoices("paid"),
    ),
    row(
        "declined: the new cycle holds, past due",
        MIDDLE,
        attach(BAD),
        update(billing_cycle_anchor_now=True),
        sub(status="past_due"),
        period("2025-01-11", "2025-02-11"),
        invoice(status="open", next_payment_attempt="2025-01-14"),
    ),
    row(
        "an unpaid subscription: its invoice is a draft",
        subscribe("M31"),
        attach(BAD),
        to("2025-02-17"),
        update(billing_cycle_anchor_now=True),
        sub(status="unpaid"),
        invoice(status="draft", auto_advance=False),
        settings=Settings(subscription_final_action="unpaid"),
    ),
    row(
        "one-off prices ride on the invoice of a reset",
        MIDDLE,
        update(billing_cycle_anchor_now=True, add_invoice_items=["SETUP"]),
        invoice(lines=[-2100, 3100, 2000]),
    ),
    row(
        "metered items are billed up to the reset",
        subscribe("M_METERED"),
        to("2025-01-11"),
        update(billing_cycle_anchor_now=True),
        invoice(lines=[(0, "2025-01-01", "2025-01-11")]),
    ),
    row(
        "not during a trial",
        subscribe("M31", trial_period_days=14),
        update(billing_cycle_anchor_now=True),
        refused("subscription_state_invalid"),
    ),
    row(
        "not together with the end of a trial",
        subscribe("M31"),
        update(billing_cycle_anchor_now=True, trial_end="2025-03-01"),
        refused("parameters_exclusive"),
    ),
]

BACKDATED: Fields = {"backdate_start_date": "2025-01-01"}

BACKDATING = [
    row(
        "the time since then is on the first invoice, and the anchor is now",
        subscribe("M31", **BACKDATED),
        sub(start_date="2025-01-01", billing_cycle_anchor="2025-03-15", created="2025-03-15"),
        period("2025-03-15", "2025-04-15"),
        invoice(lines=[(3100, "2025-03-15", "2025-04-15"), (1400 + 2 * 3100, "2025-01-01", "2025-03-15")]),
        start="2025-03-15",
    ),
    row(
        "without prorations it is left out",
        subscribe("M31", **BACKDATED, proration_behavior="none"),
        sub(start_date="2025-01-01"),
        invoice(lines=[3100]),
        start="2025-03-15",
    ),
    row(
        "with an anchor",
        subscribe("M31", **BACKDATED, billing_cycle_anchor="2025-04-01"),
        period("2025-03-15", "2025-04-01"),
        invoice(lines=[(1700, "2025-03-15", "2025-04-01"), (7600, "2025-01-01", "2025-03-15")]),
        start="2025-03-15",
    ),
    row(
        "every item by itself",
        subscribe("M31", ("M10", 2), **BACKDATED),
        invoice(lines=[2000, 3100, 2903, 4500]),
        start="2025-02-15",
    ),
    row(
        "in the future",
        subscribe("M31", backdate_start_date="2025-04-01"),
        refused("time_out_of_range", "backdate_start_date"),
        start="2025-03-15",
    ),
    row(
        "not with a trial",
        subscribe("M31", **BACKDATED, trial_period_days=7),
        refused("parameters_exclusive", "trial_period_days"),
        start="2025-03-15",
    ),
]

ITEMS = [
    row(
        "one-off prices of an update ride on the next invoice",
        MIDDLE,
        update(add_invoice_items=[("SETUP", 2)]),
        pending(4000),
        to("2025-02-01"),
        invoice(lines=[4000, 3100]),
    ),
    row(
        "with an invoice at once they are on it",
        MIDDLE,
        update(quantity=2, proration_behavior="always_invoice", add_invoice_items=["SETUP"]),
        invoice(status="paid", lines=[4200, -2100, 2000]),
    ),
    row(
        "pending items of the subscription and of none are swept, newest first",
        subscribe("M31"),
        item(100),
        item(200, of_subscription=True),
        item(300),
        to("2025-02-01"),
        invoice(lines=[300, 200, 100, 3100]),
        pending(),
    ),
    row(
        "pending items are invoiced in an interval of their own",
        subscribe("M31", pending_invoice_item_interval=("week", 1)),
        sub(next_pending_invoice_item_invoice="2025-01-08"),
        item(900, of_subscription=True),
        mark(),
        to("2025-01-08"),
        sub(next_pending_invoice_item_invoice="2025-01-15"),
        invoice(status="draft", lines=[900], billing_reason="automatic_pending_invoice_item_invoice"),
        events("""
            customer.subscription.updated was=latest_invoice,next_pending_invoice_item_invoice
            invoice.created
            invoiceitem.updated
        """),
        to("2025-01-08 01:00"),
        invoice(status="paid"),
        mark(),
        to("2025-01-15"),
        events("customer.subscription.updated was=next_pending_invoice_item_invoice"),
        invoices("paid", "paid"),
    ),
    row(
        "the interval is set later, and unset",
        subscribe("M31"),
        to("2025-01-05"),
        update(pending_invoice_item_interval=("day", 2)),
        sub(next_pending_invoice_item_invoice="2025-01-07"),
        update(pending_invoice_item_interval=None),
        sub(next_pending_invoice_item_invoice=None),
        item(900, of_subscription=True),
        to("2025-01-20"),
        invoices("paid"),
    ),
]


@pytest.mark.parametrize("row", ANCHORS)
def test_anchors(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", STUBS)
def test_ways_to_the_anchor(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", RESETS)
def test_new_cycles(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", BACKDATING + ITEMS)
def test_backdating_and_pending_items(row: Row) -> None:
    row.play()
