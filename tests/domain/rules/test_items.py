"""Invoice items, payment methods and customers as callers change them (semantics 1)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import BAD, OK
from tests.domain.rules.sights import customer, events, invoice, no_events, pending, refused, sub
from tests.domain.rules.steps import (
    Row,
    attach,
    bill,
    change_customer,
    change_item,
    delete_item,
    detach,
    finalize,
    item,
    mark,
    one_off,
    pay,
    row,
    subscribe,
    to,
    update,
)

ITEMS = [
    row("an amount", item(500), pending(500), events("customer.updated invoiceitem.created".replace(" ", "\n"))),
    row("a unit amount times a quantity", item(unit_amount=250, quantity=3), pending(750)),
    row("a price", item(price="SETUP", quantity=2), pending(4000)),
    row("below zero", item(-500), pending(-500)),
    row(
        "more than an invoice takes: those that have waited longest go first",
        [item(amount) for amount in range(1, 253)],
        bill(pending_invoice_items_behavior="include"),
        invoice(lines=list(range(250, 0, -1))),
        pending(251, 252),
    ),
    row(
        "changed: amount",
        item(500),
        mark(),
        change_item(amount=700),
        pending(700),
        events("invoiceitem.updated was=amount"),
    ),
    row(
        "changed: quantity of a unit amount", item(unit_amount=250, quantity=3), change_item(quantity=4), pending(1000)
    ),
    row("changed: quantity of a price", item(price="SETUP", quantity=2), change_item(quantity=3), pending(6000)),
    row("changed: quantity of an amount", item(500), change_item(quantity=2), refused("parameter_invalid", "quantity")),
    row("deleted", item(500), mark(), delete_item(), pending(), events("invoiceitem.deleted")),
    row("added to a draft", one_off(1000), item(200, on=0), invoice(total=1200, lines=[1000, 200])),
    row(
        "changed and deleted on a draft",
        one_off(1000),
        item(200, on=0),
        mark(),
        change_item(amount=300),
        invoice(total=1300),
        delete_item(),
        invoice(total=1000),
        events("""
            invoiceitem.updated was=amount
            invoice.updated was=amount_due,amount_remaining,lines,subtotal,total
            invoiceitem.deleted
            invoice.updated
        """),
    ),
    row(
        "on a finalized invoice: not changed",
        one_off(1000),
        finalize(),
        change_item(amount=1),
        refused("invoice_item_not_editable"),
    ),
    row(
        "on a finalized invoice: not deleted",
        one_off(1000),
        finalize(),
        delete_item(),
        refused("invoice_item_not_editable"),
    ),
    row(
        "on a finalized invoice: not added",
        one_off(1000),
        finalize(),
        item(1, on=0),
        refused("invoice_not_editable", "invoice"),
    ),
    row(
        "the amount of a proration",
        subscribe("M10"),
        to("2025-01-16"),
        update(quantity=2),
        change_item(amount=1),
        refused("invoice_item_not_editable"),
    ),
    row(
        "the text of a proration",
        subscribe("M10"),
        to("2025-01-16"),
        update(quantity=2),
        mark(),
        change_item(description="d"),
        events("invoiceitem.updated was=description"),
    ),
    row("a recurring price", item(price="M10"), refused("price_type_invalid", "price")),
    row("an inactive price", item(price="SETUP_OLD"), refused("price_inactive", "price")),
    row(
        "of another currency than the draft",
        bill(currency="usd"),
        item(1, on=0, currency="eur"),
        refused("currency_mismatch"),
    ),
    row("an amount twice", item(500, unit_amount=5), refused("parameters_exclusive")),
    row("no amount", item(), refused("parameter_missing", "amount")),
    row("an amount and a quantity", item(500, quantity=2), refused("parameters_exclusive", "quantity")),
    row(
        "more than 250 wait for the invoice after",
        [item(10) for _ in range(252)],
        subscribe("M10"),
        invoice(total=1000 + 2500),
        pending(10, 10),
    ),
]

CARDS = [
    row(
        "a new default",
        attach(BAD),
        mark(),
        change_customer(default_payment_method=OK),
        events("customer.updated was=default_payment_method"),
    ),
    row(
        "not a default",
        mark(),
        attach(BAD, default=False),
        customer(default_payment_method="set"),
        events("payment_method.attached"),
    ),
    row(
        "a detached one cannot be the default",
        attach(BAD),
        detach(BAD),
        mark(),
        change_customer(default_payment_method=BAD),
        refused("resource_missing", "default_payment_method"),
    ),
    row(
        "transfers are no default",
        attach("transfer", type="customer_balance"),
        refused("payment_method_unsuitable", "set_default"),
    ),
    row("a change of nothing", mark(), change_customer(email="jenny@example.com"), customer(version=2), no_events()),
    row("paying with a card that is not there", one_off(1000), pay(payment_method=OK), invoice(status="paid")),
    row(
        "the subscription's own card is not there",
        subscribe("M31"),
        update(default_payment_method=None),
        sub(default_payment_method=None),
    ),
]


@pytest.mark.parametrize("row", ITEMS)
def test_invoice_items(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", CARDS)
def test_cards_and_customers(row: Row) -> None:
    row.play()
