"""Trials: their beginning, their notices, their ends, and changes of them (seed S3, semantics 2.2 and 4)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import BAD, OK
from tests.domain.rules.sights import (
    charges,
    customer,
    events,
    events_of,
    invoice,
    invoices,
    no_events,
    period,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import Row, attach, mark, pause, pay, resume, row, subscribe, to, update

MARCH = "2025-03-01"
FORTNIGHT = (subscribe("M31", trial_period_days=14), mark())
"""A trial of 14 days from March 1 to 15."""

BEGINNINGS = [
    row(
        "S51: trialing, with a paid invoice of zero",
        subscribe("M30", trial_end=1610403705),
        sub(status="trialing", trial_start=1609798905, trial_end=1610403705, billing_cycle_anchor=1610403705),
        sub(current_period_start=1609798905, current_period_end=1610403705),
        invoice(status="paid", total=0, lines=[(0, 1609798905, 1610403705)]),
        invoice(billing_reason="subscription_create"),
        events("""
            customer.updated was=currency
            customer.subscription.created status=trialing
            invoice.created status=draft
            invoice.finalized status=paid
            invoice.paid
            invoice.payment_succeeded
        """),
        charges(0),
        start=1609798905,
    ),
    row("S29: no payment method is needed", subscribe("M31", trial_period_days=14), sub(status="trialing"), card=None),
    row(
        "S52: 730 days",
        subscribe("M31", trial_period_days=730),
        sub(trial_end="2027-03-01"),
        start=MARCH,
    ),
    row(
        "S52: 731 days",
        subscribe("M31", trial_period_days=731),
        refused("parameter_invalid_integer", "trial_period_days"),
    ),
    row(
        "a moment more than 730 days ahead",
        subscribe("M31", trial_end="2027-03-01 00:00:01"),
        refused("time_out_of_range", "trial_end"),
        start=MARCH,
    ),
    row("a moment in the past", subscribe("M31", trial_end="2024-12-31"), refused("time_out_of_range", "trial_end")),
    row(
        "days and a moment",
        subscribe("M31", trial_period_days=7, trial_end="2025-04-01"),
        refused("parameters_exclusive"),
    ),
    row(
        "trial_from_plan and a moment",
        subscribe("M31", trial_from_plan=True, trial_end="2025-04-01"),
        refused("parameters_exclusive"),
    ),
    row(
        "as many days as the price says, when asked for",
        subscribe("M31_TRIAL14", trial_from_plan=True),
        sub(status="trialing", trial_end="2025-01-15"),
    ),
    row("and none when not", subscribe("M31_TRIAL14"), sub(status="active", trial_end=None)),
    row("trial_from_plan of a price without one", subscribe("M31", trial_from_plan=True), sub(status="active")),
    row(
        "send_invoice: trialing, the invoice of zero paid at once",
        subscribe("M31", trial_period_days=14, collection_method="send_invoice", days_until_due=10),
        sub(status="trialing"),
        invoice(status="paid", total=0),
        to("2025-01-15"),
        sub(status="active"),
        invoice(status="draft", total=3100, due_date="2025-01-25"),
        to("2025-01-15 01:00"),
        invoice(status="open"),
        card=None,
    ),
    row(
        "one-off prices are charged at its beginning",
        subscribe("M31", trial_period_days=14, add_invoice_items=["SETUP"]),
        sub(status="trialing"),
        invoice(status="paid", lines=[0, 2000], total=2000),
        mark(),
        to("2025-01-12"),
        events("customer.subscription.trial_will_end"),
    ),
    row(
        "one-off prices, declined: incomplete until they are paid, then trialing",
        subscribe("M31", trial_period_days=14, add_invoice_items=["SETUP"]),
        sub(status="incomplete", current_period_end="2025-01-15"),
        update(metadata={"a": "1"}),
        sub(current_period_end="2025-01-15"),
        attach(OK),
        pay(),
        sub(status="trialing", current_period_end="2025-01-15", expires_at=None),
        mark(),
        to("2025-01-15"),
        events("""
            customer.subscription.trial_will_end @2025-01-12
            customer.subscription.updated was.status=trialing @2025-01-15
            invoice.created
        """),
        card=BAD,
    ),
    row(
        "one-off prices of a trial that is sent: sent at once",
        subscribe(
            "M31",
            trial_period_days=14,
            add_invoice_items=["SETUP"],
            collection_method="send_invoice",
            days_until_due=10,
        ),
        sub(status="trialing"),
        invoice(status="open", due_date="2025-01-11"),
        events("""
            customer.updated
            customer.subscription.created status=trialing
            invoice.created
            invoice.finalized
            payment_intent.created
            invoice.sent
        """),
        to("2025-01-11"),
        sub(status="trialing"),
        customer(delinquent=True),
    ),
]

NOTICES = [
    row(
        "S53: three days before the end",
        FORTNIGHT,
        to("2025-03-11 23:59:59"),
        no_events(),
        to("2025-03-12"),
        events("customer.subscription.trial_will_end status=trialing @2025-03-12"),
        start=MARCH,
    ),
    row(
        "S54: at once when it is shorter",
        subscribe("M31", trial_period_days=2),
        events("""
            customer.updated
            customer.subscription.created
            invoice.created
            invoice.finalized
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.trial_will_end
        """),
        mark(),
        to("2025-01-02 23:59:59"),
        no_events(),
    ),
    row(
        "again when it is extended",
        FORTNIGHT,
        to("2025-03-13"),
        update(trial_end="2025-04-01"),
        mark(),
        to("2025-03-31"),
        events("customer.subscription.trial_will_end @2025-03-29"),
        start=MARCH,
    ),
    row(
        "at once when it is shortened to less than three days",
        FORTNIGHT,
        update(trial_end="2025-03-03"),
        events("""
            customer.subscription.updated was=billing_cycle_anchor,current_period_end,trial_end
            customer.subscription.trial_will_end
        """),
        to("2025-03-03"),
        events("""
            customer.subscription.updated
            invoice.created
        """),
        start=MARCH,
    ),
    row(
        "the renewal is not announced during a trial, but is after it",
        FORTNIGHT,
        to("2025-04-14"),
        events_of("invoice.upcoming", "invoice.upcoming"),
        start=MARCH,
    ),
]

ENDS = [
    row(
        "S53: paid for: active, a draft for an hour, then charged",
        FORTNIGHT,
        to("2025-03-14"),
        mark(),
        to("2025-03-15"),
        sub(status="active"),
        period("2025-03-15", "2025-04-15"),
        invoice(status="draft", total=3100, billing_reason="subscription_cycle"),
        events("""
            customer.subscription.updated was=current_period_end,current_period_start,latest_invoice,status @2025-03-15
            invoice.created
        """),
        to("2025-03-15 01:00"),
        invoice(status="paid"),
        events("""
            invoice.finalized
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
        to("2025-04-15 01:00"),
        totals(0, 3100, 3100),
        start=MARCH,
    ),
    row(
        "S58: no payment method, cancel: canceled, no invoice",
        subscribe("M31", trial_period_days=14, missing_payment_method="cancel"),
        to("2025-01-14"),
        mark(),
        to("2025-01-15"),
        sub(status="canceled", ended_at="2025-01-15"),
        invoices("paid"),
        events("customer.subscription.deleted"),
        card=None,
    ),
    row(
        "S59: no payment method, pause: paused, no invoice, also two months later",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
        to("2025-01-14"),
        mark(),
        to("2025-01-15"),
        sub(status="paused"),
        period("2025-01-01", "2025-01-15"),
        events("""
            customer.subscription.updated was=status was.status=trialing
            customer.subscription.paused
        """),
        to("2025-03-20"),
        no_events(),
        sub(status="paused"),
        invoices("paid"),
        card=None,
    ),
    row(
        "S60: no payment method, create_invoice: past due an hour later",
        subscribe("M31", trial_period_days=14),
        to("2025-01-15"),
        sub(status="active"),
        invoice(status="draft", total=3100),
        mark(),
        to("2025-01-15 01:00"),
        sub(status="past_due"),
        invoice(status="open", attempt_count=1, next_payment_attempt="2025-01-18 01:00"),
        charges(0),
        events("""
            invoice.finalized
            payment_intent.created
            invoice.updated was=attempt_count,attempted,next_payment_attempt
            invoice.payment_failed
            customer.subscription.updated was=status
            customer.updated was=delinquent
        """),
        card=None,
    ),
    row(
        "create_invoice, and a card that comes within the hour",
        subscribe("M31", trial_period_days=14),
        to("2025-01-15 00:30"),
        attach(OK),
        to("2025-01-15 01:00"),
        sub(status="active"),
        invoice(status="paid"),
        card=None,
    ),
    row(
        "a card on the subscription is a payment method too",
        attach(OK, default=False),
        subscribe("M31", trial_period_days=14, missing_payment_method="cancel", default_payment_method=OK),
        to("2025-01-15 01:00"),
        sub(status="active"),
        invoice(status="paid"),
        card=None,
    ),
    row(
        "the end behavior is set during the trial",
        subscribe("M31", trial_period_days=14),
        update(missing_payment_method="pause"),
        to("2025-01-15"),
        sub(status="paused"),
        card=None,
    ),
    row(
        "the end behavior needs charge_automatically",
        subscribe(
            "M31",
            trial_period_days=14,
            missing_payment_method="pause",
            collection_method="send_invoice",
            days_until_due=5,
        ),
        refused("parameters_exclusive", "missing_payment_method"),
    ),
    row(
        "switched to send_invoice, it never pauses",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
        update(collection_method="send_invoice", days_until_due=5),
        to("2025-01-15"),
        sub(status="active"),
        card=None,
    ),
    row(
        "decision 18: with collection paused it goes on as create_invoice",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
        pause("void"),
        to("2025-01-15"),
        sub(status="active"),
        period("2025-01-15", "2025-02-15"),
        invoice(status="void", total=3100),
        card=None,
    ),
    row(
        "S55: trial_end=now: active and paid in the request, the anchor is now",
        FORTNIGHT,
        to("2025-03-05"),
        mark(),
        update(trial_end_now=True),
        sub(status="active", trial_end="2025-03-05", billing_cycle_anchor="2025-03-05"),
        period("2025-03-05", "2025-04-05"),
        invoice(status="paid", total=3100, billing_reason="subscription_update"),
        events("""
            customer.subscription.updated was.status=trialing status=active
            customer.subscription.trial_will_end
            invoice.created
            invoice.finalized
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
        to("2025-03-20"),
        no_events(),
        start=MARCH,
    ),
    row(
        "trial_end=now, declined: past due, retried",
        FORTNIGHT,
        update(trial_end_now=True),
        sub(status="past_due"),
        invoice(status="open", next_payment_attempt="2025-03-04"),
        card=BAD,
        start=MARCH,
    ),
    row(
        "trial_end=now with another price",
        FORTNIGHT,
        update(trial_end_now=True, price="Y120"),
        sub(interval="year"),
        period("2025-03-01", "2026-03-01"),
        totals(0, 12000),
        start=MARCH,
    ),
    row(
        "trial_end=now without a payment method, pause: paused as by time, no invoice",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
        to("2025-03-05"),
        mark(),
        update(trial_end_now=True),
        sub(status="paused", trial_end="2025-03-05", billing_cycle_anchor="2025-03-05", trial_will_end_at=None),
        period("2025-03-01", "2025-03-05"),
        events("""
            customer.subscription.updated was=billing_cycle_anchor,current_period_end,trial_end status=trialing
            customer.subscription.trial_will_end
            customer.subscription.updated was.status=trialing status=paused
            customer.subscription.paused
        """),
        to("2025-05-05"),
        sub(status="paused"),
        totals(0),
        card=None,
        start=MARCH,
    ),
    row(
        "trial_end=now without a payment method, cancel: canceled, no invoice",
        subscribe("M31", trial_period_days=14, missing_payment_method="cancel"),
        to("2025-03-05"),
        mark(),
        update(trial_end_now=True),
        sub(status="canceled", trial_end="2025-03-05", ended_at="2025-03-05"),
        events("""
            customer.subscription.updated
            customer.subscription.trial_will_end
            customer.subscription.deleted status=canceled
        """),
        totals(0),
        card=None,
        start=MARCH,
    ),
    row(
        "trial_end=now without a payment method, said in the same request",
        FORTNIGHT,
        update(
            trial_end_now=True, missing_payment_method="pause", price="Y120", payment_behavior="error_if_incomplete"
        ),
        sub(status="paused", interval="year"),
        totals(0),
        card=None,
        start=MARCH,
    ),
    row(
        "trial_end=now without a payment method, create_invoice: past due",
        FORTNIGHT,
        update(trial_end_now=True),
        sub(status="past_due"),
        totals(0, 3100),
        card=None,
        start=MARCH,
    ),
    row(
        "trial_end=now without a payment method, while collection is paused: active (decision 18)",
        subscribe("M31", trial_period_days=14, missing_payment_method="cancel"),
        pause("keep_as_draft"),
        update(trial_end_now=True),
        sub(status="active"),
        invoice(status="draft", total=3100, auto_advance=False),
        card=None,
        start=MARCH,
    ),
    row(
        "trial_end=now without a payment method, paused: resumed in the cycle that began with its end",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause"),
        to("2025-03-05"),
        update(trial_end_now=True),
        to("2025-04-10"),
        attach(OK),
        resume(billing_cycle_anchor="unchanged", proration_behavior="none"),
        sub(status="active"),
        period("2025-04-05", "2025-05-05"),
        card=None,
        start=MARCH,
    ),
    row(
        "trial_end=now without a trial",
        subscribe("M31"),
        update(trial_end_now=True),
        refused("subscription_state_invalid"),
    ),
    row(
        "trial_end=now of a sent one: a draft for an hour",
        subscribe("M31", trial_period_days=14, collection_method="send_invoice", days_until_due=10),
        update(trial_end_now=True),
        sub(status="active"),
        invoice(status="draft", total=3100),
        card=None,
    ),
]


@pytest.mark.parametrize("row", BEGINNINGS + NOTICES)
def test_trials_begin_and_are_announced(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", ENDS)
def test_trials_end(row: Row) -> None:
    row.play()
