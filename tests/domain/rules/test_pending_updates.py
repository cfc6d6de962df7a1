"""Changes that wait for their payment (semantics 2.4)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import BAD, MUTE, OK
from tests.domain.rules.sights import (
    customer,
    events,
    invoice,
    invoices,
    pending,
    period,
    refunds,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import (
    Fields,
    Row,
    attach,
    cancel,
    give_up,
    item,
    mark,
    pay,
    resolve,
    row,
    subscribe,
    to,
    update,
    void,
)

APRIL = "2025-04-01"


MIDDLE = (subscribe("M10"), to("2025-04-16"), mark())
"""1000 a month since April 1, half of the month gone."""


NO_MONEY = (subscribe("M10"), to("2025-04-16"), attach(BAD), mark())


UPGRADE: Fields = {"price": "M20", "proration_behavior": "always_invoice"}


NOT_CARRIED: list[Fields] = [
    {"metadata": {"a": "1"}},
    {"description": "d"},
    {"cancel_at_period_end": True},
    {"default_payment_method": None},
    {"pause_collection": None},
    {"off_session": True},
]


PENDING = [
    row(
        "declined: the change waits for its payment",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        sub(status="active", items__0__price="M10", pending_update__expires_at="2025-04-16 23:00"),
        sub(pending_update__subscription_items__0__price="M20"),
        invoice(status="open", total=500, auto_advance=False, next_payment_attempt=None, attempt_count=1),
        customer(delinquent=False),
        pending(),
        events("""
            customer.subscription.updated was=latest_invoice,pending_update
            invoice.created
            invoice.finalized
            payment_intent.created
            payment_intent.payment_failed
            invoice.updated
            invoice.payment_failed
        """),
        start=APRIL,
    ),
    row(
        "paid: it takes effect",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        attach(OK),
        mark(),
        pay(),
        sub(status="active", items__0__price="M20", pending_update=None),
        period("2025-04-01", "2025-05-01"),
        events("""
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was=items,pending_update
            customer.subscription.pending_update_applied
        """),
        to("2025-05-01 01:00"),
        totals(1000, 500, 2000),
        start=APRIL,
    ),
    row(
        "paid at once: it takes effect at once",
        MIDDLE,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        sub(items__0__price="M20", pending_update=None),
        invoices("paid", "paid"),
        start=APRIL,
    ),
    row(
        "nobody pays within 23 hours: the invoice is void, the subscription as it was",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        mark(),
        to("2025-04-16 23:00"),
        sub(status="active", items__0__price="M10", pending_update=None),
        invoice(status="void"),
        events("""
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was=pending_update
            customer.subscription.pending_update_expired
        """),
        to("2025-05-01 00:00"),
        invoice(lines=[1000]),
        start=APRIL,
    ),
    row(
        "its invoice is voided",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        mark(),
        void(),
        sub(status="active", items__0__price="M10", pending_update=None),
        events("""
            invoice.updated
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was=pending_update
            customer.subscription.pending_update_expired
        """),
        start=APRIL,
    ),
    row(
        "its invoice is given up",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        give_up(),
        sub(status="active", items__0__price="M10", pending_update=None),
        invoice(status="uncollectible"),
        start=APRIL,
    ),
    row(
        "a second one replaces the first",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        to("2025-04-16 10:00"),
        mark(),
        update(price="M30", proration_behavior="always_invoice", payment_behavior="pending_if_incomplete"),
        sub(pending_update__expires_at="2025-04-17 09:00", pending_update__subscription_items__0__price="M30"),
        invoices("paid", "void", "open"),
        events("""
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was=pending_update
            customer.subscription.pending_update_expired
            customer.subscription.updated was=latest_invoice,pending_update
            invoice.created
            invoice.finalized
            payment_intent.created
            payment_intent.payment_failed
            invoice.updated
            invoice.payment_failed
        """),
        start=APRIL,
    ),
    row(
        "an ordinary change of the items replaces it too",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        update(quantity=2),
        sub(items__0__price="M10", items__0__quantity=2, pending_update=None),
        invoices("paid", "void"),
        start=APRIL,
    ),
    row(
        "metadata does not disturb it",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        update(metadata={"a": "1"}),
        sub(pending_update="set"),
        start=APRIL,
    ),
    row(
        "it ends with the period, and the renewal is of the subscription as it was",
        subscribe("M10"),
        to("2025-04-30 12:00"),
        attach(BAD),
        update(quantity=9, proration_behavior="always_invoice", payment_behavior="pending_if_incomplete"),
        sub(pending_update__expires_at="2025-05-01"),
        to("2025-05-01"),
        sub(pending_update=None, items__0__quantity=1),
        totals(1000, 133, 1000),
        invoices("paid", "void", "draft"),
        start=APRIL,
    ),
    row(
        "it ends with the trial",
        subscribe("M10", trial_end="2025-04-02"),
        to("2025-04-01 20:00"),
        attach(BAD),
        update(trial_end_now=True, payment_behavior="pending_if_incomplete"),
        sub(status="trialing", pending_update__expires_at="2025-04-02"),
        to("2025-04-02"),
        sub(status="active", pending_update=None),
        invoices("paid", "void", "draft"),
        start=APRIL,
    ),
    row(
        "an ended trial that waited for its payment",
        subscribe("M10", trial_end="2025-04-20"),
        to("2025-04-10"),
        attach(BAD),
        update(trial_end_now=True, payment_behavior="pending_if_incomplete"),
        sub(status="trialing", trial_end="2025-04-20"),
        to("2025-04-10 05:00"),
        attach(OK),
        mark(),
        pay(),
        events("""
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was.status=trialing
            customer.subscription.pending_update_applied
            customer.subscription.trial_will_end
        """),
        sub(status="active", trial_end="2025-04-10", billing_cycle_anchor="2025-04-10", pending_update=None),
        period("2025-04-10", "2025-05-10"),
        mark(),
        to("2025-05-03"),
        events("invoice.upcoming"),
        start=APRIL,
    ),
    row(
        "a new anchor that waited for its payment",
        NO_MONEY,
        update(billing_cycle_anchor_now=True, payment_behavior="pending_if_incomplete"),
        period("2025-04-01", "2025-05-01"),
        invoice(lines=[-500, 1000]),
        to("2025-04-16 06:00"),
        attach(OK),
        pay(),
        sub(billing_cycle_anchor="2025-04-16"),
        period("2025-04-16", "2025-05-16"),
        start=APRIL,
    ),
    row(
        "another interval that waited for its payment",
        NO_MONEY,
        update(price="Y120", payment_behavior="pending_if_incomplete"),
        sub(interval="month"),
        attach(OK),
        pay(),
        sub(interval="year", items__0__price="Y120"),
        period("2025-04-16", "2026-04-16"),
        start=APRIL,
    ),
    row(
        "nothing due: applied at once",
        NO_MONEY,
        update(price="M_FREE", proration_behavior="always_invoice", payment_behavior="pending_if_incomplete"),
        sub(items__0__price="M_FREE", pending_update=None),
        invoice(total=-500, status="paid"),
        start=APRIL,
    ),
    row(
        "no invoice: applied at once",
        NO_MONEY,
        update(price="M20", payment_behavior="pending_if_incomplete"),
        sub(items__0__price="M20", pending_update=None),
        pending(-500, 1000),
        start=APRIL,
    ),
    row(
        "its payment makes a past due subscription active",
        subscribe("M10"),
        attach(BAD),
        to("2025-05-01 01:00"),
        sub(status="past_due"),
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        sub(status="past_due"),
        attach(OK),
        pay(),
        sub(status="active", items__0__price="M20"),
        start=APRIL,
    ),
    row(
        "cancellation takes it along",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        mark(),
        cancel(),
        sub(status="canceled", pending_update=None),
        invoices("paid", "void"),
        start=APRIL,
    ),
    row(
        "unknown, expired, then paid after all: the money goes back",
        subscribe("M10"),
        to("2025-04-16"),
        update(**UPGRADE, payment_behavior="pending_if_incomplete", answers=["unknown"]),
        to("2025-04-17"),
        resolve("paid"),
        sub(items__0__price="M10"),
        invoice(status="void"),
        refunds(500),
        start=APRIL,
    ),
    *(
        row(
            f"pending updates do not carry {next(iter(change))}",
            NO_MONEY,
            update(**UPGRADE, **change, payment_behavior="pending_if_incomplete"),
            refused("parameters_exclusive", next(iter(change))),
            start=APRIL,
        )
        for change in NOT_CARRIED
    ),
    row(
        "pending updates need charge_automatically",
        subscribe("M10", collection_method="send_invoice", days_until_due=5),
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        refused("parameters_exclusive", "payment_behavior"),
        start=APRIL,
    ),
    row(
        "one-off prices of a pending update are on its invoice",
        NO_MONEY,
        update(
            price="Y120",
            add_invoice_items=["SETUP"],
            payment_behavior="pending_if_incomplete",
        ),
        invoice(lines=[-500, 12000, 2000]),
        pending(),
        start=APRIL,
    ),
    row(
        "pending items wait for the next ordinary invoice",
        NO_MONEY,
        item(300),
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        pending(300),
        start=APRIL,
    ),
    row(
        "late answers do not apply what was dropped",
        subscribe("M10"),
        to("2025-04-16"),
        attach(MUTE),
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        update(quantity=2),
        resolve("paid"),
        sub(items__0__price="M10", items__0__quantity=2),
        refunds(500),
        start=APRIL,
    ),
    row(
        "while it waits, a renewal that is paid counts",
        subscribe("M10"),
        attach(BAD),
        to("2025-05-01 01:00"),
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        attach(OK),
        pay(1),
        sub(status="active", pending_update="set"),
        start=APRIL,
    ),
    row(
        "another invoice that is given up leaves it alone",
        subscribe("M10"),
        attach(BAD),
        to("2025-05-01 01:00"),
        update(**UPGRADE, payment_behavior="pending_if_incomplete"),
        give_up(1),
        sub(status="active", pending_update="set"),
        start=APRIL,
    ),
    row(
        "a new anchor forgets the configured day",
        subscribe("M10", billing_cycle_anchor_config={"day_of_month": 20}),
        to("2025-04-25"),
        attach(BAD),
        update(billing_cycle_anchor_now=True, payment_behavior="pending_if_incomplete"),
        sub(billing_cycle_anchor_config="set"),
        attach(OK),
        pay(),
        sub(billing_cycle_anchor_config=None, billing_cycle_anchor="2025-04-25"),
        start=APRIL,
    ),
    row(
        "a trial with a one-off price that waited for its payment",
        NO_MONEY,
        update(
            trial_end="2025-06-01",
            add_invoice_items=["SETUP"],
            proration_behavior="none",
            payment_behavior="pending_if_incomplete",
        ),
        sub(status="active", trial_end=None, pending_update__trial_end="2025-06-01"),
        invoice(status="open", total=2000),
        to("2025-04-16 10:00"),
        attach(OK),
        pay(),
        sub(status="trialing", trial_start="2025-04-16 10:00", trial_end="2025-06-01", current_period_end="2025-06-01"),
        mark(),
        to("2025-05-31"),
        events("customer.subscription.trial_will_end @2025-05-29"),
        start=APRIL,
    ),
    row(
        "a second trial in flexible mode begins when it is paid",
        subscribe("M10", trial_end="2025-04-05", billing_mode="flexible"),
        to("2025-04-16"),
        attach(BAD),
        update(
            trial_end="2025-06-01",
            add_invoice_items=["SETUP"],
            proration_behavior="none",
            payment_behavior="pending_if_incomplete",
        ),
        attach(OK),
        pay(),
        sub(status="trialing", trial_start="2025-04-16"),
        start=APRIL,
    ),
    row(
        "a trial shorter than 23 hours ends the waiting",
        NO_MONEY,
        update(
            trial_end="2025-04-16 12:00",
            add_invoice_items=["SETUP"],
            proration_behavior="none",
            payment_behavior="pending_if_incomplete",
        ),
        sub(pending_update__expires_at="2025-04-16 12:00"),
        to("2025-04-16 12:00"),
        sub(status="active", pending_update=None, trial_end=None),
        start=APRIL,
    ),
]


@pytest.mark.parametrize("row", PENDING)
def test_pending_updates(row: Row) -> None:
    row.play()
