"""Schedules: how they start, how long phases last, and what each does to the subscription (semantics 1, 2.4, 4, 7)."""

from __future__ import annotations

import pytest

from billing_server.domain import signup
from billing_server.domain.schedule import ScheduleDefaults
from tests.domain.rules.shop import BAD, LOST, OK
from tests.domain.rules.sights import (
    balance,
    events,
    events_of,
    invoice,
    invoices,
    pending,
    period,
    plan,
    refused,
    sub,
    totals,
    upcoming,
)
from tests.domain.rules.steps import (
    Row,
    adjust_balance,
    attach,
    detach,
    mark,
    pause,
    phase,
    resume,
    row,
    schedule,
    subscribe,
    to,
    update,
    use,
)
from tests.domain.rules.story import Story

STARTING = [
    row(
        "later: a draft for the draft hour, whatever the card",
        schedule(phase("M31", iterations=2), start_date="2025-02-01"),
        plan(status="not_started", current_phase=None, subscription=None),
        events("""
            customer.updated was=currency
            subscription_schedule.created
        """),
        to("2025-02-01"),
        plan(status="active", current_phase__start_date="2025-02-01", current_phase__end_date="2025-04-01"),
        sub(status="active", schedule="set", latest_invoice="set"),
        invoice(status="draft", total=3100, billing_reason="subscription_create", auto_advance=True),
        events("""
            customer.subscription.created status=active
            invoice.created status=draft
            subscription_schedule.updated was=current_phase,status,subscription
        """),
        to("2025-02-01 01:00"),
        invoice(status="open", attempt_count=1),
        sub(status="past_due"),
        card=BAD,
    ),
    row(
        "now: within the request, nothing is charged yet",
        schedule(phase("M31")),
        sub(status="active"),
        invoice(status="draft", automatically_finalizes_at="2025-01-01 01:00"),
        to("2025-01-01 01:00"),
        invoices("paid"),
    ),
    row(
        "by invoices: a draft as well",
        schedule(phase("M31", collection_method="send_invoice", days_until_due=10)),
        invoice(status="draft", due_date="2025-01-11"),
        to("2025-01-01 01:00"),
        invoice(status="open"),
    ),
    row(
        "with a free trial: nothing due is settled at once",
        schedule(phase("M31", trial=True)),
        sub(status="trialing", trial_end="2025-02-01"),
        invoices("paid"),
    ),
    row(
        "with a trial and a fee: due after the draft hour, trialing all the while",
        schedule(phase("M31", trial=True, add_invoice_items=["SETUP"])),
        sub(status="trialing"),
        invoice(status="draft", total=2000),
        to("2025-01-01 01:00"),
        invoice(status="paid"),
        sub(status="trialing"),
    ),
    row(
        "never in the past", schedule(phase("M31"), start_date="2024-12-31"), refused("time_out_of_range", "start_date")
    ),
    row(
        "not of a price that is not sold",
        schedule(phase("M31"), phase("M_OLD")),
        refused("price_inactive", "phases[1].items[0].price"),
    ),
    row(
        "not in two currencies",
        schedule(phase("M31"), phase("M31_EUR")),
        refused("currency_mismatch", "phases[1].items[0].price"),
    ),
    row(
        "a first schedule fixes the currency of the customer before it starts",
        schedule(phase("M31"), start_date="2025-02-01"),
        subscribe("M31_EUR"),
        refused("currency_mismatch"),
    ),
]

DEBTS = [
    row(
        "with a free trial and an old debt: never incomplete, charged after the draft hour",
        adjust_balance(700, currency="usd"),
        schedule(phase("M31", trial=True)),
        sub(status="trialing"),
        invoice(status="draft"),
        to("2025-01-01 01:00"),
        invoice(status="paid", amount_due=700),
    ),
]

