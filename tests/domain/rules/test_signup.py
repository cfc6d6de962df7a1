"""How subscriptions begin: first status, first invoice, payment behavior (semantics 2.2 and 2.3)."""

from __future__ import annotations

import pytest

from tests.domain.rules.shop import ASK, BAD, MUTE, OK
from tests.domain.rules.sights import (
    balance,
    charges,
    customer,
    events,
    invoice,
    invoices,
    no_events,
    pending,
    refunds,
    refused,
    sub,
)
from tests.domain.rules.steps import (
    Fields,
    Row,
    adjust_balance,
    attach,
    cancel,
    confirm,
    give_up,
    item,
    mark,
    pay,
    resolve,
    row,
    subscribe,
    to,
    update,
    void,
)

FIRST_STATUS = [
    row(
        "paid in the request: active",
        subscribe("M31"),
        sub(status="active", expires_at=None, billing_cycle_anchor="2025-01-01", start_date="2025-01-01"),
        sub(current_period_start="2025-01-01", current_period_end="2025-02-01"),
        invoice(status="paid", total=3100, amount_paid=3100, attempt_count=1, attempted=True, auto_advance=False),
        invoice(billing_reason="subscription_create", number="S_000001-0001", paid_at="2025-01-01"),
        invoice(lines=[(3100, "2025-01-01", "2025-02-01")]),
        events("""
            customer.updated was=currency
            customer.subscription.created status=incomplete
            invoice.created status=draft
            invoice.finalized status=open
            payment_intent.created
            payment_intent.succeeded status=succeeded
            invoice.updated was=amount_paid,amount_remaining,attempt_count,attempted,paid_at,status
            invoice.paid status=paid
            invoice.payment_succeeded
            customer.subscription.updated was=expires_at,status was.status=incomplete status=active
        """),
    ),
    row(
        "S10: declined: incomplete, open, no retry",
        subscribe("M31"),
        sub(status="incomplete", expires_at="2025-01-01 23:00"),
        invoice(status="open", attempt_count=1, attempted=True, auto_advance=False, next_payment_attempt=None),
        invoice(payment_intent__status="requires_payment_method"),
        customer(delinquent=False),
        events("""
            customer.updated was=currency
            customer.subscription.created status=incomplete
            invoice.created
            invoice.finalized
            payment_intent.created
            payment_intent.payment_failed last_payment_error.decline_code=generic_decline
            invoice.updated was=attempt_count,attempted was.attempt_count=0 was.attempted=False
            invoice.payment_failed attempt_count=1 next_payment_attempt=None
        """),
        to("2025-01-01 22:59:59"),
        no_events(),
        charges(1),
        card=BAD,
    ),
    row(
        "3DS: incomplete, with an action to take",
        subscribe("M31"),
        sub(status="incomplete"),
        invoice(status="open", attempt_count=1, payment_intent__status="requires_action"),
        events("""
            customer.updated
            customer.subscription.created status=incomplete
            invoice.created
            invoice.finalized
            payment_intent.created
            payment_intent.requires_action status=requires_action
            invoice.payment_action_required
            invoice.payment_failed attempt_count=1
        """),
        confirm(),
        sub(status="active"),
        events("""
            payment_intent.succeeded
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was.status=incomplete
        """),
        card=ASK,
    ),
    row(
        "3DS off session is declined for good",
        subscribe("M31", off_session=True),
        sub(status="incomplete"),
        invoice(payment_intent__status="requires_payment_method", hard_declined_method="set"),
        card=ASK,
    ),
    row(
        "no payment method: incomplete, nothing charged",
        subscribe("M31"),
        sub(status="incomplete"),
        invoice(status="open", attempt_count=1),
        charges(0),
        events("""
            customer.updated
            customer.subscription.created
            invoice.created
            invoice.finalized
            payment_intent.created
            invoice.updated was=attempt_count,attempted
            invoice.payment_failed
        """),
        card=None,
    ),
    row(
        "nothing to pay: active at once, with a paid invoice of zero",
        subscribe("M_FREE"),
        sub(status="active"),
        invoice(status="paid", total=0, amount_due=0, attempt_count=0, auto_advance=False),
        events("""
            customer.updated
            customer.subscription.created status=active
            invoice.created status=draft
            invoice.finalized status=paid
            invoice.paid
            invoice.payment_succeeded
        """),
        card=None,
    ),
    row(
        "credit of the customer covers all: active at once",
        adjust_balance(-5000),
        subscribe("M31"),
        sub(status="active"),
        invoice(status="paid", starting_balance=-5000, ending_balance=-1900, amount_due=0, amount_paid=0),
        balance(-1900, "adjustment", "applied_to_invoice"),
        charges(0),
        card=None,
        currency="usd",
    ),
    row(
        "S20: send_invoice is active at once, its invoice a draft for an hour",
        subscribe("M31", collection_method="send_invoice", days_until_due=30),
        sub(status="active"),
        invoice(status="draft", auto_advance=True, automatically_finalizes_at="2025-01-01 01:00"),
        invoice(due_date="2025-01-31", next_payment_attempt=None, number=None),
        to("2025-01-01 00:59:59"),
        invoice(status="draft"),
        mark(),
        to("2025-01-01 01:00"),
        invoice(status="open", due_date="2025-01-31", next_payment_attempt=None, number="set", attempt_count=0),
        events("""
            invoice.finalized
            payment_intent.created
            invoice.sent status=open
        """),
        card=None,
    ),
    row(
        "an unbound pending item rides on the first invoice, those of the customer's other subscriptions do not",
        subscribe("M10"),
        item(700, of_subscription=True),
        item(500),
        subscribe("M31"),
        invoice(lines=[500, 3100]),
        pending(700),
    ),
    row(
        "add_invoice_items are on the first invoice",
        subscribe("M31", add_invoice_items=["SETUP", ("SETUP", 2)]),
        invoice(lines=[3100, 2000, 4000], total=9100),
    ),
    row(
        "first invoice below the minimum with a debt: the sum counts",
        adjust_balance(30, currency="usd"),
        subscribe("M_CENTS"),
        invoice(status="paid", starting_balance=30, amount_due=60, ending_balance=0),
        balance(0, "adjustment", "applied_to_invoice"),
    ),
    row(
        "the outcome is unknown: incomplete until it is known",
        subscribe("M31"),
        sub(status="incomplete"),
        invoice(status="open", attempt_count=0),
        pay(),
        refused("payment_in_progress"),
        to("2025-01-01 05:00"),
        resolve("paid"),
        sub(status="active"),
        invoice(status="paid"),
        charges(1),
        card=MUTE,
    ),
]

