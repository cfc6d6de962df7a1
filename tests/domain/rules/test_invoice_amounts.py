"""Amounts, balance, numbers and texts of invoices (semantics 3, Amounts and Finalization)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.sights import balance, customer, events, invoice, refused
from tests.domain.rules.steps import (
    Row,
    adjust_balance,
    bill,
    change_customer,
    change_invoice,
    delete_invoice,
    finalize,
    give_up,
    item,
    mark,
    one_off,
    row,
    subscribe,
    to,
    update,
    void,
)

AMOUNTS = [
    row(
        "no balance",
        one_off(1000),
        finalize(),
        invoice(status="open", starting_balance=0, ending_balance=0, amount_due=1000, amount_remaining=1000),
        balance(0),
    ),
    row(
        "a credit covers a part",
        adjust_balance(-300, currency="usd"),
        one_off(1000),
        finalize(),
        invoice(status="open", starting_balance=-300, ending_balance=0, amount_due=700),
        balance(0, "adjustment", "applied_to_invoice"),
    ),
    row(
        "a credit covers all",
        adjust_balance(-1000, currency="usd"),
        one_off(1000),
        finalize(),
        invoice(status="paid", starting_balance=-1000, ending_balance=0, amount_due=0, paid_at="2025-01-01"),
        balance(0, "adjustment", "applied_to_invoice"),
    ),
    row(
        "a credit covers more",
        adjust_balance(-1500, currency="usd"),
        one_off(1000),
        finalize(),
        invoice(status="paid", ending_balance=-500, amount_due=0),
        balance(-500),
    ),
    row(
        "a debt is asked for too",
        adjust_balance(200, currency="usd"),
        one_off(1000),
        finalize(),
        invoice(status="open", starting_balance=200, amount_due=1200, ending_balance=0),
        balance(0),
    ),
    row(
        "below the minimum charge: paid, and owed",
        one_off(49),
        finalize(),
        invoice(status="paid", amount_due=0, ending_balance=49),
        balance(49, "invoice_too_small"),
    ),
    row("the minimum charge itself", one_off(50), finalize(), invoice(status="open", amount_due=50), balance(0)),
    row(
        "a credit that leaves less than the minimum",
        adjust_balance(-970, currency="usd"),
        one_off(1000),
        finalize(),
        invoice(status="paid", amount_due=0, ending_balance=30),
        balance(30, "adjustment", "invoice_too_small"),
    ),
    row(
        "nothing, with a debt below the minimum: the debt stays, and no transaction says so",
        adjust_balance(20, currency="usd"),
        one_off(0),
        finalize(),
        invoice(status="paid", amount_due=0, starting_balance=20, ending_balance=20),
        balance(20, "adjustment"),
    ),
    row(
        "zero",
        one_off(0),
        mark(),
        finalize(),
        invoice(status="paid", amount_due=0, attempt_count=0, number="S_000001-0001"),
        events("""
            invoice.finalized status=paid
            invoice.paid
            invoice.payment_succeeded
        """),
        balance(0),
    ),
    row(
        "below zero: the customer's credit",
        one_off(-400),
        finalize(),
        invoice(status="paid", amount_due=0, ending_balance=-400),
        balance(-400, "applied_to_invoice"),
    ),
    row(
        "the minimum of other currencies: 50 yen",
        bill(currency="jpy"),
        item(49, on=0, currency="jpy"),
        finalize(),
        invoice(status="paid", ending_balance=49),
    ),
    row(
        "the minimum of other currencies: 17500 filler",
        bill(currency="huf"),
        item(17499, on=0, currency="huf"),
        finalize(),
        invoice(status="paid", ending_balance=17499),
    ),
    row(
        "balance is not applied to what is open already",
        one_off(1000),
        finalize(),
        adjust_balance(-1000),
        invoice(amount_due=1000),
        balance(-1000),
    ),
    row(
        "voiding gives back what was consumed",
        adjust_balance(-300, currency="usd"),
        one_off(1000),
        finalize(),
        mark(),
        void(),
        invoice(status="void"),
        balance(-300, "adjustment", "applied_to_invoice", "unapplied_from_invoice"),
        events("""
            invoice.updated was=status,voided_at was.status=open
            invoice.voided
            payment_intent.canceled cancellation_reason=void_invoice
            customer.updated was=balance
        """),
    ),
    row(
        "voiding takes back a debt that was asked for",
        adjust_balance(300, currency="usd"),
        one_off(1000),
        finalize(),
        void(),
        balance(300),
    ),
    row(
        "giving up keeps what was consumed",
        adjust_balance(-300, currency="usd"),
        one_off(1000),
        finalize(),
        give_up(),
        balance(0),
    ),
]

NUMBERS = [
    row(
        "numbers count finalized invoices",
        one_off(1000),
        one_off(1000),
        finalize(1),
        finalize(0),
        invoice(0, number="S_000001-0002"),
        invoice(1, number="S_000001-0001"),
        customer(next_invoice_sequence=3),
    ),
    row(
        "a draft has none, and a deleted one uses none",
        one_off(1000),
        invoice(number=None),
        delete_invoice(),
        one_off(1000),
        finalize(),
        invoice(number="S_000001-0001"),
    ),
    row(
        "a voided invoice keeps its own",
        one_off(1000),
        finalize(),
        void(),
        one_off(1000),
        finalize(),
        invoice(number="S_000001-0002"),
    ),
    row(
        "prefix and sequence are the customer's",
        one_off(1000),
        change_customer(invoice_prefix="ACME", next_invoice_sequence=42),
        finalize(),
        invoice(number="ACME-0042"),
    ),
    row(
        "a sequence never goes back",
        one_off(1000),
        finalize(),
        change_customer(next_invoice_sequence=1),
        refused("parameter_invalid", "next_invoice_sequence"),
    ),
    row(
        "what the customer is called is frozen at finalization",
        one_off(1000),
        change_customer(name="Jenny Rosen"),
        finalize(),
        change_customer(name="Jenny Smith"),
        invoice(customer_name="Jenny Rosen", customer_email="jenny@example.com"),
    ),
    row(
        "a sequence that begins elsewhere",
        one_off(1000),
        finalize(),
        invoice(number="S_000001-0042"),
        next_invoice_sequence=42,
    ),
    row("a prefix of one's own", one_off(1000), finalize(), invoice(number="JEN-0001"), invoice_prefix="JEN"),
]

DESCRIPTORS = [
    row(
        "the account's",
        one_off(1000),
        finalize(),
        invoice(statement_descriptor="ACME"),
        settings=Settings(statement_descriptor="ACME"),
    ),
    row(
        "the product's goes before the account's",
        subscribe("M31_SILVER"),
        invoice(statement_descriptor="SILVER PLAN"),
        settings=Settings(statement_descriptor="ACME"),
    ),
    row(
        "one's own goes before both",
        one_off(1000, statement_descriptor="MY OWN"),
        finalize(),
        invoice(statement_descriptor="MY OWN"),
        settings=Settings(statement_descriptor="ACME"),
    ),
    row(
        "the first charge after a trial says so, from the eleventh character on",
        subscribe("M31_SILVER", trial_period_days=14),
        to("2025-01-15 01:00"),
        invoice(statement_descriptor="SILVER PLA* TRIAL OVER"),
        to("2025-02-15 01:00"),
        invoice(statement_descriptor="SILVER PLAN"),
    ),
    row(
        "of the account too",
        subscribe("M31", trial_period_days=14),
        to("2025-01-15 01:00"),
        invoice(statement_descriptor="ACME* TRIAL OVER"),
        settings=Settings(statement_descriptor="ACME"),
    ),
    row(
        "not of one set by hand while the invoice was a draft",
        subscribe("M31", trial_period_days=14),
        to("2025-01-15"),
        change_invoice(statement_descriptor="MY OWN"),
        to("2025-01-15 01:00"),
        invoice(statement_descriptor="MY OWN"),
        settings=Settings(statement_descriptor="ACME"),
    ),
    row(
        "the first charge of a trial that was ended at once",
        subscribe("M31", trial_period_days=14),
        update(trial_end_now=True),
        invoice(statement_descriptor="ACME* TRIAL OVER"),
        settings=Settings(statement_descriptor="ACME"),
    ),
    row(
        "the first charge after a trial and free days",
        subscribe("M31", trial_end="2025-01-10", billing_cycle_anchor="2025-02-01", proration_behavior="none"),
        to("2025-02-01 01:00"),
        invoice(statement_descriptor="ACME* TRIAL OVER", total=3100),
        to("2025-03-01 01:00"),
        invoice(statement_descriptor="ACME"),
        settings=Settings(statement_descriptor="ACME"),
    ),
]


@pytest.mark.parametrize("row", AMOUNTS)
def test_amounts_and_balance(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", NUMBERS + DESCRIPTORS)
def test_what_is_written_on_invoices(row: Row) -> None:
    row.play()
