"""Metered items: billed in arrears, by what was used while it counts (semantics 4, Metered)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.shop import OK, SEATS, VISITS
from tests.domain.rules.sights import events, invoice, invoices, pending, period, sub, totals, usage
from tests.domain.rules.steps import (
    Row,
    attach,
    cancel,
    finalize,
    give_up,
    mark,
    pause,
    resume,
    row,
    subscribe,
    to,
    update,
    use,
)

START = "2025-01-10 08:15:42"
END = "2025-02-10 08:15:42"

ARREARS = [
    row(
        "the first invoice bills nothing, the next one what was used",
        subscribe("M_METERED"),
        invoice(total=0, status="paid", lines=[(0, START, START)]),
        sub(status="active"),
        use(100),
        to("2025-02-01"),
        use(23),
        mark(),
        to(END),
        usage(123),
        invoice(total=615, status="draft", lines=[(615, START, END)]),
        period(END, "2025-03-10 08:15:42"),
        start=START,
    ),
    row(
        "a period holds its first second and not its last",
        subscribe("M_METERED"),
        use(1, START),
        use(10, "2025-01-10 08:15:41"),
        to("2025-02-10 08:15:41"),
        use(100, "2025-02-10 08:15:41"),
        use(1000, END),
        to(END),
        usage(101),
        to("2025-03-10 08:15:42"),
        usage(1000),
        start=START,
    ),
    row(
        "beside a licensed item, which is paid ahead",
        subscribe("M31", "M_METERED"),
        totals(3100),
        use(7),
        to("2025-02-01"),
        usage(1, 7),
        totals(3100, 3135),
    ),
    row("a count does not mind values", subscribe("M_VISITS"), use(9, meter=VISITS), to("2025-02-01"), usage(1)),
    row(
        "the last value, by its own time",
        subscribe("M_SEATS"),
        to("2025-01-20"),
        use(3, "2025-01-05", meter=SEATS),
        use(5, "2025-01-15", meter=SEATS),
        use(4, "2025-01-10", meter=SEATS),
        to("2025-02-01"),
        usage(5),
        to("2025-03-01"),
        usage(0),
    ),
    row("nothing below zero is billed", subscribe("M_METERED"), use(5), use(-9), to("2025-02-01"), usage(0)),
    row(
        "tiers are reached by the sum",
        subscribe("M_METERED_GRADUATED"),
        use(8),
        use(7),
        to("2025-02-01"),
        usage(15),
        invoice(total=10 * 100 + 5 * 50 + 500),
    ),
    row(
        "packages are filled by the sum",
        subscribe("M_METERED_PACK10"),
        use(8),
        use(7),
        to("2025-02-01"),
        usage(15),
        invoice(total=1000),
    ),
    row(
        "each subscription bills the usage of its customer",
        subscribe("M_METERED"),
        subscribe("M_METERED_20"),
        use(3),
        to("2025-02-01"),
        totals(0, 0, 15, 60),
    ),
    row(
        "several periods in one go bill each its own",
        subscribe("D_METERED"),
        use(1, "2025-01-01"),
        use(2, "2025-01-02 12:00"),
        use(4, "2025-01-04"),
        to("2025-01-06"),
        totals(0, 5, 10, 0, 20, 0),
    ),
    row(
        "unpaid: usage waits on a draft",
        subscribe("M_METERED"),
        use(100),
        to("2025-02-20"),
        use(30),
        to("2025-03-01 02:00"),
        usage(30),
        invoice(status="draft", auto_advance=False),
        card="bad",
        settings=Settings(subscription_final_action="unpaid"),
    ),
]


@pytest.mark.parametrize("told", ARREARS)
def test_usage_is_billed_in_arrears(told: Row) -> None:
    told.play()


LATE = [
    row(
        "what comes while the invoice is a draft is on it when it is finalized",
        subscribe("M_METERED"),
        use(100),
        to("2025-02-01 00:30"),
        invoice(status="draft", total=500),
        use(10, "2025-01-31 23:59:59"),
        mark(),
        to("2025-02-01 01:00"),
        usage(110),
        invoice(status="paid", total=550, amount_paid=550),
        events("""
            invoice.finalized status=open total=550
            payment_intent.created amount=550
            payment_intent.succeeded
            invoice.updated status=paid
            invoice.paid
            invoice.payment_succeeded
        """),
    ),
    row(
        "also by hand",
        subscribe("M_METERED"),
        use(100),
        to("2025-02-01 00:30"),
        use(10, "2025-01-31"),
        finalize(),
        usage(110),
    ),
    row(
        "what comes after is not billed",
        subscribe("M_METERED"),
        use(100),
        to("2025-02-01 01:00"),
        use(10, "2025-01-31"),
        to("2025-03-01 01:00"),
        totals(0, 500, 0),
    ),
    row(
        "a draft of paused collection stays open for usage",
        subscribe("M_METERED"),
        pause("keep_as_draft"),
        use(100),
        to("2025-02-01 05:00"),
        use(10, "2025-01-31"),
        finalize(),
        usage(110),
    ),
    row(
        "voided usage is gone",
        subscribe("M_METERED"),
        pause("void"),
        use(100),
        to("2025-03-01 01:00"),
        invoices("paid", "void", "void"),
        totals(0, 500, 0),
    ),
]


@pytest.mark.parametrize("told", LATE)
def test_usage_counts_until_its_invoice_is_finalized(told: Row) -> None:
    told.play()


FREE = [
    row(
        "within a trial",
        subscribe("M_METERED", trial_period_days=10),
        use(5),
        to("2025-01-11"),
        usage(0),
        use(7),
        to("2025-02-11"),
        usage(7),
    ),
    row(
        "within a trial that is ended early",
        subscribe("M_METERED", trial_period_days=10),
        use(5),
        to("2025-01-05"),
        update(trial_end_now=True),
        usage(0),
        use(7),
        to("2025-02-05"),
        usage(7),
    ),
    row(
        "within a trial that is canceled",
        subscribe("M_METERED", trial_period_days=10),
        use(5),
        to("2025-01-05"),
        cancel(invoice_now=True),
        totals(0),
    ),
    row(
        "within a trial that ends with its period",
        subscribe("M_METERED", trial_period_days=10, cancel_at_period_end=True),
        use(5),
        to("2025-01-12"),
        totals(0),
    ),
    row(
        "while paused, then resumed with a new cycle",
        subscribe("M_METERED", trial_period_days=10, missing_payment_method="pause"),
        to("2025-01-20"),
        use(5),
        to("2025-02-20 10:00:30"),
        sub(status="paused"),
        attach(OK),
        resume(),
        sub(status="active"),
        use(70),
        use(5, "2025-02-20 10:00:29"),
        to("2025-03-20 10:00:30"),
        usage(70),
        card=None,
    ),
    row(
        "while paused, then resumed within the old cycle",
        subscribe("M_METERED", trial_period_days=10, missing_payment_method="pause"),
        to("2025-01-20"),
        use(5),
        to("2025-02-20 10:00:30"),
        use(3, "2025-02-15"),
        attach(OK),
        resume(billing_cycle_anchor="unchanged"),
        period("2025-02-11", "2025-03-11"),
        use(70),
        to("2025-03-11"),
        usage(70),
        invoice(lines=[(350, "2025-02-20 10:00:30", "2025-03-11")]),
        to("2025-04-11"),
        usage(0),
        card=None,
    ),
    row(
        "until the resumption is paid",
        subscribe("M31", "M_METERED", trial_period_days=10, missing_payment_method="pause"),
        to("2025-02-01"),
        resume(),
        sub(status="paused"),
        use(5),
        to("2025-02-01 12:00"),
        use(5, "2025-02-01 11:59:59"),
        give_up(),
        sub(status="active"),
        use(70),
        to("2025-03-01"),
        usage(1, 70),
        card=None,
    ),
    row(
        "while paused, then canceled",
        subscribe("M_METERED", trial_period_days=10, missing_payment_method="pause"),
        to("2025-01-20"),
        use(5),
        cancel(invoice_now=True),
        totals(0),
        card=None,
    ),
]


@pytest.mark.parametrize("told", FREE)
def test_usage_is_free(told: Row) -> None:
    told.play()


ENDS = [
    row(
        "canceled with an invoice",
        subscribe("M_METERED"),
        use(5),
        to("2025-01-20 00:00:07"),
        use(7, "2025-01-20 00:00:06"),
        cancel(invoice_now=True),
        usage(12),
        invoice(status="paid", lines=[(60, "2025-01-01", "2025-01-20 00:00:07")]),
    ),
    row("canceled without one", subscribe("M_METERED"), use(5), to("2025-01-20"), cancel(), totals(0)),
    row(
        "canceled with an invoice that nothing is on",
        subscribe("M_METERED"),
        to("2025-01-20"),
        cancel(invoice_now=True),
        totals(0),
    ),
    row(
        "canceled with its period",
        subscribe("M_METERED", cancel_at_period_end=True),
        use(5),
        to("2025-02-01"),
        sub(status="canceled"),
        usage(5),
    ),
    row(
        "canceled within its period, as planned",
        subscribe("M_METERED"),
        update(cancel_at="2025-01-15 00:00:10"),
        use(5),
        to("2025-01-15"),
        use(7, "2025-01-15 00:00:10"),
        to("2025-01-16"),
        sub(status="canceled"),
        usage(5),
    ),
    row(
        "a new cycle",
        subscribe("M31", "M_METERED"),
        use(5),
        to("2025-01-11"),
        update(billing_cycle_anchor_now=True, proration_behavior="none"),
        invoice(lines=[(3100, "2025-01-11", "2025-02-11"), (25, "2025-01-01", "2025-01-11")]),
        use(7),
        to("2025-02-11"),
        usage(1, 7),
    ),
    row(
        "another interval",
        subscribe("M_METERED"),
        use(5),
        to("2025-01-11"),
        update(price="Y_METERED"),
        usage(5),
        use(7),
        to("2026-01-11"),
        usage(7),
    ),
    row(
        "a new trial",
        subscribe("M_METERED"),
        use(5),
        to("2025-01-11"),
        update(trial_end="2025-02-01"),
        usage(None, 5),
        use(7),
        to("2025-02-01"),
        use(9),
        to("2025-03-01"),
        usage(9),
    ),
]


@pytest.mark.parametrize("told", ENDS)
def test_the_end_of_a_period_bills_usage(told: Row) -> None:
    told.play()


ITEMS = [
    row(
        "taken away: its usage waits for the next invoice",
        subscribe("M31", "M_METERED"),
        use(5),
        to("2025-01-11"),
        update(drop=1),
        pending(25),
        use(7),
        to("2025-02-01"),
        usage(5, 1),
        totals(3100, 3125),
    ),
    row(
        "taken away and invoiced at once",
        subscribe("M31", "M_METERED"),
        use(5),
        to("2025-01-11"),
        update(drop=1, proration_behavior="always_invoice"),
        usage(5),
        totals(3100, 25),
    ),
    row(
        "taken away without usage",
        subscribe("M31", "M_METERED"),
        to("2025-01-11"),
        update(drop=1),
        pending(),
    ),
    row(
        "added: counts from then on",
        subscribe("M31"),
        use(5),
        to("2025-01-11"),
        update(add=("M_METERED", None)),
        use(7),
        to("2025-02-01"),
        usage(1, 7),
        use(9),
        to("2025-03-01"),
        usage(1, 9),
    ),
    row(
        "another price of the same meter: the whole period at the new price",
        subscribe("M_METERED"),
        use(5),
        to("2025-01-11"),
        update(price="M_METERED_20"),
        pending(),
        use(7),
        to("2025-02-01"),
        usage(12),
        totals(0, 240),
    ),
    row(
        "another meter: each for its own time",
        subscribe("M_METERED"),
        use(5),
        use(1, meter=VISITS),
        to("2025-01-11"),
        update(price="M_VISITS"),
        pending(25),
        use(7),
        use(1, meter=VISITS),
        to("2025-02-01"),
        usage(5, 1),
        totals(0, 125),
    ),
    row(
        "metered instead of licensed",
        subscribe("M31"),
        use(5),
        to("2025-01-11"),
        update(price="M_METERED", proration_behavior="none"),
        use(7),
        to("2025-02-01"),
        usage(7),
    ),
]


@pytest.mark.parametrize("told", ITEMS)
def test_changes_of_items(told: Row) -> None:
    told.play()


UPCOMING = [
    row(
        "announced with the usage so far",
        subscribe("M_METERED"),
        use(5),
        mark(),
        to("2025-01-25"),
        events("invoice.upcoming total=25 @2025-01-25"),
    ),
]


@pytest.mark.parametrize("told", UPCOMING)
def test_usage_so_far_is_foretold(told: Row) -> None:
    told.play()
