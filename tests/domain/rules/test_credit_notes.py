"""Credit notes, refunds and the balance (semantics 1, CreditNote and CustomerBalanceTransaction)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import BAD, MUTE, OK
from tests.domain.rules.sights import (
    balance,
    credit_note,
    customer,
    events,
    invoice,
    refunds,
    refused,
    sub,
)
from tests.domain.rules.steps import (
    Row,
    Step,
    adjust_balance,
    attach,
    bill,
    change_customer,
    confirm,
    credit,
    delete_customer,
    finalize,
    give_up,
    item,
    mark,
    one_off,
    pay,
    refund,
    row,
    subscribe,
    void,
    void_credit,
)
from tests.domain.rules.story import Story


def said(words: str) -> Step:
    """The refusal says so."""

    def step(story: Story) -> None:
        assert story.refusal is not None
        assert words in story.refusal.message, story.refusal.message

    return step


OPEN = (one_off(1000), finalize(), mark())
PAID = (one_off(1000), pay(), mark())

BEFORE_PAYMENT = [
    row(
        "a part: less is due",
        OPEN,
        credit(300, reason="order_change"),
        credit_note(type="pre_payment", amount=300, pre_payment_amount=300, status="issued", reason="order_change"),
        credit_note(number="S_000001-0001-CN-01"),
        invoice(status="open", amount_due=700, amount_remaining=700, pre_payment_credit_notes_amount=300, total=1000),
        invoice(payment_intent__amount=700),
        events("""
            credit_note.created
            invoice.updated was=amount_due,amount_remaining,pre_payment_credit_notes_amount
        """),
        pay(),
        invoice(status="paid", amount_paid=700),
    ),
    row(
        "all: paid",
        OPEN,
        credit(1000),
        invoice(status="paid", amount_due=0, amount_paid=0),
        invoice(payment_intent__status="canceled", payment_intent__cancellation_reason="automatic"),
        events("""
            credit_note.created
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            payment_intent.canceled
        """),
    ),
    row("twice", OPEN, credit(300), credit(300), credit_note(number="S_000001-0001-CN-02"), invoice(amount_due=400)),
    row("of a draft", one_off(1000), credit(1), said("change the draft itself"), refused("invoice_state_invalid")),
    row("of a void one", OPEN, void(), credit(1), said("nothing is owed for it"), refused("invoice_state_invalid")),
    row(
        "of one that gave credit itself",
        one_off(-1000),
        finalize(),
        invoice(status="paid"),
        credit(1, credit_amount=1),
        said("at most 0 of this invoice"),
        refused("credit_note_exceeds_invoice", "amount"),
    ),
    row("more than remains", OPEN, credit(1001), refused("credit_note_exceeds_invoice", "amount")),
    row("nothing", OPEN, credit(0), refused("amount_too_small", "amount")),
    row("with a refund of what was never paid", OPEN, credit(300, refund_amount=300), refused("parameters_exclusive")),
    row(
        "voided: due again",
        OPEN,
        credit(300),
        mark(),
        void_credit(),
        credit_note(status="void", voided_at="2025-01-01"),
        invoice(amount_due=1000, pre_payment_credit_notes_amount=0, payment_intent__amount=1000),
        events("""
            credit_note.voided status=void
            invoice.updated was=amount_due,amount_remaining,pre_payment_credit_notes_amount
        """),
    ),
    row("voided twice", OPEN, credit(300), void_credit(), void_credit(), refused("credit_note_not_voidable")),
    row(
        "voided after the invoice is paid", OPEN, credit(300), pay(), void_credit(), refused("credit_note_not_voidable")
    ),
    row("of a draft", one_off(1000), credit(300), refused("invoice_state_invalid")),
    row("of a void invoice", OPEN, void(), credit(300), refused("invoice_state_invalid")),
    row("of one that was given up", OPEN, give_up(), credit(1000), invoice(status="paid")),
    row("while a payment is under way", OPEN, attach(MUTE), pay(), credit(300), refused("payment_in_progress")),
    row(
        "of the first invoice of an incomplete subscription: active",
        subscribe("M31"),
        credit(3100),
        sub(status="active"),
        card=BAD,
    ),
]

AFTER_PAYMENT = [
    row(
        "to the balance",
        PAID,
        credit(300, credit_amount=300),
        credit_note(type="post_payment", post_payment_amount=300, credit_amount=300),
        credit_note(customer_balance_transaction="set"),
        invoice(status="paid", amount_due=1000, amount_paid=1000, post_payment_credit_notes_amount=300),
        balance(-300, "credit_note"),
    ),
    row(
        "as a refund",
        PAID,
        credit(300, refund_amount=300),
        credit_note(refund="set", refund_amount=300),
        refunds(300),
    ),
    row(
        "out of band",
        PAID,
        credit(300, out_of_band_amount=300),
        credit_note(out_of_band_amount=300),
        refunds(),
        balance(0),
    ),
    row(
        "in parts: told whole",
        PAID,
        credit(600, refund_amount=100, credit_amount=200, out_of_band_amount=300),
        credit_note(customer_balance_transaction="set", refund="set"),
        events("""
            credit_note.created
            invoice.updated was=post_payment_credit_notes_amount
            customer.updated was=balance
            charge.refunded
        """),
        refunds(100),
        balance(-200),
    ),
    row("parts that do not add up", PAID, credit(600, refund_amount=100), refused("parameter_invalid", "amount")),
    row("no parts", PAID, credit(600), refused("parameter_invalid", "amount")),
    row(
        "more than was invoiced",
        PAID,
        credit(700, credit_amount=700),
        credit(400, credit_amount=400),
        refused("credit_note_exceeds_invoice", "amount"),
    ),
    row(
        "more refunded than was paid by card",
        adjust_balance(-400, currency="usd"),
        PAID,
        credit(700, refund_amount=700),
        refused("refund_exceeds_payment", "refund_amount"),
    ),
    row(
        "not voided any more", PAID, credit(300, credit_amount=300), void_credit(), refused("credit_note_not_voidable")
    ),
    row("all of it", PAID, credit(1000, credit_amount=1000), balance(-1000)),
]

REFUNDS = [
    row("all that was paid", PAID, refund(), refunds(1000), events("charge.refunded status=succeeded")),
    row("a part, then the rest", PAID, refund(amount=300), refund(), refunds(300, 700)),
    row("more than is left", PAID, refund(amount=300), refund(amount=701), refused("refund_exceeds_payment", "amount")),
    row("what was not paid", OPEN, refund(), refused("payment_intent_unexpected_state")),
    row(
        "what was paid out of band",
        OPEN,
        pay(paid_out_of_band=True),
        refund(),
        refused("payment_intent_unexpected_state"),
    ),
    row("one that fails may be tried again", PAID, refund(fails=True), refunds(), refund(), refunds(1000)),
]

BALANCE = [
    row(
        "credit and debit",
        adjust_balance(-500, currency="usd", description="goodwill"),
        adjust_balance(200),
        balance(-300, "adjustment", "adjustment"),
        customer(currency="usd"),
    ),
    row("without a currency", adjust_balance(-500), refused("balance_currency_unknown", "currency")),
    row(
        "in another currency",
        adjust_balance(-500, currency="usd"),
        adjust_balance(-500, currency="eur"),
        refused("currency_mismatch", "currency"),
    ),
    row("from the beginning", balance(-500, "initial"), customer(version=1), balance=-500, currency="usd", card=None),
    row(
        "a deleted customer gets nothing new",
        adjust_balance(-500, currency="usd"),
        delete_customer(),
        adjust_balance(1),
        refused("customer_deleted"),
        subscribe("M31"),
        refused("customer_deleted"),
        attach(OK),
        refused("customer_deleted"),
        change_customer(name="J"),
        refused("customer_deleted"),
    ),
    row(
        "an intent without a card",
        OPEN,
        confirm(),
        refused("invoice_no_payment_method"),
        card=None,
    ),
    row(
        "nor an invoice or an item",
        adjust_balance(-500, currency="usd"),
        delete_customer(),
        bill(currency="usd"),
        refused("customer_deleted"),
        item(1),
        refused("customer_deleted"),
        delete_customer(),
        refused("customer_deleted"),
    ),
]


@pytest.mark.parametrize("row", BEFORE_PAYMENT + AFTER_PAYMENT)
def test_credit_notes(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", REFUNDS + BALANCE)
def test_refunds_and_balance(row: Row) -> None:
    row.play()
