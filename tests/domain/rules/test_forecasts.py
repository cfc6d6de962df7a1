"""Forecasts tell what time will do (issue: the property of forecasts): the cases that once differed, one by one."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from billing_server.domain.dunning import RetryPolicy
from tests.domain.rules.foresight import foreseen
from tests.domain.rules.shop import BAD
from tests.domain.rules.sights import events, events_of, pending
from tests.domain.rules.steps import (
    Row,
    attach,
    item,
    mark,
    one_off,
    phase,
    row,
    schedule,
    subscribe,
    to,
    update,
    use,
)

UNTIL = "2025-06-01"

ALIKE = [
    row("renewals that are paid", subscribe("M31"), foreseen(UNTIL)),
    row("renewals that fail to the end", subscribe("M31"), foreseen(UNTIL, "fail")),
    row("two failures, then success", subscribe("M31"), foreseen(UNTIL, "fail_then_succeed", failures=2)),
    row(
        "what an ending subscription leaves to the customer's next invoice is told",
        subscribe("M31"),
        item(700, of_subscription=True),
        foreseen(UNTIL, "fail"),
    ),
    row(
        "so is what its final invoice bills",
        subscribe("M31"),
        update(quantity=3, cancel_at_period_end=True),
        mark(),
        foreseen(UNTIL),
        to("2025-02-01"),
        pending(),
        events("""
            customer.subscription.deleted
            customer.subscription.updated was=latest_invoice
            invoice.created
            invoiceitem.updated was=invoice
            invoiceitem.updated was=invoice
            invoice.finalized
            payment_intent.created
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
        """),
    ),
    row(
        "items of no subscription that its next invoice bills",
        subscribe("M31"),
        item(700),
        foreseen(UNTIL),
    ),
    row(
        "another subscription of the customer shares the balance and the delinquency",
        subscribe("M31"),
        subscribe("W7"),
        item(-9000),
        foreseen(UNTIL, "fail", index=0),
        foreseen(UNTIL, "fail", index=1),
        foreseen(UNTIL, "succeed", index=1),
    ),
    row(
        "usage so far, billed at the end of the second of two phases within one period",
        schedule(
            phase(("M10", 1), "M_METERED", duration=("day", 10)),
            phase(("M20", 1), "M_METERED", duration=("day", 10)),
            phase(("M20", 1), duration=("day", 3)),
        ),
        use(40),
        to("2025-01-02"),
        foreseen(UNTIL),
    ),
    row(
        "a charge in the second in which usage is billed: it is settled first, whatever was loaded",
        attach(BAD),
        one_off(900, auto_advance=True),
        to("2025-01-01 01:00"),
        subscribe("D_METERED"),
        to("2025-01-01 02:00"),
        foreseen("2025-01-05", "fail"),
        mark(),
        to("2025-01-03 01:00"),
        events_of(
            "invoice.",
            """
            invoice.created invoice.finalized invoice.paid invoice.payment_succeeded
            invoice.updated invoice.payment_failed
            invoice.created
        """,
        ),
        start="2025-01-01",
        settings=Settings(one_off_retry_policy=RetryPolicy(kind="custom", retry_days=(2,)), upcoming_renewal_days=0),
        card=None,
    ),
]


@pytest.mark.parametrize("told", ALIKE)
def test_forecasts(told: Row) -> None:
    told.play()
