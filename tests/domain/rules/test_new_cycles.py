"""New cycles from now, backdated beginnings, and pending items (semantics 4, Other anchor resets)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.shop import BAD
from tests.domain.rules.sights import (
    balance,
    events,
    invoice,
    invoices,
    pending,
    period,
    refused,
    sub,
)
from tests.domain.rules.steps import Fields, Row, attach, item, mark, row, subscribe, to, update

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
            invoiceitem.updated
            invoice.finalized
            payment_intent.created
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
        "to metered items alone without prorations: nothing to bill yet, so no invoice",
        MIDDLE,
        mark(),
        update(price="D_METERED", proration_behavior="none"),
        period("2025-01-11", "2025-01-12"),
        events("customer.subscription.updated"),
        to("2025-01-12"),
        invoice(lines=[(0, "2025-01-11", "2025-01-12")]),
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
        "its periods are those of the anchor, not of today: three months in all, whatever today is",
        subscribe("M31", backdate_start_date="2024-11-15", billing_cycle_anchor="2025-02-15"),
        invoice(
            lines=[(1500, "2025-01-31", "2025-02-15"), (2 * 3100 + 1600, "2024-11-15", "2025-01-31")], total=3 * 3100
        ),
        start="2025-01-31",
    ),
    row(
        "rounded once, though it begins and ends within periods",
        subscribe("M10", backdate_start_date="2025-01-19", billing_cycle_anchor="2025-04-01"),
        invoice(lines=[581, 1839], total=2420),
        start="2025-03-14",
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


@pytest.mark.parametrize("row", RESETS)
def test_new_cycles(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", BACKDATING + ITEMS)
def test_backdating_and_pending_items(row: Row) -> None:
    row.play()
