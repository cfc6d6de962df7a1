"""Paying and editing invoices by hand (semantics 3, decision 8)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import OverduePolicy, Settings
from tests.domain.rules.shop import ASK, BAD, LOST, OK
from tests.domain.rules.sights import charges, events, invoice, refused
from tests.domain.rules.steps import (
    Fields,
    Row,
    attach,
    change_invoice,
    confirm,
    finalize,
    give_up,
    mark,
    one_off,
    pay,
    row,
    subscribe,
    to,
    void,
)

FEBRUARY = (subscribe("M31"), to("2025-02-01"), mark())
"""A renewal's draft, just made."""

SENT: Fields = {"collection_method": "send_invoice", "days_until_due": 10}

PAYING = [
    row(
        "by hand, declined: attempt_count is 1, and manual attempts do not raise it",
        one_off(1000),
        attach(BAD),
        finalize(),
        pay(),
        pay(),
        invoice(attempt_count=1, attempts_started=2, attempted=True),
        attach(OK),
        pay(),
        invoice(status="paid", attempt_count=1, amount_paid=1000, amount_remaining=0),
    ),
    row(
        "by hand between retries: the schedule stays",
        FEBRUARY,
        attach(BAD),
        to("2025-02-02"),
        pay(),
        invoice(attempt_count=1, next_payment_attempt="2025-02-04 01:00"),
        to("2025-02-04 01:00"),
        invoice(attempt_count=2, next_payment_attempt="2025-02-09 01:00"),
    ),
    row("a paid one", one_off(1000), pay(), pay(), refused("invoice_state_invalid")),
    row("a void one", one_off(1000), finalize(), void(), pay(), refused("invoice_state_invalid")),
    row("a draft is finalized first", one_off(1000), pay(), invoice(status="paid", number="set")),
    row("without a payment method", one_off(1000), pay(), refused("invoice_no_payment_method"), card=None),
    row(
        "out of band: the intent asks for nothing any more",
        one_off(1000),
        finalize(),
        mark(),
        pay(paid_out_of_band=True),
        invoice(status="paid", amount_paid=1000, paid_out_of_band=True, attempt_count=0),
        invoice(payment_intent__status="canceled", payment_intent__cancellation_reason="automatic"),
        events("""
            invoice.updated
            invoice.paid
            invoice.payment_succeeded
            payment_intent.canceled status=canceled
        """),
        charges(0),
    ),
    row(
        "an action is needed, taken by the customer",
        one_off(1000),
        finalize(),
        attach(ASK),
        confirm(),
        invoice(status="open", payment_intent__status="requires_action"),
        confirm(),
        invoice(status="paid"),
    ),
    row(
        "with a card that was declined for good: tried by hand all the same",
        one_off(1000),
        finalize(),
        attach(LOST),
        pay(),
        pay(),
        charges(2),
    ),
    row("with an unknown card", one_off(1000), pay(payment_method=OK), invoice(status="paid")),
    row(
        "automatic collection switched off: no retry; on again: the schedule goes on",
        FEBRUARY,
        attach(BAD),
        to("2025-02-02"),
        change_invoice(auto_advance=False),
        invoice(next_payment_attempt=None),
        to("2025-02-05"),
        invoice(attempt_count=1),
        change_invoice(auto_advance=True),
        invoice(next_payment_attempt="2025-02-05 01:00"),
        to("2025-02-05 01:00"),
        invoice(attempt_count=2, next_payment_attempt="2025-02-10 01:00"),
    ),
    row(
        "switched on after a manual decline: that was the first attempt",
        one_off(1000),
        attach(BAD),
        finalize(),
        pay(),
        change_invoice(auto_advance=True),
        invoice(next_payment_attempt="2025-01-04"),
        to("2025-01-04"),
        invoice(attempt_count=2, next_payment_attempt="2025-01-09"),
    ),
    row(
        "switched on before any attempt",
        one_off(1000),
        finalize(),
        change_invoice(auto_advance=True),
        invoice(next_payment_attempt="2025-01-01 01:00"),
        to("2025-01-01 01:00"),
        invoice(status="paid", attempt_count=1),
    ),
    row(
        "one that is sent, declined by hand: not retried",
        one_off(1000, auto_advance=True, **SENT),
        attach(BAD),
        pay(),
        invoice(status="open", attempt_count=1, next_payment_attempt=None),
    ),
    row(
        "an action that nobody can take off session",
        one_off(1000),
        finalize(),
        attach(ASK),
        confirm(),
        confirm(off_session=True),
        invoice(status="open", payment_intent__status="requires_payment_method"),
    ),
]

