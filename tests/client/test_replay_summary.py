"""The closing table: sums by group, and every row that differs from the file is named."""

from __future__ import annotations

import pytest

from billing.v1.invoice_model_pb2 import Invoice, InvoiceStatus
from billing_client.replay.rows import Row
from billing_client.replay.summary import Summary, Tally, sum_up
from billing_client.replay.world import Subscriber, World

PAID = InvoiceStatus.INVOICE_STATUS_PAID
OPEN = InvoiceStatus.INVOICE_STATUS_OPEN
VOID = InvoiceStatus.INVOICE_STATUS_VOID


def row(name: str, tenure: int, cents: int, method: str, *, churned: bool = False) -> Row:
    return Row(name, tenure, cents, "One year", method, churned, {}, total_is_blank=tenure == 0)


def world(*rows: Row) -> World:
    subscribers = {
        item.customer_id: Subscriber(
            item,
            customer=f"cus_{item.customer_id}",
            subscription=f"sub_{item.customer_id}",
            canceled=item.churned,
        )
        for item in rows
    }
    return World(clock="clock_1", time=0, target=None, subscribers=subscribers)


def invoice(name: str, cents: int, status: InvoiceStatus.ValueType = PAID) -> Invoice:
    return Invoice(customer=f"cus_{name}", amount_paid=cents, status=status)


def summary(there: World, *invoices: Invoice) -> Summary:
    tally = Tally(there)
    for item in invoices:
        tally.count(item)
    return sum_up(tally.billed)


def test_sums_by_group() -> None:
    there = world(row("a", 2, 1000, "Card"), row("b", 1, 500, "Check", churned=True), row("c", 0, 700, "Check"))
    found = summary(
        there,
        invoice("a", 1000),
        invoice("a", 1000),
        invoice("b", 500),
        invoice("b", 999, VOID),
        invoice("stranger", 12345),
    )
    assert found.agrees
    assert (found.total.customers, found.total.subscriptions, found.total.canceled) == (3, 3, 1)
    assert (found.total.invoices, found.total.revenue_cents, found.total.difference_cents) == (3, 2500, 0)
    assert [(group.name, group.revenue_cents) for group in found.by_payment_method] == [("Card", 2000), ("Check", 500)]
    assert (found.without_month, found.blank_totals) == (1, 1)


@pytest.mark.parametrize(
    ("invoices", "faults"),
    [
        ([invoice("a", 1000)], "1 invoices for 2 months, -1000 cents"),
        ([invoice("a", 1000)] * 3, "3 invoices for 2 months, +1000 cents"),
        ([invoice("a", 1000), invoice("a", 1001)], r"\+1 cents"),
        ([invoice("a", 1000), invoice("a", 0, OPEN)], "1 invoices unpaid, -1000 cents"),
        ([], "0 invoices for 2 months, -2000 cents"),
    ],
)
def test_each_difference_is_named(invoices: list[Invoice], faults: str) -> None:
    found = summary(world(row("a", 2, 1000, "Card")), *invoices)
    assert not found.agrees
    (wrong,) = found.wrong
    assert wrong.faults == faults.replace("\\", "")


def test_differences_that_cancel_out_are_still_differences() -> None:
    there = world(row("a", 1, 1000, "Card"), row("b", 1, 1000, "Card"))
    found = summary(there, invoice("a", 999), invoice("b", 1001))
    assert found.total.difference_cents == 0
    assert [item.row.customer_id for item in found.wrong] == ["a", "b"]


def test_missing_and_uncanceled_subscriptions_are_named() -> None:
    there = world(row("a", 0, 1000, "Card", churned=True))
    there.subscribers["a"].subscription = ""
    there.subscribers["a"].canceled = False
    assert summary(there).wrong[0].faults == "no subscription, not canceled"
