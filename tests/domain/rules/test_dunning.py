"""Failed payments: retries, hard declines, final actions (semantics 6; decisions 12 to 15)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from billing_server.domain.dunning import RetryPolicy
from tests.domain.rules.shop import ASK, BAD, LOST, OK
from tests.domain.rules.sights import charges, customer, events, invoice, no_events, sub
from tests.domain.rules.steps import (
    Row,
    attach,
    change_customer,
    confirm,
    detach,
    gateway,
    mark,
    pay,
    row,
    settings,
    subscribe,
    to,
    update,
)

BASE = (subscribe("M31"), to("2025-01-26"), attach(BAD), mark())
"""Paid in January, then the card replaced by one that is declined: F, the first failure, is February 1, 01:00."""

SCHEDULES = [
    row(
        "S15: at F past due, open, delinquent, tried again after three days",
        BASE,
        to("2025-02-01 01:00"),
        sub(status="past_due"),
        invoice(status="open", attempt_count=1, next_payment_attempt="2025-02-04 01:00", auto_advance=True),
        customer(delinquent=True),
        events("""
            customer.subscription.updated @2025-02-01
            invoice.created
            invoice.finalized @2025-02-01T01:00
            payment_intent.created
            payment_intent.payment_failed
            invoice.updated was=attempt_count,attempted,next_payment_attempt was.attempt_count=0 was.attempted=False
            invoice.payment_failed attempt_count=1 next_payment_attempt=2025-02-04T01:00
            customer.subscription.updated was=status was.status=active
            customer.updated was=delinquent was.delinquent=False
        """),
    ),
    row(
        "decision 12: three, five and seven days",
        BASE,
        to("2025-02-04 01:00"),
        invoice(attempt_count=2, next_payment_attempt="2025-02-09 01:00"),
        to("2025-02-09 01:00"),
        invoice(attempt_count=3, next_payment_attempt="2025-02-16 01:00"),
        mark(),
        to("2025-02-16 01:00"),
        invoice(attempt_count=4, next_payment_attempt=None, status="open", auto_advance=False),
        sub(status="canceled", ended_at="2025-02-16 01:00", cancellation_details__reason="payment_failed"),
        events("""
            payment_intent.payment_failed
            invoice.updated was=attempt_count,next_payment_attempt
            invoice.payment_failed attempt_count=4 next_payment_attempt=None
            customer.subscription.deleted status=canceled
            invoice.updated was=auto_advance was.auto_advance=True
        """),
        mark(),
        to("2025-06-01"),
        no_events(),
        charges(5),
    ),
    row(
        "one failure tells no more than itself",
        BASE,
        to("2025-02-04"),
        mark(),
        to("2025-02-04 01:00"),
        events("""
            payment_intent.payment_failed
            invoice.updated was=attempt_count,next_payment_attempt
            invoice.payment_failed attempt_count=2
        """),
    ),
    row(
        "decision 13: smart retries are spread evenly, and do not count the first attempt",
        BASE,
        to("2025-02-01 01:00"),
        invoice(next_payment_attempt="2025-02-02 19:00"),
        to("2025-02-15 00:59"),
        invoice(attempt_count=8, next_payment_attempt="2025-02-15 01:00"),
        to("2025-02-15 01:00"),
        invoice(attempt_count=9, next_payment_attempt=None),
        sub(status="canceled"),
        settings=Settings(retry_policy=RetryPolicy(kind="smart", max_retries=8, window="two_weeks")),
    ),
    row(
        "smart, four in a week",
        BASE,
        to("2025-02-08 01:00"),
        invoice(attempt_count=5),
        settings=Settings(retry_policy=RetryPolicy(kind="smart", max_retries=4, window="one_week")),
    ),
    row(
        "no retries at all: the first failure is the last",
        BASE,
        to("2025-02-01"),
        mark(),
        to("2025-02-01 01:00"),
        sub(status="canceled"),
        events("""
            invoice.finalized
            payment_intent.created
            payment_intent.payment_failed
            invoice.updated was=attempt_count,attempted
            invoice.payment_failed next_payment_attempt=None
            customer.subscription.updated was.status=active status=past_due
            customer.updated was=delinquent
            customer.subscription.deleted
            invoice.updated was=auto_advance
        """),
        settings=Settings(retry_policy=RetryPolicy(kind="custom")),
    ),
    row(
        "changed settings hold for retries that are planned later",
        BASE,
        to("2025-02-02"),
        settings(retry_policy=RetryPolicy(kind="custom", retry_days=(1, 1))),
        invoice(next_payment_attempt="2025-02-04 01:00"),
        to("2025-02-04 01:00"),
        invoice(next_payment_attempt="2025-02-05 01:00"),
        to("2025-02-05 01:00"),
        sub(status="canceled"),
    ),
    row(
        "an action is needed: past due, and told as a failure too",
        subscribe("M31"),
        to("2025-02-01"),
        mark(),
        gateway("asks"),
        to("2025-02-01 01:00"),
        sub(status="past_due"),
        invoice(payment_intent__status="requires_action", next_payment_attempt="2025-02-04 01:00"),
        events("""
            invoice.finalized
            payment_intent.created
            payment_intent.requires_action
            invoice.payment_action_required
            invoice.payment_failed
            customer.subscription.updated was.status=active
            customer.updated was=delinquent
        """),
        confirm(),
        sub(status="active"),
    ),
    row(
        "a smart policy that comes in the middle goes on from now, not from the past",
        BASE,
        to("2025-02-02"),
        settings(retry_policy=RetryPolicy(kind="smart", max_retries=8, window="one_week")),
        to("2025-02-04 01:00"),
        invoice(attempt_count=2, next_payment_attempt="2025-02-04 13:00"),
    ),
]

RECOVERY = [
    row(
        "a new card is tried when the next retry is due, not before",
        BASE,
        to("2025-02-02"),
        attach(OK),
        sub(status="past_due"),
        mark(),
        to("2025-02-04 01:00"),
        sub(status="active"),
        invoice(status="paid", attempt_count=2, next_payment_attempt=None),
        customer(delinquent=False),
        events("""
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was=status was.status=past_due
            customer.updated was=delinquent was.delinquent=True
        """),
    ),
    row(
        "paid by hand between retries",
        BASE,
        to("2025-02-02"),
        attach(OK),
        pay(),
        sub(status="active"),
        invoice(attempt_count=1),
        to("2025-02-20"),
        charges(3),
    ),
    row(
        "the customer's new card does not matter while the subscription has its own",
        attach(BAD, default=False),
        subscribe("M31", answers=["paid"], default_payment_method=BAD),
        to("2025-02-02"),
        change_customer(name="Jenny"),
        to("2025-02-04 01:00"),
        invoice(attempt_count=2, status="open"),
        update(default_payment_method=None),
        to("2025-02-09 01:00"),
        invoice(status="paid"),
    ),
    row(
        "the renewal after a failure is announced again",
        BASE,
        to("2025-02-04"),
        attach(OK),
        to("2025-02-05"),
        mark(),
        to("2025-02-22"),
        events("invoice.upcoming @2025-02-22"),
    ),
]

HARD = [
    row(
        "declined for good: retries stay planned, count and are told, but nothing is charged",
        subscribe("M31"),
        attach(LOST),
        to("2025-02-01 01:00"),
        charges(2),
        invoice(attempt_count=1, next_payment_attempt="2025-02-04 01:00", attempts_started=1),
        mark(),
        to("2025-02-04 01:00"),
        charges(2),
        invoice(attempt_count=2, next_payment_attempt="2025-02-09 01:00", attempts_started=2),
        events("""
            invoice.updated was=attempt_count,next_payment_attempt
            invoice.payment_failed attempt_count=2
        """),
        invoice(payment_intent__last_payment_error__decline_code="lost_card"),
        invoice(payment_intent__last_payment_error__code="card_declined"),
        to("2025-02-16 01:00"),
        invoice(attempt_count=4),
        sub(status="canceled"),
        charges(2),
    ),
    row(
        "declined for good, then another card",
        subscribe("M31"),
        attach(LOST),
        to("2025-02-05"),
        attach(OK),
        to("2025-02-09 01:00"),
        invoice(status="paid", attempt_count=3),
        charges(3),
        sub(status="active"),
    ),
    row(
        "the same card again, attached anew, is another payment method",
        subscribe("M31"),
        attach(LOST),
        to("2025-02-05"),
        detach(LOST),
        attach(LOST),
        to("2025-02-09 01:00"),
        charges(3),
    ),
    row(
        "declined for good, replaced, and back: tried as the first of the two was not",
        subscribe("M31"),
        attach(LOST),
        to("2025-02-05"),
        attach(BAD),
        to("2025-02-10"),
        charges(3),
        invoice(attempt_count=3, next_payment_attempt="2025-02-16 01:00"),
    ),
    row(
        "authentication is needed, and nobody is there: for good",
        subscribe("M31"),
        attach(ASK),
        to("2025-02-16 01:00"),
        charges(2),
        sub(status="canceled"),
    ),
    row(
        "authentication is needed: a retry that makes no charge leaves the check to be passed, once",
        subscribe("M31", answers=["paid"]),
        gateway("asks in vain"),
        to("2025-02-01 01:00"),
        sub(status="past_due"),
        invoice(payment_intent__status="requires_action"),
        mark(),
        to("2025-02-04 01:00"),
        events("""
            invoice.updated was=attempt_count,next_payment_attempt
            invoice.payment_failed attempt_count=2
        """),
        invoice(payment_intent__status="requires_action"),
        confirm(),
        invoice(status="paid", attempt_count=2),
        sub(status="active"),
        card=ASK,
    ),
    row(
        "no payment method: no charge, and the schedule goes on",
        subscribe("M31"),
        detach(OK),
        to("2025-02-05"),
        invoice(attempt_count=2),
        charges(1),
        attach(OK),
        to("2025-02-09 01:00"),
        invoice(status="paid", attempt_count=3),
    ),
    row(
        "softly declined is charged again",
        BASE,
        to("2025-02-09 01:00"),
        charges(4),
    ),
]


@pytest.mark.parametrize("row", SCHEDULES + RECOVERY)
def test_retries(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", HARD)
def test_declined_for_good(row: Row) -> None:
    row.play()
