"""Changes of a running subscription and how they are paid for (semantics 2.3 and 2.4, decision 6)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import ASK, BAD, MUTE, OK
from tests.domain.rules.steps import (
    Fields,
    Row,
    attach,
    balance,
    cancel,
    charges,
    confirm,
    customer,
    events,
    give_up,
    invoice,
    invoices,
    item,
    mark,
    no_events,
    pay,
    pending,
    period,
    refunds,
    refused,
    resolve,
    row,
    sub,
    subscribe,
    to,
    totals,
    update,
    void,
)

APRIL = "2025-04-01"
MIDDLE = (subscribe("M10"), to("2025-04-16"), mark())
"""1000 a month since April 1, half of the month gone."""
NO_MONEY = (subscribe("M10"), to("2025-04-16"), attach(BAD), mark())
UPGRADE: Fields = {"price": "M20", "proration_behavior": "always_invoice"}

BEHAVIORS = [
    row(
        "an upgrade invoiced at once and paid",
        MIDDLE,
        update(**UPGRADE),
        sub(status="active", items__0__price="M20"),
        period("2025-04-01", "2025-05-01"),
        invoice(status="paid", total=500, billing_reason="subscription_update", attempt_count=1, auto_advance=False),
        invoice(lines=[(1000, "2025-04-16", "2025-05-01"), (-500, "2025-04-16", "2025-05-01")]),
        events("""
            invoiceitem.created amount=-500
            invoiceitem.created amount=1000
            customer.subscription.updated was=items,latest_invoice
            invoice.created status=draft
            invoice.finalized status=open
            payment_intent.created
            invoiceitem.updated was=invoice
            invoiceitem.updated was=invoice
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
        to("2025-05-01"),
        invoice(lines=[2000]),
        start=APRIL,
    ),
    row(
        "allow_incomplete, declined: applied, past due, retried like a renewal",
        NO_MONEY,
        update(**UPGRADE),
        sub(status="past_due", items__0__price="M20"),
        invoice(status="open", attempt_count=1, auto_advance=True, next_payment_attempt="2025-04-19"),
        customer(delinquent=True),
        events("""
            invoiceitem.created
            invoiceitem.created
            customer.subscription.updated was=items,latest_invoice
            invoice.created
            invoice.finalized
            payment_intent.created
            invoiceitem.updated
            invoiceitem.updated
            payment_intent.payment_failed
            invoice.updated was=attempt_count,attempted,next_payment_attempt
            invoice.payment_failed next_payment_attempt=2025-04-19
            customer.subscription.updated was=status was.status=active
            customer.updated was=delinquent
        """),
        attach(OK),
        to("2025-04-19"),
        sub(status="active"),
        invoice(status="paid", attempt_count=2),
        customer(delinquent=False),
        start=APRIL,
    ),
    row(
        "allow_incomplete, an action needed: past due",
        subscribe("M10"),
        to("2025-04-16"),
        attach(ASK),
        update(**UPGRADE),
        sub(status="past_due"),
        confirm(),
        sub(status="active"),
        start=APRIL,
    ),
    row(
        "default_incomplete: applied, past due until the intent is confirmed",
        MIDDLE,
        update(**UPGRADE, payment_behavior="default_incomplete"),
        sub(status="past_due", items__0__price="M20"),
        invoice(status="open", attempt_count=0, payment_intent__status="requires_confirmation"),
        customer(delinquent=False),
        charges(1),
        events("""
            invoiceitem.created
            invoiceitem.created
            customer.subscription.updated was=items,latest_invoice
            invoice.created
            invoice.finalized
            payment_intent.created status=requires_confirmation
            customer.subscription.updated was=status
            invoiceitem.updated
            invoiceitem.updated
        """),
        confirm(),
        sub(status="active"),
        invoice(status="paid"),
        start=APRIL,
    ),
    row(
        "default_incomplete with nothing due: active",
        MIDDLE,
        update(price="M_FREE", proration_behavior="always_invoice", payment_behavior="default_incomplete"),
        sub(status="active"),
        invoice(status="paid", total=-500),
        start=APRIL,
    ),
    row(
        "an older invoice that is paid does not hide an update that waits to be confirmed",
        subscribe("M10"),
        attach(BAD),
        to("2025-05-01 01:00"),
        sub(status="past_due"),
        attach(OK),
        update(price="M20", proration_behavior="always_invoice", payment_behavior="default_incomplete"),
        pay(1),
        sub(status="past_due"),
        confirm(2),
        sub(status="active"),
        start=APRIL,
    ),
    row(
        "error_if_incomplete, declined: nothing changed, nothing told",
        NO_MONEY,
        update(**UPGRADE, payment_behavior="error_if_incomplete"),
        sub(items__0__price="M10", status="active"),
        invoices("paid"),
        pending(),
        no_events(),
        charges(2),
        start=APRIL,
    ),
    row(
        "error_if_incomplete, paid",
        MIDDLE,
        update(**UPGRADE, payment_behavior="error_if_incomplete"),
        sub(items__0__price="M20", status="active"),
        invoices("paid", "paid"),
        charges(2),
        start=APRIL,
    ),
    row(
        "error_if_incomplete without anything to pay now is applied",
        NO_MONEY,
        update(price="M20", payment_behavior="error_if_incomplete"),
        sub(items__0__price="M20"),
        pending(-500, 1000),
        charges(1),
        start=APRIL,
    ),
    row(
        "error_if_incomplete, unknown, then the month ends, then it was paid: the money goes back",
        subscribe("M10", answers=["paid"]),
        to("2025-04-30 23:00"),
        update(
            quantity=500,
            proration_behavior="always_invoice",
            payment_behavior="error_if_incomplete",
            answers=["unknown"],
        ),
        to("2025-05-01 06:00"),
        resolve("paid"),
        sub(items__0__quantity=1),
        refunds(693),
        start=APRIL,
    ),
    row(
        "an update whose only effect is its invoice's total below the minimum is applied and owed",
        subscribe("M10"),
        to("2025-04-30 12:00"),
        update(**UPGRADE),
        invoice(status="paid", total=16, amount_due=0),
        sub(status="active"),
        balance(16, "invoice_too_small"),
        start=APRIL,
    ),
    row(
        "a credit on the newest invoice makes a past due subscription active",
        subscribe("M20"),
        attach(BAD),
        to("2025-05-01 01:00"),
        sub(status="past_due"),
        update(price="M10", proration_behavior="always_invoice"),
        sub(status="active"),
        invoices("paid", "open", "paid"),
        customer(delinquent=False),
        start=APRIL,
    ),
    row(
        "send_invoice: the invoice of a change is a draft for an hour, then sent",
        subscribe("M10", collection_method="send_invoice", days_until_due=10),
        to("2025-04-16"),
        update(**UPGRADE),
        invoice(status="draft", total=500, automatically_finalizes_at="2025-04-16 01:00", due_date="2025-04-26"),
        to("2025-04-16 01:00"),
        invoice(status="open"),
        start=APRIL,
    ),
    row(
        "a change that changes nothing is no change",
        MIDDLE,
        update(metadata={}),
        update(quantity=1),
        update(price="M10"),
        sub(version=2),
        no_events(),
        start=APRIL,
    ),
]

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
]


@pytest.mark.parametrize("row", BEHAVIORS)
def test_payment_behavior_of_updates(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", PENDING)
def test_pending_updates(row: Row) -> None:
    row.play()
