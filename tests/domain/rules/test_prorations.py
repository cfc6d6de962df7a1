"""Prorations: the published numbers, and which changes make which items (semantics 5)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import OK
from tests.domain.rules.sights import balance, events, invoice, invoices, pending, period, refused, sub, totals
from tests.domain.rules.steps import Row, attach, mark, pause, row, subscribe, to, update

APRIL = "2025-04-01"
MIDDLE = (subscribe("M10"), to("2025-04-16"), mark())
"""Exactly half of April."""

NUMBERS = [
    row(
        "S85: 1000 to 2000 in the middle of April: -500 and +1000, May 2500",
        MIDDLE,
        update(price="M20"),
        pending(-500, 1000),
        events("""
            invoiceitem.created amount=-500 proration=True discountable=False
            invoiceitem.created amount=1000
            customer.subscription.updated was=items
        """),
        to("2025-05-01"),
        invoice(total=2500, lines=[1000, -500, 2000]),
        pending(),
        start=APRIL,
    ),
    row(
        "S87: none: the new price from May",
        MIDDLE,
        update(price="M20", proration_behavior="none"),
        pending(),
        to("2025-05-01"),
        totals(1000, 2000),
        start=APRIL,
    ),
    row(
        "S89: 2000 to 1000 with a third of the month left: -667 and +333",
        subscribe("M20"),
        to("2025-04-21"),
        update(price="M10", proration_behavior="always_invoice"),
        invoice(status="paid", lines=[333, -667], total=-334, amount_due=0, ending_balance=-334),
        balance(-334, "applied_to_invoice"),
        to("2025-05-01 01:00"),
        invoice(status="paid", total=1000, amount_due=666),
        start=APRIL,
    ),
    row(
        "1000 x 445540 / 2678400 is 166",
        subscribe(("M10", 0)),
        to("2025-01-26 20:14:20"),
        update(quantity=1),
        pending(0, 166),
    ),
    row(
        "to the second: one second is nothing, half a cent rounds away from zero",
        subscribe(("M10", 0)),
        to("2025-01-31 23:59:59"),
        update(quantity=1340),
        pending(0, 1),
    ),
    row(
        "the quantity is prorated as a whole, and rounded once",
        subscribe(("M_FRACTION", 0)),
        to("2025-04-16"),
        update(quantity=3),
        pending(0, 50),
        start=APRIL,
    ),
    row(
        "tiers count for the whole quantity",
        subscribe(("M_GRADUATED", 10)),
        to("2025-04-16"),
        update(quantity=12),
        pending(-500, 800),
        start=APRIL,
    ),
    row(
        "yen have no cents",
        subscribe("M1000_JPY"),
        to("2025-04-21"),
        update(quantity=2),
        pending(-333, 667),
        start=APRIL,
    ),
    row(
        "from a moment other than now",
        MIDDLE,
        update(price="M20", proration_date="2025-04-11"),
        pending(-667, 1333),
        start=APRIL,
    ),
    row(
        "from the beginning of the period",
        MIDDLE,
        update(price="M20", proration_date="2025-04-01"),
        pending(-1000, 2000),
        start=APRIL,
    ),
    row(
        "from a moment outside of the period",
        MIDDLE,
        update(price="M20", proration_date="2025-03-31"),
        refused("time_out_of_range", "proration_date"),
        start=APRIL,
    ),
]

CHANGES = [
    row("a quantity", MIDDLE, update(quantity=3), pending(-500, 1500), start=APRIL),
    row(
        "a price without a quantity resets the quantity to 1",
        subscribe(("M10", 5)),
        to("2025-04-16"),
        update(price="M20"),
        sub(items__0__quantity=1),
        pending(-2500, 1000),
        start=APRIL,
    ),
    row(
        "a price with a quantity",
        subscribe(("M10", 5)),
        update(price="M20", quantity=4),
        sub(items__0__quantity=4),
        start=APRIL,
    ),
    row(
        "the same price without a quantity is no change",
        subscribe(("M10", 5)),
        update(price="M10"),
        sub(items__0__quantity=5),
        pending(),
        start=APRIL,
    ),
    row(
        "an item more",
        MIDDLE,
        update(add=("M20", 2)),
        pending(2000),
        to("2025-05-01"),
        invoice(lines=[2000, 4000, 1000]),
        start=APRIL,
    ),
    row(
        "an item less",
        subscribe("M10", "M20"),
        to("2025-04-16"),
        update(drop=1),
        pending(-1000),
        start=APRIL,
    ),
    row(
        "several changes wait together",
        MIDDLE,
        update(quantity=2),
        to("2025-04-21"),
        update(quantity=3),
        pending(-500, 1000, -667, 1000),
        to("2025-05-01"),
        invoice(lines=[1000, -667, 1000, -500, 3000]),
        start=APRIL,
    ),
    row(
        "what waits is billed with the next change that is invoiced",
        MIDDLE,
        update(quantity=2),
        update(quantity=3, proration_behavior="always_invoice"),
        invoice(lines=[1500, -1000, 1000, -500], total=1000),
        pending(),
        start=APRIL,
    ),
    row(
        "metered items never prorate",
        subscribe("M10", "M_METERED"),
        to("2025-04-16"),
        update(drop=1),
        pending(),
        start=APRIL,
    ),
    row(
        "after a cut in price the credit is at the current price",
        MIDDLE,
        update(price="M20", proration_behavior="none"),
        to("2025-04-21"),
        update(price="M10"),
        pending(-667, 333),
        start=APRIL,
    ),
    row(
        "invoice_now of nothing prorated makes no invoice",
        MIDDLE,
        update(metadata={"a": "1"}, proration_behavior="always_invoice"),
        invoices("paid"),
        start=APRIL,
    ),
    row(
        "a past due subscription prorates as if its invoice were paid",
        MIDDLE,
        attach("bad"),
        to("2025-05-16"),
        update(quantity=2),
        pending(-516, 1032),
        start=APRIL,
    ),
]

NOT_PRORATED = [
    row(
        f"{what} is not prorated",
        MIDDLE,
        change,
        pending(),
        period("2025-04-01", "2025-05-01"),
        invoices("paid"),
        start=APRIL,
    )
    for what, change in (
        ("metadata", update(metadata={"a": "1"})),
        ("a payment method", update(default_payment_method=OK)),
        ("a collection method", update(collection_method="send_invoice", days_until_due=5)),
        ("paused collection", pause("void")),
        ("cancel_at_period_end", update(cancel_at_period_end=True)),
        ("a description", update(description="d")),
    )
]


@pytest.mark.parametrize("row", NUMBERS)
def test_numbers(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", CHANGES + NOT_PRORATED)
def test_which_changes_are_prorated(row: Row) -> None:
    row.play()
