"""What a quantity costs on the first invoice, and which items go together (semantics 1, Price and SubscriptionItem)."""

from __future__ import annotations

import pytest

from tests.domain.rules.sights import events, invoice, refused, sub, totals
from tests.domain.rules.steps import Row, bill, item, row, subscribe, to, update

ROWS = [
    row("per unit, times the quantity", subscribe(("M10", 3)), totals(3000)),
    row("without a quantity there is one", subscribe("M10"), totals(1000), sub(items__0__quantity=1)),
    row("a quantity of zero costs nothing", subscribe(("M10", 0)), totals(0), invoice(status="paid")),
    row("decimals are rounded once, for the whole quantity", subscribe(("M_FRACTION", 3)), totals(100)),
    row(
        "decimals of a part of a period are rounded once, too: 66.67 x 16 / 31",
        subscribe(("M_FRACTION", 2), billing_cycle_anchor="2025-02-01"),
        totals(34),
        to("2025-02-01"),
        totals(34, 67),
        start="2025-01-16",
    ),
    row("graduated: each band at its own rate", subscribe(("M_GRADUATED", 12)), totals(10 * 100 + 500 + 2 * 50)),
    row("graduated within the first band", subscribe(("M_GRADUATED", 10)), totals(1000)),
    row("volume: all at the rate of the band reached", subscribe(("M_VOLUME", 12)), totals(500 + 12 * 50)),
    row("volume within the first band", subscribe(("M_VOLUME", 10)), totals(1000)),
    row("packages of ten, begun ones count", subscribe(("M_PACK10_UP", 11)), totals(1000)),
    row("packages of ten, begun ones do not count", subscribe(("M_PACK10_DOWN", 19)), totals(500)),
    row("zero-decimal currencies: 1000 is 1000 yen", subscribe("M1000_JPY"), totals(1000), invoice(currency="jpy")),
    row("every three months", subscribe("Q90"), sub(current_period_end="2025-04-01"), totals(9000)),
    row("items are billed together, newest first", subscribe("M10", "M31"), invoice(lines=[3100, 1000], total=4100)),
    row(
        "metered only: nothing on the first invoice, active",
        subscribe("M_METERED"),
        sub(status="active", items__0__quantity=None),
        invoice(status="paid", total=0, billing_reason="subscription_create"),
    ),
    row("metered beside licensed", subscribe("M31", "M_METERED"), totals(3100)),
    row("several currencies: the price's own", subscribe("M10_OR_9_EUR"), totals(1000), invoice(currency="usd")),
    row(
        "several currencies: the one that is asked for, for good",
        subscribe("M10_OR_9_EUR", currency="eur"),
        sub(currency="eur"),
        totals(900),
        invoice(currency="eur"),
        subscribe("M20_OR_18_EUR"),
        invoice(currency="eur", total=1800),
    ),
    row(
        "several currencies: that of the customer, and of what is renewed and changed",
        subscribe("M31_EUR"),
        subscribe("M10_OR_9_EUR"),
        sub(currency="eur"),
        invoice(total=900, currency="eur"),
        to("2025-01-17"),
        update(price="M20_OR_18_EUR", proration_behavior="always_invoice"),
        invoice(lines=[900, -450], currency="eur"),
        to("2025-02-01 12:00"),
        invoice(total=1800, currency="eur"),
        start="2025-01-01 12:00",
    ),
    row("a zero-decimal option", subscribe("M10_OR_9_EUR", currency="jpy"), totals(1500), invoice(currency="jpy")),
    row(
        "tiers of the currency",
        subscribe(("M_GRADUATED_OR_EUR", 12), currency="eur"),
        totals(5 * 90 + 450 + 7 * 40),
    ),
    row(
        "one-off prices that ride along have the currency, too",
        subscribe("M10_OR_9_EUR", currency="eur", add_invoice_items=["SETUP_OR_EUR"]),
        invoice(lines=[900, 1700], currency="eur"),
    ),
    row(
        "an item of a one-off price before the customer has a currency",
        item(price="SETUP_OR_EUR", currency="eur"),
        bill(pending_invoice_items_behavior="include"),
        invoice(total=1700, currency="eur"),
    ),
    row(
        "less than the minimum charge is not collected: it is owed",
        subscribe("M_CENTS"),
        sub(status="active"),
        invoice(status="paid", total=30, amount_due=0, ending_balance=30),
        events("""
            customer.updated was=currency
            customer.subscription.created status=active
            invoice.created
            invoice.finalized status=paid
            invoice.paid
            invoice.payment_succeeded
            customer.updated was.balance=0 balance=30
        """),
    ),
]

REFUSALS = [
    row("metered prices take no quantity", subscribe(("M_METERED", 1)), refused("parameter_invalid")),
    row("one-off prices are no items", subscribe("SETUP"), refused("price_type_invalid", "items[0].price")),
    row("inactive prices are not sold", subscribe("M_OLD"), refused("price_inactive", "items[0].price")),
    row("unknown prices", subscribe("M10", "M_NONE"), refused("resource_missing", "items[1].price")),
    row("two currencies", subscribe("M31", "M31_EUR"), refused("currency_mismatch", "items[1].price")),
    row(
        "a price without the currency that is asked for",
        subscribe("M10", currency="eur"),
        refused("currency_mismatch", "items[0].price"),
    ),
    row(
        "a currency that is not the customer's",
        subscribe("M31"),
        subscribe("M10_OR_9_EUR", currency="eur"),
        refused("currency_mismatch", "currency"),
    ),
    row(
        "an option that only one of two prices has",
        subscribe("M10_OR_9_EUR", "M31", currency="eur"),
        refused("currency_mismatch", "items[1].price"),
    ),
    row("no currency at all", subscribe("M10", currency="euro"), refused("parameter_invalid", "currency")),
    row("two intervals", subscribe("M31", "Y120"), refused("interval_mismatch", "items[1].price")),
    row("two interval counts", subscribe("M31", "Q90"), refused("interval_mismatch", "items[1].price")),
    row("the same price twice", subscribe("M31", "M31"), refused("parameters_exclusive", "items[1].price")),
    row("no items", subscribe(), refused("parameter_invalid_empty", "items")),
    row("more than twenty items", subscribe(*["M31"] * 21), refused("parameter_invalid", "items")),
    row("a negative quantity", subscribe(("M31", -1)), refused("parameter_invalid_integer", "items[0].quantity")),
    row(
        "the first subscription fixes the customer's currency",
        subscribe("M31"),
        subscribe("M31_EUR"),
        refused("currency_mismatch"),
    ),
    row(
        "one-off prices that ride along need the currency",
        subscribe("M31", add_invoice_items=["SETUP_EUR"]),
        refused("currency_mismatch", "add_invoice_items[0].price"),
    ),
    row(
        "recurring prices do not ride along",
        subscribe("M31", add_invoice_items=["M10"]),
        refused("price_type_invalid", "add_invoice_items[0].price"),
    ),
    row(
        "inactive one-off prices do not ride along",
        subscribe("M31", add_invoice_items=["SETUP_OLD"]),
        refused("price_inactive", "add_invoice_items[0].price"),
    ),
    row("deleting the last item", subscribe("M31"), update(drop=0), refused("parameter_invalid_empty", "items")),
    row("adding what is there", subscribe("M31"), update(add=("M31", 1)), refused("parameters_exclusive")),
    row("another currency later", subscribe("M31"), update(price="M31_EUR"), refused("currency_mismatch")),
]


@pytest.mark.parametrize("row", ROWS + REFUSALS)
def test_prices(row: Row) -> None:
    row.play()
