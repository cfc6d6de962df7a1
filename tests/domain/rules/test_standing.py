"""Which invoice decides the status of its subscription, also when invoices are voided (semantics 2.1 and 2.5)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from billing_server.domain.dunning import RetryPolicy
from tests.domain.rules.shop import BAD, OK
from tests.domain.rules.sights import balance, customer, events, invoice, invoices, no_events, sub
from tests.domain.rules.steps import (
    Fields,
    Row,
    attach,
    bill,
    change_customer,
    change_invoice,
    credit,
    delete_customer,
    detach,
    finalize,
    give_up,
    item,
    mark,
    one_off,
    pause,
    pay,
    row,
    settings,
    subscribe,
    to,
    unpause,
    update,
    void,
)

ONCE = RetryPolicy(kind="custom", retry_days=(1,))
LEAVE = Settings(retry_policy=ONCE, subscription_final_action="past_due")
"""One retry after a day; then the subscription is left past due and the invoice open."""

WEEKLY = (subscribe("W7"), attach(BAD), to("2025-01-09 01:00"))
"""700 a week. The invoice of January 8 has failed and was given up on the 9th."""

SENT: Fields = {"collection_method": "send_invoice", "days_until_due": 10}

PAID = [
    row(
        "the latest invoice is paid: active, whatever older ones say",
        WEEKLY,
        to("2025-01-15 01:00"),
        invoices("paid", "open", "open"),
        sub(status="past_due"),
        attach(OK),
        pay(2),
        sub(status="active"),
        customer(delinquent=False),
        settings=LEAVE,
    ),
    row(
        "an older invoice is paid: past due still, but no longer delinquent",
        WEEKLY,
        to("2025-01-15 01:00"),
        attach(OK),
        pay(1),
        sub(status="past_due"),
        customer(delinquent=False),
        settings=LEAVE,
    ),
    row(
        "a draft of a new period says nothing yet",
        WEEKLY,
        to("2025-01-15"),
        attach(OK),
        pay(1),
        sub(status="active"),
        invoices("paid", "paid", "draft"),
        settings=LEAVE,
    ),
    row(
        "a failed invoice made by hand says nothing about the subscription",
        subscribe("M31"),
        bill(of_subscription=True, auto_advance=True),
        item(900, on=1),
        attach(BAD),
        finalize(),
        invoice(status="open", attempt_count=1, next_payment_attempt="2025-01-04"),
        sub(status="active"),
        customer(delinquent=True),
    ),
    row(
        "an invoice released from a pause is the latest, and fails",
        subscribe("M31"),
        pause("keep_as_draft"),
        to("2025-02-02"),
        unpause(),
        attach(BAD),
        change_invoice(auto_advance=True),
        to("2025-02-02 01:00"),
        invoice(status="open", attempt_count=1),
        sub(status="past_due"),
    ),
    row(
        "an invoice released from a pause fails, but a newer one is paid",
        subscribe("M31"),
        pause("keep_as_draft"),
        to("2025-02-02"),
        unpause(),
        to("2025-03-01 01:00"),
        attach(BAD),
        change_invoice(1, auto_advance=True),
        to("2025-03-01 02:00"),
        invoices("paid", "open", "paid"),
        sub(status="active"),
    ),
    row(
        "credited in full is paid",
        WEEKLY,
        credit(700),
        invoice(status="paid", amount_due=0, pre_payment_credit_notes_amount=700),
        sub(status="active"),
        settings=LEAVE,
    ),
    row(
        "paid out of band",
        WEEKLY,
        pay(paid_out_of_band=True),
        sub(status="active"),
        settings=LEAVE,
    ),
    row(
        "a newer invoice made by hand fails, and the latest of the subscription is paid: active",
        WEEKLY,
        bill(of_subscription=True, auto_advance=True),
        item(900, on=-1),
        finalize(),
        attach(OK),
        pay(1),
        sub(status="active"),
        settings=LEAVE,
    ),
    row(
        "an invoice that was voided by a pause does not hide the one that fails after it",
        subscribe("M10"),
        attach(BAD),
        to("2025-02-01 00:30"),
        pause("void"),
        update(quantity=2, proration_behavior="always_invoice"),
        to("2025-02-01 01:00"),
        invoices("paid", "open", "void"),
        sub(status="past_due"),
    ),
]

DUE = [
    row(
        "S21: the due date passes: past due, the invoice open and overdue, nothing retried",
        subscribe("M31", collection_method="send_invoice", days_until_due=30),
        to("2025-01-30 23:59:59"),
        sub(status="active"),
        invoice(overdue=False),
        mark(),
        to("2025-01-31"),
        sub(status="past_due"),
        invoice(status="open", overdue=True, attempt_count=0, next_payment_attempt=None),
        customer(delinquent=True),
        events("""
            customer.subscription.updated was=status was.status=active @2025-01-31
            customer.updated was=delinquent
        """),
        pay(paid_out_of_band=True),
        sub(status="active"),
        customer(delinquent=False),
        card=None,
    ),
    row(
        "a due date passes while a newer invoice is paid: still active",
        subscribe("M31", collection_method="send_invoice", days_until_due=45),
        to("2025-02-02"),
        pay(1, paid_out_of_band=True),
        to("2025-02-15"),
        invoice(0, status="open", overdue=True),
        sub(status="active"),
        customer(delinquent=True),
        card=None,
    ),
    row(
        "a due date passes while a newer invoice is not due yet: past due",
        subscribe("M31", collection_method="send_invoice", days_until_due=45),
        to("2025-02-15"),
        invoices("open", "open"),
        sub(status="past_due"),
        card=None,
    ),
    row(
        "and active again when the older one is paid",
        subscribe("M31", collection_method="send_invoice", days_until_due=45),
        to("2025-02-15"),
        pay(0, paid_out_of_band=True),
        sub(status="active"),
        card=None,
    ),
    row(
        "a due date that was put off passes later",
        subscribe("M31", **SENT),
        to("2025-01-02"),
        change_invoice(due_date="2025-01-20"),
        to("2025-01-19"),
        sub(status="active"),
        to("2025-01-20"),
        sub(status="past_due"),
        card=None,
    ),
]

UNCOLLECTIBLE = [
    row(
        "given up by the API: active, no longer delinquent",
        WEEKLY,
        mark(),
        give_up(),
        sub(status="active"),
        customer(delinquent=False),
        events("""
            invoice.updated was=auto_advance,marked_uncollectible_at,status
            invoice.marked_uncollectible
            customer.subscription.updated was=status was.status=past_due
            customer.updated was=delinquent
        """),
        settings=LEAVE,
    ),
    row(
        "given up by the API, an older one: still past due",
        WEEKLY,
        to("2025-01-15 01:00"),
        give_up(1),
        sub(status="past_due"),
        settings=LEAVE,
    ),
    row(
        "given up by the settings: still past due and delinquent",
        WEEKLY,
        invoice(status="uncollectible"),
        sub(status="past_due"),
        customer(delinquent=True),
        settings=Settings(
            retry_policy=ONCE, subscription_final_action="past_due", invoice_final_action="uncollectible"
        ),
    ),
    row(
        "paid after it was given up: paid",
        WEEKLY,
        give_up(),
        attach(OK),
        pay(),
        invoice(status="paid", marked_uncollectible_at="set"),
        settings=LEAVE,
    ),
    row(
        "declined after it was given up: uncollectible, not retried",
        WEEKLY,
        give_up(),
        pay(),
        invoice(status="uncollectible", next_payment_attempt=None, attempt_count=2),
        sub(status="active"),
        settings=LEAVE,
    ),
]

VOIDED = [
    row(
        "the first invoice: past due becomes active",
        subscribe("M31", **SENT),
        to("2025-01-11"),
        sub(status="past_due"),
        void(),
        sub(status="active"),
        card=None,
    ),
    row(
        "the first invoice: active stays active",
        subscribe("M31", **SENT),
        to("2025-01-02"),
        void(),
        sub(status="active"),
        card=None,
    ),
    row(
        "the first invoice while a newer one is missing: still past due",
        subscribe("W7", **SENT),
        to("2025-01-18"),
        sub(status="past_due"),
        void(0),
        sub(status="past_due"),
        card=None,
    ),
    row(
        "the most recent, and the one before is paid: active",
        WEEKLY,
        mark(),
        void(),
        sub(status="active"),
        events("""
            invoice.updated was=auto_advance,status,voided_at
            invoice.voided
            payment_intent.canceled
            customer.subscription.updated was=status
        """),
        settings=LEAVE,
    ),
    row(
        "the most recent, and the one before was given up: active",
        WEEKLY,
        to("2025-01-15 01:00"),
        give_up(1),
        void(2),
        sub(status="active"),
        settings=LEAVE,
    ),
    row(
        "the most recent, and the retries of the one before are exhausted: past due by the settings",
        WEEKLY,
        to("2025-01-15 01:00"),
        void(),
        sub(status="past_due"),
        settings=LEAVE,
    ),
    row(
        "the same, canceled by the settings",
        WEEKLY,
        to("2025-01-15 01:00"),
        settings(subscription_final_action="cancel"),
        void(),
        sub(status="canceled"),
        settings=LEAVE,
    ),
    row(
        "the same, unpaid by the settings",
        WEEKLY,
        to("2025-01-15 01:00"),
        settings(subscription_final_action="unpaid"),
        void(),
        sub(status="unpaid"),
        settings=LEAVE,
    ),
    row(
        "the most recent, and the one before is beyond its due date: past due",
        subscribe("M31", collection_method="send_invoice", days_until_due=20),
        to("2025-02-02"),
        sub(status="past_due"),
        void(1),
        sub(status="past_due"),
        card=None,
    ),
    row(
        "the most recent, and the one before is still being retried: it goes on to the one that is paid",
        subscribe("W7"),
        attach(BAD),
        to("2025-01-15 01:00"),
        void(2),
        sub(status="active"),
        invoice(1, next_payment_attempt="set"),
    ),
    row(
        "an older one while the newest is missing: still past due",
        WEEKLY,
        to("2025-01-15 01:00"),
        void(1),
        sub(status="past_due"),
        settings=LEAVE,
    ),
    row(
        "the one that is missing, while the newest is only a draft: active",
        WEEKLY,
        to("2025-01-15"),
        void(1),
        sub(status="active"),
        settings=LEAVE,
    ),
    row(
        "the one before decides from then on",
        subscribe("W7", collection_method="send_invoice", days_until_due=10),
        to("2025-01-09"),
        void(1),
        sub(status="active"),
        to("2025-01-11"),
        sub(status="past_due"),
        card=None,
    ),
    row(
        "a first invoice voided on an unpaid subscription: active",
        WEEKLY,
        void(1),
        sub(status="active"),
        settings=Settings(retry_policy=ONCE, subscription_final_action="unpaid"),
    ),
    row(
        "voiding gives back the balance that was consumed",
        subscribe("M31", **SENT),
        change_customer(name="Jenny"),
        to("2025-01-01 01:00"),
        void(),
        balance(0),
        card=None,
    ),
    row(
        "the most recent, and the one before was never asked for",
        subscribe("W7", answers=["paid"]),
        to("2025-01-08"),
        finalize(auto_advance=False),
        to("2025-01-15 01:00"),
        sub(status="past_due"),
        void(2),
        sub(status="active"),
        card=BAD,
        settings=LEAVE,
    ),
]

ENDS = [
    row(
        "a detached card is nobody's default any more",
        subscribe("M31"),
        update(default_payment_method=OK),
        mark(),
        detach(OK),
        sub(default_payment_method=None),
        customer(default_payment_method=None),
        events("""
            payment_method.detached
            customer.updated was=default_payment_method
            customer.subscription.updated was=default_payment_method
        """),
    ),
    row(
        "a deleted customer: subscriptions canceled, incomplete ones expired, nothing collected",
        subscribe("M31"),
        attach(BAD),
        subscribe("M10"),
        bill(auto_advance=True),
        item(900, on=2),
        mark(),
        delete_customer(),
        sub(0, status="canceled"),
        sub(1, status="incomplete_expired"),
        customer(deleted=True),
        to("2025-06-01"),
        invoices("paid", "void", "draft"),
        invoice(2, auto_advance=False),
    ),
    row(
        "a deleted customer's sent invoice falls due without a word",
        one_off(900, collection_method="send_invoice", days_until_due=5),
        finalize(),
        delete_customer(),
        mark(),
        to("2025-03-01"),
        no_events(),
        customer(delinquent=False),
    ),
]


@pytest.mark.parametrize("row", PAID + DUE + UNCOLLECTIBLE)
def test_what_the_latest_invoice_says(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", VOIDED)
def test_voided_invoices(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", ENDS)
def test_what_goes_with_a_card_or_a_customer(row: Row) -> None:
    row.play()
