"""Paused subscriptions, and how they are resumed (semantics 4, Resume; decision 2)."""

from __future__ import annotations

import pytest

from billing_server.domain.subscription import PauseBehavior
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
    period,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import (
    Row,
    adjust_balance,
    attach,
    cancel,
    give_up,
    item,
    mark,
    pause,
    pay,
    resume,
    row,
    subscribe,
    to,
    update,
    void,
)

PAUSED = (
    subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
    to("2025-04-10 12:00"),
    mark(),
)
"""Paused at the end of its trial on March 15; now it is April 10, noon."""
MARCH = "2025-03-01"

BORN_PAUSED: tuple[tuple[PauseBehavior, str, str], ...] = (
    ("void", "void", "invoice.voided"),
    ("keep_as_draft", "draft", ""),
    ("mark_uncollectible", "uncollectible", "invoice.marked_uncollectible"),
)
"""What becomes of an invoice, and the event that tells it beside its creation."""

NOW = [
    row(
        "S62: resumed now: a full period from now, active once it is paid",
        PAUSED,
        attach(OK),
        mark(),
        resume(),
        sub(status="paused", resumption_invoice="set", expires_at="2025-04-11 11:00"),
        period("2025-03-01", "2025-03-15"),
        invoice(status="open", total=3100, auto_advance=False, lines=[(3100, 1744286400, "2025-05-10 12:00")]),
        charges(0),
        events("""
            invoice.created status=draft
            invoice.finalized status=open
            payment_intent.created
            customer.subscription.updated was=expires_at,latest_invoice
        """),
        pay(),
        sub(status="active", billing_cycle_anchor=1744286400, expires_at=None),
        period("2025-04-10 12:00", "2025-05-10 12:00"),
        events("""
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was.status=paused status=active
            customer.subscription.resumed
        """),
        to("2025-05-10 13:00"),
        totals(0, 3100, 3100),
        card=None,
        start=MARCH,
    ),
    row(
        "paid some hours later: the period is the one that was invoiced",
        PAUSED,
        resume(),
        to("2025-04-11 10:00"),
        attach(OK),
        pay(),
        period("2025-04-10 12:00", "2025-05-10 12:00"),
        card=None,
        start=MARCH,
    ),
    row(
        "given up: active",
        PAUSED,
        resume(),
        give_up(),
        sub(status="active"),
        period("2025-04-10 12:00", "2025-05-10 12:00"),
        card=None,
        start=MARCH,
    ),
    row(
        "declined: still paused, not retried, not delinquent (decision 2)",
        PAUSED,
        attach(BAD),
        resume(),
        pay(),
        sub(status="paused"),
        invoice(status="open", attempt_count=1, next_payment_attempt=None),
        customer(delinquent=False),
        card=None,
        start=MARCH,
    ),
    row(
        "not paid within 23 hours: void, still paused, may be resumed again",
        PAUSED,
        resume(),
        mark(),
        to("2025-04-11 10:59:59"),
        no_events(),
        to("2025-04-11 11:00"),
        sub(status="paused", resumption_invoice=None, expires_at=None, billing_cycle_anchor="2025-03-15"),
        period("2025-03-01", "2025-03-15"),
        invoice(status="void"),
        events("""
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was=expires_at
        """),
        to("2025-05-01"),
        resume(),
        attach(OK),
        pay(),
        sub(status="active"),
        period("2025-05-01", "2025-06-01"),
        card=None,
        start=MARCH,
    ),
    row(
        "its invoice voided: still paused",
        PAUSED,
        resume(),
        mark(),
        void(),
        sub(status="paused", resumption_invoice=None, expires_at=None),
        events("""
            invoice.updated
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was=expires_at
        """),
        to("2025-05-01"),
        no_events(),
        card=None,
        start=MARCH,
    ),
    row(
        "called again: the first invoice is replaced",
        PAUSED,
        resume(),
        to("2025-04-10 18:00"),
        resume(),
        invoices("paid", "void", "open"),
        sub(expires_at="2025-04-11 17:00"),
        attach(OK),
        pay(),
        period("2025-04-10 18:00", "2025-05-10 18:00"),
        card=None,
        start=MARCH,
    ),
    row(
        "nothing due: active at once",
        adjust_balance(-5000, currency="usd"),
        PAUSED,
        resume(),
        sub(status="active"),
        period("2025-04-10 12:00", "2025-05-10 12:00"),
        balance(-1900),
        events("""
            invoice.created
            invoice.finalized status=paid
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was.status=paused
            customer.subscription.resumed
            customer.updated was=balance
        """),
        card=None,
        start=MARCH,
    ),
    row(
        "pending items are on its invoice",
        PAUSED,
        item(500, of_subscription=True),
        resume(),
        invoice(lines=[500, 3100]),
        card=None,
        start=MARCH,
    ),
    row(
        "canceled while its invoice is open",
        PAUSED,
        resume(),
        cancel(),
        sub(status="canceled", expires_at=None, resumption_invoice=None),
        to("2025-05-01"),
        invoice(status="open"),
        card=None,
        start=MARCH,
    ),
    row(
        "the next renewal is announced",
        PAUSED,
        resume(),
        attach(OK),
        pay(),
        mark(),
        to("2025-05-03 12:00"),
        events("invoice.upcoming"),
        card=None,
        start=MARCH,
    ),
    row(
        "invoices of pending items go on from now",
        subscribe(
            "M31", trial_period_days=14, missing_payment_method="pause", pending_invoice_item_interval=("week", 1)
        ),
        to("2025-04-10 12:00"),
        resume(),
        attach(OK),
        pay(),
        sub(next_pending_invoice_item_invoice="2025-04-12"),
        card=None,
        start=MARCH,
    ),
]