PAYING_LATER = [
    row(
        "S10: paid by hand within 23 hours with another card",
        subscribe("M31"),
        attach(OK),
        to("2025-01-01 22:00"),
        mark(),
        pay(),
        sub(status="active", expires_at=None, current_period_start="2025-01-01"),
        invoice(status="paid", attempt_count=1),
        events("""
            payment_intent.succeeded
            invoice.updated was.status=open
            invoice.paid
            invoice.payment_succeeded
            customer.subscription.updated was=expires_at,status
        """),
        to("2025-02-01 01:00"),
        invoices("paid", "paid"),
        card=BAD,
    ),
    row(
        "paid out of band",
        subscribe("M31"),
        pay(paid_out_of_band=True),
        sub(status="active"),
        invoice(status="paid", paid_out_of_band=True, amount_paid=3100),
        card=BAD,
    ),
    row(
        "a second decline by hand: still incomplete, attempt_count stays 1",
        subscribe("M31"),
        pay(),
        sub(status="incomplete"),
        invoice(attempt_count=1, attempts_started=2),
        charges(2),
        card=BAD,
    ),
    row(
        "given up while incomplete: still incomplete, and expires",
        subscribe("M31"),
        give_up(),
        sub(status="incomplete"),
        to("2025-01-01 23:00"),
        sub(status="incomplete_expired"),
        invoice(status="uncollectible"),
        card=BAD,
    ),
    row(
        "S12: at 23 hours incomplete_expired, invoice void, nothing follows",
        subscribe("M31"),
        to("2025-01-01 22:59:59"),
        sub(status="incomplete"),
        mark(),
        to("2025-01-01 23:00"),
        sub(status="incomplete_expired", ended_at="2025-01-01 23:00", expires_at=None),
        invoice(status="void", payment_intent__status="canceled", payment_intent__cancellation_reason="void_invoice"),
        events("""
            invoice.voided status=void
            payment_intent.canceled
            customer.subscription.updated was=ended_at,expires_at,status was.status=incomplete
        """),
        to("2026-01-01"),
        no_events(),
        pay(),
        refused("invoice_state_invalid"),
        confirm(),
        refused("payment_intent_unexpected_state"),
        card=BAD,
    ),
    row(
        "what waits for an invoice of one that expires goes onto the customer's next one",
        subscribe("M31"),
        item(900, of_subscription=True),
        to("2025-01-02"),
        attach(OK),
        subscribe("M10"),
        invoice(lines=[900, 1000]),
        card=BAD,
    ),
    row(
        "the first invoice is voided: incomplete_expired at once",
        subscribe("M31"),
        mark(),
        void(),
        sub(status="incomplete_expired"),
        events("""
            invoice.updated was.status=open
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was.status=incomplete
        """),
        card=BAD,
    ),
    row(
        "decision 22: cancel while incomplete is incomplete_expired",
        subscribe("M31"),
        to("2025-01-01 10:00"),
        mark(),
        cancel(),
        sub(status="incomplete_expired", ended_at="2025-01-01 10:00", canceled_at="2025-01-01 10:00"),
        invoice(status="void"),
        events("""
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was.status=incomplete
        """),
        card=BAD,
    ),
    row(
        "cancel_at within the 23 hours ends what never began",
        subscribe("M31", cancel_at="2025-01-01 12:00"),
        to("2025-01-01 12:00"),
        sub(status="incomplete_expired", ended_at="2025-01-01 12:00"),
        invoice(status="void"),
        card=BAD,
    ),
    row(
        "a payment that turns out late, after the expiry, is given back once",
        subscribe("M31"),
        to("2025-01-01 23:00"),
        sub(status="incomplete_expired"),
        to("2025-01-02 06:00"),
        resolve("paid"),
        sub(status="incomplete_expired"),
        invoice(status="void", amount_paid=0),
        refunds(3100),
        card=MUTE,
    ),
    row(
        "a charge the gateway never saw is not made after the expiry",
        subscribe("M31"),
        to("2025-01-01 23:00"),
        resolve("not found"),
        invoice(status="void", charging=False),
        charges(1),
        card=MUTE,
    ),
    row(
        "a charge the gateway never saw is made, once, while it is wanted",
        subscribe("M31"),
        to("2025-01-01 01:00"),
        attach(OK),
        mark(),
        resolve("not found"),
        charges(2),
        card=MUTE,
    ),
]

