"""Ends of subscriptions at a moment: periods cut, and what is given back (semantics 4, cancel_at; decision 11)."""

from __future__ import annotations

import pytest

from tests.domain.rules.sights import (
    balance,
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
from tests.domain.rules.steps import Fields, Row, mark, row, subscribe, to, update

HALF_YEAR: Fields = {"cancel_at": "2024-07-01"}


Y2024 = "2024-01-01"


AT_A_MOMENT = [
    row(
        "decision 11: exact seconds, 12000 x 182 / 366",
        subscribe("Y120", **HALF_YEAR),
        invoice(status="paid", lines=[(5967, "2024-01-01", "2024-07-01")]),
        period("2024-01-01", "2024-07-01"),
        sub(cancel_at="2024-07-01", canceled_at="2024-01-01"),
        to("2024-07-01"),
        sub(status="canceled", ended_at="2024-07-01", canceled_at="2024-01-01"),
        invoices("paid"),
        start=Y2024,
    ),
    row(
        "taken back: the rest of the year is asked for",
        subscribe("Y120", **HALF_YEAR),
        to("2024-03-01"),
        mark(),
        update(cancel_at=None),
        period("2024-01-01", "2025-01-01"),
        sub(cancel_at=None, canceled_at=None),
        pending(12000 - 5967),
        events("""
            invoiceitem.created amount=6033
            customer.subscription.updated was=cancel_at,canceled_at,cancellation_details,current_period_end
        """),
        to("2025-01-01"),
        sub(status="active"),
        invoice(lines=[6033, 12000]),
        start=Y2024,
    ),
    row(
        "taken back, invoiced at once",
        subscribe("Y120", **HALF_YEAR),
        to("2024-03-01"),
        update(cancel_at=None, proration_behavior="always_invoice"),
        invoice(status="paid", total=6033),
        start=Y2024,
    ),
    row(
        "taken back, without prorations",
        subscribe("Y120", **HALF_YEAR),
        to("2024-03-01"),
        update(cancel_at=None, proration_behavior="none"),
        period("2024-01-01", "2025-01-01"),
        pending(),
        start=Y2024,
    ),
    row(
        "set later in the period: the time after it is given back, at the end to the balance",
        subscribe("Y120"),
        to("2024-03-01"),
        update(cancel_at="2024-07-01"),
        period("2024-01-01", "2024-07-01"),
        pending(-6033),
        to("2024-07-01"),
        sub(status="canceled"),
        invoice(status="paid", total=-6033),
        balance(-6033),
        start=Y2024,
    ),
    row(
        "set later, invoiced at once",
        subscribe("Y120"),
        to("2024-03-01"),
        update(cancel_at="2024-07-01", proration_behavior="always_invoice"),
        balance(-6033),
        to("2024-07-01"),
        sub(status="canceled"),
        totals(12000, -6033),
        start=Y2024,
    ),
    row(
        "set later, without prorations",
        subscribe("Y120"),
        to("2024-03-01"),
        update(cancel_at="2024-07-01", proration_behavior="none"),
        pending(),
        to("2024-07-01"),
        sub(status="canceled"),
        totals(12000),
        start=Y2024,
    ),
    row(
        "moved to an earlier moment",
        subscribe("Y120", **HALF_YEAR),
        update(cancel_at="2024-04-01"),
        period("2024-01-01", "2024-04-01"),
        pending(-2984),
        start=Y2024,
    ),
    row(
        "moved to a later moment",
        subscribe("Y120", **HALF_YEAR),
        update(cancel_at="2024-10-01"),
        period("2024-01-01", "2024-10-01"),
        pending(3016),
        start=Y2024,
    ),
    row(
        "in a later period: that one is cut and prorated when it starts, also without prorations",
        subscribe("M31"),
        update(cancel_at="2025-03-16", proration_behavior="none"),
        period("2025-01-01", "2025-02-01"),
        pending(),
        to("2025-03-01"),
        period("2025-03-01", "2025-03-16"),
        invoice(lines=[(1500, "2025-03-01", "2025-03-16")]),
        to("2025-04-01"),
        sub(status="canceled", ended_at="2025-03-16"),
        totals(3100, 3100, 1500),
    ),
    row(
        "in a later period of a subscription that began without prorations",
        subscribe("M31", proration_behavior="none"),
        update(cancel_at="2025-03-16"),
        to("2025-03-02"),
        invoice(total=1500),
        update(quantity=2),
        pending(-1400, 2800),
    ),
    row(
        "exactly at the end of the period: not renewed",
        subscribe("M31"),
        update(cancel_at="2025-02-01"),
        pending(),
        to("2025-02-01"),
        sub(status="canceled"),
        invoices("paid"),
    ),
    row(
        "a changed quantity is prorated up to it",
        subscribe("Y120", **HALF_YEAR),
        to("2024-04-01"),
        update(quantity=2),
        pending(-2984, 5967),
        start=Y2024,
    ),
    row(
        "on creation, without prorations: the price is asked for in full",
        subscribe("Y120", **HALF_YEAR, proration_behavior="none"),
        period("2024-01-01", "2024-07-01"),
        totals(12000),
        start=Y2024,
    ),
    row(
        "within the trial: ended then, without an invoice",
        subscribe("M31", trial_period_days=14, cancel_at="2025-01-08"),
        period("2025-01-01", "2025-01-08"),
        to("2025-01-08"),
        sub(status="canceled", ended_at="2025-01-08"),
        invoices("paid"),
    ),
    row(
        "shortly after the trial: the first period is cut",
        subscribe("M31", trial_period_days=14, cancel_at="2025-01-20"),
        to("2025-01-15"),
        invoice(lines=[(500, "2025-01-15", "2025-01-20")]),
        to("2025-02-01"),
        sub(status="canceled", ended_at="2025-01-20"),
    ),
    row(
        "in the past, on creation", subscribe("M31", cancel_at="2024-12-31"), refused("time_out_of_range", "cancel_at")
    ),
    row(
        "in the past, later",
        subscribe("M31"),
        update(cancel_at="2024-12-31"),
        refused("time_out_of_range", "cancel_at"),
    ),
    row(
        "both at a moment and at the end of the period",
        subscribe("M31"),
        update(cancel_at="2025-03-01", cancel_at_period_end=True),
        refused("parameters_exclusive"),
    ),
    row(
        "one replaces the other",
        subscribe("M31"),
        update(cancel_at="2025-03-16"),
        update(cancel_at_period_end=True),
        sub(cancel_at=None, cancel_at_period_end=True),
        update(cancel_at="2025-03-16"),
        sub(cancel_at="2025-03-16", cancel_at_period_end=False),
    ),
    row(
        "exactly at the end of the period: no renewal is announced",
        subscribe("M31"),
        update(cancel_at="2025-02-01"),
        mark(),
        to("2025-01-31"),
        no_events(),
    ),
    row("now", subscribe("M31"), update(cancel_at="2025-01-01"), refused("time_out_of_range", "cancel_at")),
]


@pytest.mark.parametrize("row", AT_A_MOMENT)
def test_canceled_at_a_moment(row: Row) -> None:
    row.play()