FROZEN: Fields = {
    "footer": "f",
    "statement_descriptor": "ANOTHER",
    "collection_method": "charge_automatically",
    "days_until_due": 3,
    "default_payment_method": OK,
}

EDITING = [
    row(
        "a draft's method, dates and texts",
        one_off(1000),
        mark(),
        change_invoice(collection_method="send_invoice", days_until_due=5, description="d", footer="f"),
        invoice(collection_method="send_invoice", due_date="2025-01-06", description="d", footer="f"),
        events("invoice.updated was=collection_method,days_until_due,description,due_date,footer"),
        change_invoice(collection_method="charge_automatically"),
        invoice(due_date=None, days_until_due=None),
    ),
    row(
        "the next attempt follows the method",
        one_off(1000, auto_advance=True),
        change_invoice(collection_method="send_invoice", days_until_due=5),
        invoice(next_payment_attempt=None, automatically_finalizes_at="2025-01-01 01:00"),
        change_invoice(collection_method="charge_automatically"),
        invoice(next_payment_attempt="2025-01-01 01:00"),
    ),
    row(
        "sending needs a due date",
        one_off(1000),
        change_invoice(collection_method="send_invoice"),
        refused("parameter_missing", "days_until_due"),
    ),
    row(
        "charging takes none",
        one_off(1000),
        change_invoice(days_until_due=5),
        refused("parameters_exclusive", "due_date"),
    ),
    *(
        row(
            f"{name} is frozen at finalization",
            one_off(1000, **SENT),
            finalize(),
            change_invoice(**{name: value}),
            refused("invoice_not_editable", name),
        )
        for name, value in FROZEN.items()
    ),
    row(
        "metadata and description are not",
        one_off(1000),
        finalize(),
        change_invoice(metadata={"a": "1"}, description="d"),
        pay(),
        change_invoice(metadata={"b": "2"}),
        invoice(metadata={"a": "1", "b": "2"}, status="paid"),
    ),
    row(
        "a due date is put off while open, and the overdue policy with it",
        one_off(1000, auto_advance=True, **SENT),
        to("2025-01-12"),
        change_invoice(due_date="2025-02-01"),
        to("2025-02-10"),
        invoice(status="open"),
        to("2025-02-11"),
        invoice(status="uncollectible"),
        settings=Settings(overdue_policy=OverduePolicy(days_after_due=10, invoice_action="uncollectible")),
    ),
    row(
        "automatic collection of what is paid",
        one_off(1000),
        pay(),
        change_invoice(auto_advance=True),
        refused("invoice_not_editable", "auto_advance"),
    ),
    row(
        "the etag of an older version",
        one_off(1000),
        change_invoice(description="d", etag="v0"),
        refused("etag_mismatch", "etag"),
    ),
    row("voiding a draft", one_off(1000), void(), refused("invoice_state_invalid")),
    row("giving up a draft", one_off(1000), give_up(), refused("invoice_state_invalid")),
    row("giving up twice", one_off(1000), finalize(), give_up(), give_up(), refused("invoice_state_invalid")),
    row("voiding what was given up", one_off(1000), finalize(), give_up(), void(), invoice(status="void")),
    row("voiding what is paid", one_off(1000), pay(), void(), refused("invoice_state_invalid")),
    row("finalizing twice", one_off(1000), finalize(), finalize(), refused("invoice_state_invalid")),
    row(
        "cleared days until due change nothing",
        one_off(1000, **SENT),
        change_invoice(days_until_due=None),
        invoice(due_date="2025-01-11", days_until_due=10),
    ),
]


@pytest.mark.parametrize("row", PAYING)
def test_paying(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", EDITING)
def test_editing(row: Row) -> None:
    row.play()