LENGTHS = [
    row(
        "billing periods along the anchor do not drift",
        schedule(phase("M31", iterations=1), phase("M31", iterations=1), phase("M31", iterations=1)),
        plan(phases__0__end_date="2025-02-28", phases__1__end_date="2025-03-31", phases__2__end_date="2025-04-30"),
        start="2025-01-31",
    ),
    row(
        "a length by the calendar",
        schedule(phase("M31", duration=("week", 6))),
        plan(phases__0__end_date="2025-02-12"),
    ),
    row(
        "after a trial, from its end",
        schedule(phase("M31", trial_end="2025-01-15", end_date="2025-02-15"), phase("M31")),
        plan(phases__0__trial_end="2025-01-15", phases__1__end_date="2025-03-15"),
    ),
    row(
        "after a new anchor, from it",
        schedule(phase("M31", end_date="2025-01-15"), phase("M31", billing_cycle_anchor="phase_start")),
        plan(phases__1__end_date="2025-02-15"),
    ),
    row(
        "of another interval, from the start of the phase",
        schedule(phase("M31", end_date="2025-01-15"), phase("Y120")),
        plan(phases__1__end_date="2026-01-15"),
    ),
    row(
        "off the cycle, from the start of the phase",
        schedule(phase("M31", end_date="2025-01-15"), phase("M31")),
        plan(phases__1__end_date="2025-02-15"),
    ),
    row("not backwards", schedule(phase("M31", end_date="2024-12-01")), refused("time_out_of_range")),
    row("not forever", schedule(phase("Y120", iterations=1200)), refused("time_out_of_range", "phases[0].iterations")),
    row(
        "trials within their phase",
        schedule(phase("M31", trial_end="2025-03-01")),
        refused("time_out_of_range", "phases[0].trial_end"),
    ),
    row(
        "trials of 730 days",
        schedule(phase("M31", trial=True, duration=("year", 3))),
        refused("time_out_of_range", "phases[0].trial_end"),
    ),
]

