"""Who is asked for the first payment, when, and with which card (semantics 2.3)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import ASK, BAD, LOST, MUTE, OK
from tests.domain.rules.sights import (
    charges,
    customer,
    events,
    events_of,
    invoice,
    invoices,
    no_events,
    refunds,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import Row, attach, change_customer, confirm, mark, resolve, row, subscribe, to

PAYMENT_BEHAVIOR = [
    row(
        "S11: default_incomplete waits to be confirmed",
        subscribe("M31", payment_behavior="default_incomplete"),
        sub(status="incomplete"),
        invoice(status="open", attempt_count=0, payment_intent__status="requires_confirmation"),
        charges(0),
        to("2025-01-01 00:10"),
        mark(),
        confirm(),
        sub(status="active"),
        invoice(status="paid", attempt_count=1),
        events("""
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was.status=incomplete
        """),
    ),
    row(
        "default_incomplete without a card waits for one",
        subscribe("M31", payment_behavior="default_incomplete"),
        invoice(payment_intent__status="requires_payment_method"),
        confirm(),
        refused("invoice_no_payment_method"),
        attach(OK, default=False),
        confirm(payment_method=OK),
        sub(status="active"),
        card=None,
    ),
    row(
        "default_incomplete, confirmed with a bad card: still incomplete",
        subscribe("M31", payment_behavior="default_incomplete"),
        confirm(),
        sub(status="incomplete"),
        invoice(status="open", attempt_count=1, next_payment_attempt=None),
        to("2025-01-01 23:00"),
        sub(status="incomplete_expired"),
        card=BAD,
    ),
    row(
        "default_incomplete with nothing to pay: active",
        subscribe("M_FREE", payment_behavior="default_incomplete"),
        sub(status="active"),
        card=None,
    ),
    row(
        "default_incomplete with a trial: trialing",
        subscribe("M31", payment_behavior="default_incomplete", trial_period_days=7),
        sub(status="trialing"),
        card=None,
    ),
    row(
        "S30: error_if_incomplete, declined: nothing was created, nothing told",
        mark(),
        subscribe("M31", payment_behavior="error_if_incomplete"),
        invoices(),
        customer(currency=None),
        charges(1),
        no_events(),
        card=BAD,
    ),
    row(
        "error_if_incomplete, paid: as any other",
        mark(),
        subscribe("M31", payment_behavior="error_if_incomplete"),
        sub(status="active"),
        invoices("paid"),
        charges(1),
        events("""
            customer.updated was=currency
            customer.subscription.created status=incomplete
            invoice.created
            invoice.finalized
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was.status=incomplete
        """),
    ),
    row(
        "error_if_incomplete without a card",
        subscribe("M31", payment_behavior="error_if_incomplete"),
        refused("invoice_no_payment_method"),
        card=None,
    ),
    row(
        "error_if_incomplete, an action needed: nothing was created",
        subscribe("M31", payment_behavior="error_if_incomplete"),
        invoices(),
        card=ASK,
    ),
    row(
        "error_if_incomplete, unknown and paid later: created then",
        subscribe("M31", payment_behavior="error_if_incomplete"),
        invoices(),
        to("2025-01-01 05:00"),
        resolve("paid"),
        sub(status="active", created="2025-01-01"),
        invoices("paid"),
        card=MUTE,
    ),
    row(
        "error_if_incomplete, paid when it can no longer be: the money goes back",
        subscribe("M31", payment_behavior="error_if_incomplete"),
        subscribe("M31_EUR", answers=["paid"]),
        resolve("paid"),
        invoices("paid"),
        refunds(3100),
        card=MUTE,
    ),
    row(
        "error_if_incomplete with nothing to charge is created",
        subscribe("M_FREE", payment_behavior="error_if_incomplete"),
        sub(status="active"),
        card=None,
    ),
    row(
        "pending_if_incomplete is for updates",
        subscribe("M31", payment_behavior="pending_if_incomplete"),
        refused("parameter_invalid", "payment_behavior"),
    ),
    row(
        "payment behavior means nothing with send_invoice",
        subscribe("M31", payment_behavior="error_if_incomplete", collection_method="send_invoice", days_until_due=5),
        refused("parameters_exclusive", "payment_behavior"),
    ),
]


DUE_DAYS = [
    row(
        "send_invoice needs days_until_due",
        subscribe("M31", collection_method="send_invoice"),
        refused("parameter_missing", "days_until_due"),
    ),
    row(
        "charge_automatically takes none",
        subscribe("M31", days_until_due=5),
        refused("parameters_exclusive", "days_until_due"),
    ),
    row(
        "bank transfers cannot be charged automatically",
        attach("transfer", default=False, type="customer_balance"),
        subscribe("M31", default_payment_method="transfer"),
        refused("payment_method_unsuitable", "default_payment_method"),
    ),
]


LOOKUP = [
    row(
        "the subscription's card goes before the customer's",
        attach(BAD, default=False),
        subscribe("M31", default_payment_method=BAD),
        sub(status="incomplete"),
    ),
    row(
        "a detached card is nobody's default",
        attach(BAD, default=False),
        subscribe("M31"),
        change_customer(default_payment_method=None),
        events_of("customer.updated", "customer.updated customer.updated"),
        subscribe("M31"),
        sub(status="incomplete"),
    ),
    row(
        "a card declined for good for one invoice may be tried for another",
        subscribe("M31"),
        invoice(hard_declined_method="set"),
        subscribe("M31", answers=["paid"]),
        sub(status="active"),
        charges(2),
        card=LOST,
    ),
    row("the totals of two subscriptions", subscribe("M31"), subscribe("M10"), totals(3100, 1000)),
]


@pytest.mark.parametrize("row", PAYMENT_BEHAVIOR)
def test_payment_behavior(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", DUE_DAYS + LOOKUP)
def test_what_is_charged_and_when_it_is_due(row: Row) -> None:
    row.play()
