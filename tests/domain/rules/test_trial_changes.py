"""Trials with an anchor, and changes of trials (seed S3, semantics 4)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import BAD, OK
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
from tests.domain.rules.steps import Row, attach, mark, row, subscribe, to, update

MARCH = "2025-03-01"


FORTNIGHT = (subscribe("M31", trial_period_days=14), mark())
"""A trial of 14 days from March 1 to 15."""


ANCHORED = [
    row(
        "S56: the curl of the seed",
        subscribe("M30", trial_end=1610403705, billing_cycle_anchor=1611008505),
        sub(current_period_end=1610403705, billing_cycle_anchor=1611008505),
        to("2021-01-11 22:21:45"),
        invoice(created=1610403705, status="draft", lines=[(677, 1610403705, 1611008505)]),
        sub(status="active", current_period_end=1611008505),
        to("2021-01-18 22:21:45"),
        invoice(created=1611008505, total=3000),
        to("2021-02-18 22:21:45"),
        invoice(created="2021-02-18 22:21:45", total=3000),
        totals(0, 677, 3000, 3000),
        start=1609798905,
    ),
    *(
        row(
            f"the prose of the seed: {price} from July 15, trial to July 22, anchor August 1",
            subscribe(price, trial_end="2024-07-22", billing_cycle_anchor="2024-08-01"),
            to("2024-09-01"),
            totals(0, stub, full, full),
            start="2024-07-15",
        )
        for price, stub, full in (("M31", 1000, 3100), ("M30", 968, 3000))
    ),
    row(
        "July 28, a trial of 7 days, monthly on the first: 28 of 31 days",
        subscribe("M31", trial_period_days=7, billing_cycle_anchor_config={"day_of_month": 1, "hour": 0}),
        to("2024-08-04"),
        period("2024-08-04", "2024-09-01"),
        invoice(total=2800),
        start="2024-07-28",
    ),
    row(
        "without prorations the days up to the anchor are free",
        subscribe("M31", trial_end="2024-07-22", billing_cycle_anchor="2024-08-01", proration_behavior="none"),
        to("2024-07-22"),
        sub(status="active"),
        period("2024-07-22", "2024-08-01"),
        invoices("paid"),
        to("2024-07-25"),
        update(quantity=2),
        pending(),
        to("2024-08-01"),
        totals(0, 6200),
        start="2024-07-15",
    ),
    row(
        "an anchor before the end of the trial",
        subscribe("M31", trial_end="2024-07-22", billing_cycle_anchor="2024-07-20"),
        refused("time_out_of_range", "billing_cycle_anchor"),
        start="2024-07-15",
    ),
    row(
        "an anchor more than a period after the end of the trial",
        subscribe("M31", trial_end="2024-07-22", billing_cycle_anchor="2024-08-23"),
        refused("time_out_of_range", "billing_cycle_anchor"),
        start="2024-07-15",
    ),
    row(
        "an anchor at the end of the trial",
        subscribe("M31", trial_end="2024-07-22", billing_cycle_anchor="2024-07-22"),
        to("2024-07-22"),
        totals(0, 3100),
        start="2024-07-15",
    ),
]


CHANGES = [
    row(
        "S72: a trial given to a running subscription moves the anchor; without prorations nothing is given back",
        subscribe("M31"),
        to("2025-07-15"),
        mark(),
        update(trial_end="2025-08-01", proration_behavior="none"),
        sub(status="trialing", trial_start="2025-07-15", trial_end="2025-08-01", billing_cycle_anchor="2025-08-01"),
        period("2025-07-15", "2025-08-01"),
        invoice(status="paid", total=0, created="2025-07-15", billing_reason="subscription_update"),
        events("""
            customer.subscription.updated was.status=active
            invoice.created
            invoice.finalized
            invoice.paid
            invoice.payment_succeeded
        """),
        mark(),
        to("2025-07-28"),
        no_events(),
        to("2025-08-01"),
        sub(status="active"),
        period("2025-08-01", "2025-09-01"),
        invoice(created="2025-08-01", total=3100),
        start="2025-06-23",
    ),
    row(
        "with prorations the unused time is given back at once",
        subscribe("M31"),
        to("2025-01-11"),
        update(trial_end="2025-02-10"),
        sub(status="trialing"),
        invoice(status="paid", lines=[-2100, 0]),
        balance(-2100),
        to("2025-02-10 01:00"),
        invoice(status="paid", total=3100, amount_due=1000),
        sub(status="active"),
    ),
    row(
        "S68: a second trial keeps the first trial's start, in classic mode",
        subscribe("M31", trial_period_days=14),
        to("2025-02-20"),
        update(trial_end="2025-08-01"),
        sub(status="trialing", trial_start="2025-01-01", trial_end="2025-08-01"),
    ),
    row(
        "S68: and begins anew in flexible mode",
        subscribe("M31", trial_period_days=14, billing_mode="flexible"),
        to("2025-02-20"),
        update(trial_end="2025-08-01"),
        sub(trial_start="2025-02-20"),
    ),
    row(
        "extended while it runs: no invoice",
        FORTNIGHT,
        to("2025-03-10"),
        update(trial_end="2025-04-01"),
        period("2025-03-01", "2025-04-01"),
        invoices("paid"),
        to("2025-04-01"),
        totals(0, 3100),
        start=MARCH,
    ),
    row(
        "shortened while it runs",
        FORTNIGHT,
        update(trial_end="2025-03-08"),
        to("2025-03-08"),
        sub(status="active"),
        period("2025-03-08", "2025-04-08"),
        start=MARCH,
    ),
    row(
        "price and quantity during a trial: no prorations",
        FORTNIGHT,
        update(price="M20", quantity=3),
        update(quantity=4, proration_behavior="always_invoice"),
        pending(),
        invoices("paid"),
        to("2025-03-15"),
        totals(0, 8000),
        start=MARCH,
    ),
    row(
        "another interval during a trial: no reset",
        FORTNIGHT,
        update(price="Y120"),
        sub(status="trialing"),
        period("2025-03-01", "2025-03-15"),
        to("2025-03-15"),
        period("2025-03-15", "2026-03-15"),
        totals(0, 12000),
        start=MARCH,
    ),
    row(
        "a past due subscription given a trial",
        subscribe("M31"),
        attach(BAD),
        to("2025-02-02"),
        update(trial_end="2025-03-01", proration_behavior="none"),
        sub(status="trialing"),
        attach(OK),
        to("2025-03-01 01:00"),
        sub(status="active"),
    ),
    row(
        "the trial that the new price says",
        subscribe("M10"),
        to("2025-01-11"),
        update(price="M31_TRIAL14", trial_from_plan=True, proration_behavior="none"),
        sub(status="trialing", trial_end="2025-01-25", items__0__price="M31_TRIAL14"),
        to("2025-01-25"),
        totals(1000, 0, 3100),
    ),
    row(
        "trial_from_plan of a price that says none",
        subscribe("M10"),
        update(price="M31", trial_from_plan=True, proration_behavior="none"),
        sub(status="active", trial_end=None),
    ),
    row(
        "a trial in the past",
        subscribe("M31"),
        update(trial_end="2024-12-31"),
        refused("time_out_of_range", "trial_end"),
    ),
    row(
        "a trial of more than 730 days",
        subscribe("M31"),
        update(trial_end="2027-01-02"),
        refused("time_out_of_range", "trial_end"),
    ),
    row(
        "a trial longer than its cancellation",
        subscribe("M31"),
        update(cancel_at="2025-01-20", proration_behavior="none"),
        update(trial_end="2025-03-01", proration_behavior="none"),
        period("2025-01-01", "2025-01-20"),
        to("2025-01-20"),
        sub(status="canceled"),
    ),
]


@pytest.mark.parametrize("row", ANCHORED + CHANGES)
def test_trials_and_anchors(row: Row) -> None:
    row.play()