CHANGING = [
    row(
        "with a renewal of the same second: the new period costs the new price",
        schedule(phase("M10"), phase("M30")),
        to("2025-01-31"),
        mark(),
        to("2025-02-01"),
        events("""
            subscription_schedule.updated was=current_phase
            customer.subscription.updated was=items
            customer.subscription.updated was=current_period_end,current_period_start,latest_invoice
            invoice.created total=3000
        """),
        pending(),
        totals(1000, 3000),
    ),
    row(
        "within a period, prorated on the next invoice",
        schedule(phase("M10", end_date="2025-01-16 12:00"), phase("M30")),
        to("2025-01-16 12:00"),
        pending(-500, 1500),
        to("2025-02-01"),
        totals(1000, 4000),
    ),
    row(
        "within a period, invoiced at once: a draft",
        schedule(phase("M10", end_date="2025-01-16 12:00"), phase("M30", proration_behavior="always_invoice")),
        to("2025-01-16 12:00"),
        invoice(status="draft", total=1000, billing_reason="subscription_update"),
        to("2025-01-16 13:00"),
        invoice(status="paid"),
    ),
    row(
        "within a period, for nothing",
        schedule(phase("M10", end_date="2025-01-16 12:00"), phase("M30", proration_behavior="none")),
        to("2025-02-01"),
        totals(1000, 3000),
    ),
    row(
        "from free to paid with a renewal: one invoice, the old cycle",
        schedule(phase("M_FREE"), phase("M30")),
        to("2025-02-28"),
        totals(0, 3000),
        period("2025-02-28", "2025-03-31"),
        start="2025-01-31",
    ),
    row(
        "another interval: a new cycle, a draft in full",
        schedule(phase("M30", end_date="2025-01-16 12:00"), phase("Y120")),
        to("2025-01-16 12:00"),
        invoice(status="draft", total=12000 - 1500),
        period("2025-01-16 12:00", "2026-01-16 12:00"),
    ),
    row(
        "a new anchor on a boundary: one invoice",
        schedule(phase("M30"), phase("M10", billing_cycle_anchor="phase_start")),
        to("2025-02-28"),
        totals(3000, 1000),
        sub(billing_cycle_anchor="2025-02-28"),
        start="2025-01-31",
    ),
    row(
        "over direct changes",
        schedule(phase("M10"), phase(("M30", 2))),
        update(quantity=7, proration_behavior="none"),
        to("2025-02-01"),
        sub(items__0__price="M30", items__0__quantity=2),
        totals(1000, 6000),
    ),
    row(
        "an item of the same price stays the same",
        schedule(phase("M10", "M30"), phase(("M30", 3))),
        to("2025-02-01"),
        sub(items__0__price="M30", items__0__quantity=3),
        totals(4000, 9000),
    ),
    row(
        "with default settings",
        schedule(
            phase("M10"),
            phase("M30", description="second"),
            default_settings=ScheduleDefaults(collection_method="send_invoice", days_until_due=5, description="first"),
        ),
        sub(description="first", collection_method="send_invoice", days_until_due=5),
        to("2025-02-01"),
        sub(description="second", collection_method="send_invoice", days_until_due=5),
    ),
    row(
        "a trial goes over into a paid phase",
        schedule(phase("M10", trial=True), phase("M30")),
        to("2025-02-01"),
        sub(status="active"),
        totals(0, 3000),
    ),
    row(
        "a trial that was made longer directly ends with its phase",
        schedule(phase("M10", trial=True), phase("M30")),
        update(trial_end="2025-03-01"),
        to("2025-02-01"),
        sub(status="active", trial_end="2025-02-01", billing_cycle_anchor="2025-02-01"),
        totals(0, 3000),
    ),
    row(
        "one trial after the other",
        schedule(phase("M10", trial=True), phase("M10", trial=True), phase("M10")),
        to("2025-02-01"),
        sub(status="trialing", trial_end="2025-03-01"),
        to("2025-03-01"),
        totals(0, 1000),
    ),
    row(
        "a trial in the middle gives back the rest",
        schedule(phase("M30", end_date="2025-01-16 12:00"), phase("M30", trial=True, duration=("day", 7))),
        to("2025-01-16 12:00"),
        sub(status="trialing", trial_end="2025-01-23 12:00"),
        balance(-1500, "applied_to_invoice"),
    ),
    row(
        "without a payment method at the end of a trial: paused, and phases only change the items",
        schedule(phase("M10", trial=True), phase("M10"), phase("M30", billing_cycle_anchor="phase_start")),
        update(missing_payment_method="pause"),
        to("2025-02-01"),
        sub(status="paused"),
        to("2025-03-01"),
        sub(status="paused", items__0__price="M30"),
        totals(0),
        attach(OK),
        resume(),
        totals(0, 3000),
        card=None,
    ),
    row(
        "while collection is paused: applied, nothing collected",
        schedule(phase("M10", end_date="2025-01-16 12:00"), phase("M30", proration_behavior="always_invoice")),
        to("2025-01-10"),
        pause("void"),
        to("2025-02-01"),
        sub(items__0__price="M30", status="active"),
        invoices("paid", "void", "void"),
        plan(status="active"),
    ),
    row(
        "to metered items: the renewal between them is announced without usage",
        schedule(phase("M10"), phase("M_METERED", "M20")),
        use(5),
        to("2025-01-24"),
        mark(),
        to("2025-01-25"),
        events("invoice.upcoming total=2000"),
        upcoming(lines=[2000, 0]),
        to("2025-02-01"),
        invoice(lines=[2000, 0]),
    ),
    row(
        "to metered items alone while collection is paused: nothing to bill, and time goes on",
        schedule(phase("M31", duration=("day", 10)), phase("D_METERED", iterations=3, proration_behavior="none")),
        pause("mark_uncollectible"),
        to("2025-01-13"),
        sub(status="active", items__0__price="D_METERED"),
        invoices("paid", "paid", "paid"),
    ),
    row(
        "a pending update is dropped",
        schedule(phase("M10", end_date="2025-01-16 12:00"), phase("M30")),
        to("2025-01-16"),
        attach(BAD),
        update(quantity=5, payment_behavior="pending_if_incomplete", proration_behavior="always_invoice"),
        sub(pending_update="set"),
        to("2025-01-16 12:00"),
        sub(pending_update=None, items__0__quantity=1, items__0__price="M30"),
        events_of("customer.subscription.pending", "customer.subscription.pending_update_expired"),
    ),
]


@pytest.mark.parametrize("story", [*STARTING, *DEBTS, *LENGTHS, *CHANGING])
def test_schedules(story: Row) -> None:
    story.play()


def test_a_payment_method_that_was_detached_meanwhile_is_not_set() -> None:
    def steps(story: Story) -> None:
        second = phase("M30", default_payment_method=story.method(LOST).id)
        schedule(phase("M10"), second)(story)

    then = (detach(LOST), to("2025-02-01"), sub(items__0__price="M30", default_payment_method=None))
    row("", attach(LOST, default=False), steps, *then).values[0].play()


def test_a_customer_has_at_most_500_active_or_scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedules that have not started count like subscriptions; the limit is lowered, to be reached soon."""
    steps = (subscribe("M10"), *[schedule(phase("M10"), start_date="2025-02-01")] * 2)
    monkeypatch.setattr(signup, "SUBSCRIPTIONS_MAX", 3)
    row("", *steps, subscribe("M10"), refused("customer_max_subscriptions")).values[0].play()
    row("", *steps, schedule(phase("M10")), refused("customer_max_subscriptions")).values[0].play()