NOT_YET: list[Fields] = [
    {"quantity": 2},
    {"price": "M10"},
    {"trial_end": "2025-02-01"},
    {"cancel_at_period_end": True},
    {"billing_cycle_anchor_now": True},
    {"collection_method": "send_invoice", "days_until_due": 5},
    {"add_invoice_items": ["SETUP"]},
    {"pause_collection": None, "off_session": True},
]

INCOMPLETE_UPDATES = [
    row(
        "S14: metadata, description, saving and the card may change",
        subscribe("M31"),
        attach(OK, default=False),
        update(metadata={"a": "1"}),
        update(description="d"),
        update(save_default_payment_method="on_subscription"),
        update(default_payment_method=OK),
        sub(metadata={"a": "1"}, description="d", current_period_end="2025-02-01"),
        pay(),
        sub(status="active"),
        card=BAD,
    ),
    *(
        row(
            f"S14: {next(iter(change))} may not change",
            subscribe("M31"),
            update(**change),
            refused("subscription_incomplete"),
            card=BAD,
        )
        for change in NOT_YET
    ),
    row(
        "the card that paid is kept when asked for",
        subscribe("M31", save_default_payment_method="on_subscription"),
        attach(OK, default=False),
        pay(payment_method=OK),
        sub(status="active", default_payment_method="set"),
        card=BAD,
    ),
    row(
        "and is not kept otherwise",
        subscribe("M31"),
        attach(OK, default=False),
        pay(payment_method=OK),
        sub(status="active", default_payment_method=None),
        card=BAD,
    ),
]


@pytest.mark.parametrize("row", FIRST_STATUS + PAYING_LATER + INCOMPLETE_UPDATES)
def test_first_status(row: Row) -> None:
    row.play()