UNCHANGED = [
    row(
        "unchanged, create_prorations: active at once, the rest of the old cycle's month waits for the next invoice",
        PAUSED,
        resume(billing_cycle_anchor="unchanged"),
        sub(status="active", billing_cycle_anchor="2025-03-15"),
        period("2025-03-15", "2025-04-15"),
        pending(450),
        invoices("paid"),
        events("""
            invoiceitem.created amount=450
            customer.subscription.updated was=current_period_end,current_period_start,status
            customer.subscription.resumed
        """),
        to("2025-04-15"),
        invoice(lines=[450, 3100]),
        card=None,
        start=MARCH,
    ),
    row(
        "unchanged, always_invoice: invoiced, active once it is paid",
        PAUSED,
        resume(billing_cycle_anchor="unchanged", proration_behavior="always_invoice"),
        sub(status="paused"),
        invoice(status="open", lines=[(450, "2025-04-10 12:00", "2025-04-15")]),
        attach(OK),
        pay(),
        sub(status="active", billing_cycle_anchor="2025-03-15"),
        period("2025-03-15", "2025-04-15"),
        card=None,
        start=MARCH,
    ),
    row(
        "unchanged, none: active at once, the rest is free",
        PAUSED,
        resume(billing_cycle_anchor="unchanged", proration_behavior="none"),
        sub(status="active"),
        period("2025-03-15", "2025-04-15"),
        pending(),
        to("2025-04-15"),
        totals(0, 3100),
        card=None,
        start=MARCH,
    ),
    row(
        "unchanged, prorated from a moment in the past",
        PAUSED,
        resume(billing_cycle_anchor="unchanged", proration_date="2025-04-01"),
        pending(1400),
        card=None,
        start=MARCH,
    ),
    row(
        "unchanged, prorated from before the period: the whole of it",
        PAUSED,
        resume(billing_cycle_anchor="unchanged", proration_date="2025-03-02"),
        pending(3100),
        card=None,
        start=MARCH,
    ),
    row(
        "a proration date in the future",
        PAUSED,
        resume(billing_cycle_anchor="unchanged", proration_date="2025-04-11"),
        refused("time_out_of_range", "proration_date"),
        card=None,
        start=MARCH,
    ),
    row(
        "unchanged after a resumption from now that was never paid: still the old anchor",
        PAUSED,
        resume(),
        to("2025-04-12"),
        resume(billing_cycle_anchor="unchanged", proration_behavior="none"),
        sub(status="active", billing_cycle_anchor="2025-03-15"),
        period("2025-03-15", "2025-04-15"),
        card=None,
        start=MARCH,
    ),
    row(
        "unchanged, several periods later",
        PAUSED,
        to("2025-07-01"),
        resume(billing_cycle_anchor="unchanged", proration_behavior="none"),
        period("2025-06-15", "2025-07-15"),
        card=None,
        start=MARCH,
    ),
    *(
        row(
            f"while collection is paused ({behavior}), {anchor}: active at once, nobody is asked to pay",
            PAUSED,
            pause(behavior),
            to("2025-04-10 12:00"),
            attach(OK),
            mark(),
            resume(billing_cycle_anchor=anchor, proration_behavior="always_invoice"),
            sub(status="active", latest_invoice="set"),
            invoice(status=status, total=total, auto_advance=False),
            events(f"""
                customer.subscription.updated was.status=paused
                customer.subscription.resumed
                invoice.created
                {told}
            """),
            to("2025-04-12"),
            sub(status="active"),
            charges(0),
            card=None,
            start=MARCH,
        )
        for anchor, total in (("now", 3100), ("unchanged", 450))
        for behavior, status, told in BORN_PAUSED
    ),
]

