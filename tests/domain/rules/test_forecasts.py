"""Forecasts tell what time will do (issue: the property of forecasts): the cases that once differed, one by one."""

from __future__ import annotations

import pytest

from tests.domain.rules.foresight import foreseen
from tests.domain.rules.sights import events, pending
from tests.domain.rules.steps import (
    Row,
    item,
    mark,
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
]


@pytest.mark.parametrize("told", ALIKE)
def test_forecasts(told: Row) -> None:
    told.play()
