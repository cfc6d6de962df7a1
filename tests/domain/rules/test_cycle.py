"""The billing cycle: anchors, ways to the anchor, resets, backdating (semantics 4; decision 10)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.sights import (
    charges,
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
from tests.domain.rules.steps import Row, item, mark, pay, row, subscribe, to, update

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
        "a week is announced as it begins, once, whatever is changed then",
        subscribe("W7"),
        mark(),
        update(metadata={"a": "b"}),
        to("2025-01-01 00:00:01"),
        update(metadata={"a": "c"}),
        to("2025-01-08"),
        update(metadata={"a": "d"}),
        to("2025-01-14"),
        events_of("invoice.upcoming", "invoice.upcoming invoice.upcoming"),
    ),
    row(
        "a first week that is paid for later is announced then",
        subscribe("W7", payment_behavior="default_incomplete"),
        to("2025-01-01 10:00"),
        pay(),
        mark(),
        to("2025-01-07"),
        events("invoice.upcoming @2025-01-01T10:00 period_end=2025-01-08"),
    ),
    row(
        "days, too, though the notice is longer",
        subscribe("D_METERED"),
        mark(),
        to("2025-01-03"),
        events_of("invoice.upcoming", "invoice.upcoming invoice.upcoming invoice.upcoming"),
    ),
    row(
        "a week with a shorter notice is not",
        subscribe("W7"),
        mark(),
        to("2025-01-05"),
        events("invoice.upcoming @2025-01-05"),
        settings=Settings(upcoming_renewal_days=3),
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
        invoice(status="paid", lines=[(1600, "2025-01-16", "2025-02-01")], lines__0__proration=True),
        to("2025-02-01"),
        period("2025-02-01", "2025-03-01"),
        invoice(lines=[(3100, "2025-02-01", "2025-03-01")], lines__0__proration=False),
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


@pytest.mark.parametrize("row", ANCHORS)
def test_anchors(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", STUBS)
def test_ways_to_the_anchor(row: Row) -> None:
    row.play()