WHILE_PAUSED = [
    row(
        "S66: a quantity may change, without prorations",
        PAUSED,
        update(quantity=5),
        sub(status="paused", items__0__quantity=5),
        pending(),
        update(quantity=6, proration_behavior="always_invoice"),
        pending(),
        invoices("paid"),
        resume(),
        invoice(total=6 * 3100),
        card=None,
        start=MARCH,
    ),
    row(
        "a price of another interval",
        PAUSED,
        update(price="Y120"),
        sub(status="paused", interval="year"),
        period("2025-03-01", "2025-03-15"),
        resume(),
        attach(OK),
        pay(),
        period("2025-04-10 12:00", "2026-04-10 12:00"),
        card=None,
        start=MARCH,
    ),
    row(
        "S66: trial_end", PAUSED, update(trial_end="2025-05-01"), refused("subscription_paused"), card=None, start=MARCH
    ),
    row("trial_end=now", PAUSED, update(trial_end_now=True), refused("subscription_paused"), card=None, start=MARCH),
    row(
        "the anchor",
        PAUSED,
        update(billing_cycle_anchor_now=True),
        refused("subscription_paused"),
        card=None,
        start=MARCH,
    ),
    row("canceled", PAUSED, cancel(), sub(status="canceled"), card=None, start=MARCH),
    row(
        "canceled at a moment",
        PAUSED,
        update(cancel_at="2025-05-01"),
        to("2025-05-01"),
        sub(status="canceled", ended_at="2025-05-01"),
        invoices("paid"),
        card=None,
        start=MARCH,
    ),
    row("an active one is not resumed", subscribe("M31"), resume(), refused("subscription_not_paused")),
    row(
        "one that is sent is not resumed",
        PAUSED,
        update(collection_method="send_invoice", days_until_due=5),
        resume(),
        refused("subscription_collection_method"),
        card=None,
        start=MARCH,
    ),
    row(
        "adding a card does not resume",
        PAUSED,
        attach(OK),
        to("2025-06-01"),
        sub(status="paused"),
        card=None,
        start=MARCH,
    ),
]


@pytest.mark.parametrize("row", NOW)
def test_resumed_now(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", UNCHANGED)
def test_resumed_in_the_old_cycle(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", WHILE_PAUSED)
def test_while_paused(row: Row) -> None:
    row.play()
