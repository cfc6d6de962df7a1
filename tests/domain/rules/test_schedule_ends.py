"""How schedules end, take over what there is, and are changed (semantics 1 and 4)."""

from __future__ import annotations

import pytest

from billing_server.domain.account import Settings
from tests.domain.rules.shop import BAD
from tests.domain.rules.sights import (
    balance,
    events,
    events_of,
    invoices,
    pending,
    plan,
    refused,
    sub,
    totals,
)
from tests.domain.rules.steps import (
    Row,
    cancel,
    cancel_schedule,
    change_schedule,
    delete_customer,
    mark,
    phase,
    release,
    row,
    schedule,
    subscribe,
    take_over,
    to,
    update,
)

ENDING = [
    row(
        "released: the subscription lives on",
        schedule(phase("M10"), start_date="2025-01-02"),
        to("2025-02-02"),
        plan(status="released", subscription=None, released_subscription="set", released_at="2025-02-02"),
        sub(status="active", schedule=None),
        events_of(
            "subscription_schedule",
            """
            subscription_schedule.created
            subscription_schedule.updated
            subscription_schedule.expiring
            subscription_schedule.released
            """,
        ),
    ),
    row(
        "completed: the subscription ends",
        schedule(phase("M10"), phase("M10"), end_behavior="cancel"),
        sub(cancel_at=None),
        to("2025-02-01"),
        sub(cancel_at="2025-03-01"),
        to("2025-03-01"),
        plan(status="completed", completed_at="2025-03-01", subscription="set"),
        sub(status="canceled", ended_at="2025-03-01"),
        totals(1000, 1000),
    ),
    row(
        "completed within a period, which is shortened",
        schedule(phase("M31", end_date="2025-02-15"), end_behavior="cancel"),
        to("2025-02-15"),
        plan(status="completed"),
        totals(3100, 1550),
    ),
    row(
        "short ones are announced at once",
        schedule(phase("W7")),
        events_of("subscription_schedule.exp", "subscription_schedule.expiring"),
    ),
    row(
        "released by hand: the planned end goes",
        schedule(phase("M10"), end_behavior="cancel"),
        release(),
        plan(status="released"),
        sub(cancel_at=None, canceled_at=None, schedule=None),
    ),
    row(
        "released by hand: the planned end stays",
        schedule(phase("M10"), end_behavior="cancel"),
        release(preserve_cancel_date=True),
        sub(cancel_at="2025-02-01"),
        to("2025-02-01"),
        sub(status="canceled"),
    ),
    row(
        "released before it starts",
        schedule(phase("M10"), start_date="2025-02-01"),
        release(),
        plan(status="released", released_subscription=None),
        to("2025-02-02"),
        invoices(),
        release(),
        refused("schedule_ended"),
    ),
    row(
        "canceled by hand, with a credit for the rest",
        schedule(phase("M30")),
        to("2025-01-16 12:00"),
        cancel_schedule(),
        plan(status="canceled", canceled_at="2025-01-16 12:00"),
        sub(status="canceled"),
        balance(-1500, "applied_to_invoice"),
    ),
    row(
        "canceled by hand, without any",
        schedule(phase("M30")),
        to("2025-01-16 12:00"),
        cancel_schedule(invoice_now=False, prorate=False),
        sub(status="canceled"),
        totals(3000),
    ),
    row(
        "canceled before it starts",
        schedule(phase("M30"), start_date="2025-02-01"),
        cancel_schedule(),
        events_of("subscription_schedule.ca", "subscription_schedule.canceled"),
        cancel_schedule(),
        refused("schedule_ended"),
    ),
    row(
        "with the subscription",
        schedule(phase("M30")),
        cancel(),
        plan(status="canceled"),
    ),
    row(
        "with the customer, begun or not",
        schedule(phase("M30")),
        schedule(phase("M30"), start_date="2025-02-01"),
        delete_customer(),
        plan(0, status="canceled"),
        plan(1, status="canceled"),
    ),
    row(
        "with payments that never come",
        schedule(phase("M30", iterations=3)),
        to("2025-01-31"),
        sub(status="canceled"),
        plan(status="canceled"),
        events_of("subscription_schedule.a", "subscription_schedule.aborted"),
        card=BAD,
        settings=Settings(subscription_final_action="cancel"),
    ),
]

TAKING_OVER = [
    row(
        "the current period is the only phase",
        subscribe(("M30", 2)),
        to("2025-01-10"),
        mark(),
        take_over(),
        plan(
            status="active",
            phases__0__start_date="2025-01-01",
            phases__0__end_date="2025-02-01",
            phases__0__items__0__quantity=2,
        ),
        events("""
            subscription_schedule.created
            customer.subscription.updated was=schedule
        """),
        to("2025-02-01"),
        plan(status="released"),
    ),
    row(
        "a trial",
        subscribe("M30", trial_end="2025-01-15"),
        take_over(),
        plan(phases__0__trial_end="2025-01-15", phases__0__end_date="2025-01-15"),
    ),
    row(
        "a cancellation with the period",
        subscribe("M30", cancel_at_period_end=True),
        take_over(),
        plan(end_behavior="cancel"),
        sub(cancel_at="2025-02-01", cancel_at_period_end=False),
    ),
    row(
        "a cancellation at a moment",
        subscribe("M30", cancel_at="2025-03-15"),
        take_over(),
        plan(end_behavior="cancel", phases__0__end_date="2025-03-15"),
    ),
    row("not twice", subscribe("M30"), take_over(), take_over(), refused("subscription_scheduled")),
    row("not one that has ended", subscribe("M30"), cancel(), take_over(), refused("subscription_terminal")),
    row("not an unpaid first", subscribe("M30"), take_over(), refused("subscription_incomplete"), card=BAD),
]

UPDATING = [
    row(
        "the current phase at once, later ones later",
        schedule(phase("M10")),
        to("2025-01-16 12:00"),
        change_schedule(phase("M30", end_date="2025-02-01"), phase("M10"), end_behavior="cancel"),
        sub(items__0__price="M30", cancel_at=None),
        pending(-500, 1500),
        plan(phases__1__end_date="2025-03-01", end_behavior="cancel"),
        to("2025-02-01"),
        sub(items__0__price="M10", cancel_at="2025-03-01"),
        totals(1000, 2000),
    ),
    row(
        "the end alone",
        schedule(phase("M10")),
        change_schedule(end_behavior="cancel"),
        sub(cancel_at="2025-02-01"),
        change_schedule(end_behavior="release"),
        sub(cancel_at=None),
    ),
    row(
        "later phases leave direct changes of the current one alone",
        schedule(phase("M10")),
        update(quantity=5, proration_behavior="none"),
        change_schedule(phase("M10"), phase("M30")),
        sub(items__0__quantity=5),
    ),
    row(
        "a trial of the current phase",
        schedule(phase("M10", trial=True)),
        change_schedule(phase("M10", trial_end="2025-01-20")),
        sub(status="trialing", trial_end="2025-01-20"),
        change_schedule(phase("M10", end_date="2025-02-01")),
        to("2025-01-02"),
        sub(status="active", billing_cycle_anchor="2025-01-01"),
    ),
    row(
        "a later start",
        schedule(phase("M10"), start_date="2025-02-01"),
        change_schedule(phase("M10", start_date="2025-03-01")),
        to("2025-02-28"),
        plan(status="not_started"),
        to("2025-03-01"),
        plan(status="active"),
    ),
    row(
        "the current phase does not end in the past",
        schedule(phase("M10")),
        to("2025-01-10"),
        change_schedule(phase("M10", end_date="2025-01-09")),
        refused("time_out_of_range", "phases[0].end_date"),
    ),
    row(
        "the current phase keeps its start",
        schedule(phase("M10")),
        to("2025-01-10"),
        change_schedule(phase("M10", start_date="2025-01-05", end_date="2025-02-01")),
        refused("time_out_of_range", "phases[0].start_date"),
    ),
    row(
        "only what was read",
        schedule(phase("M10")),
        change_schedule(metadata={"a": "b"}, etag="v7"),
        refused("etag_mismatch"),
        change_schedule(metadata={"a": "b"}, etag="v1"),
        plan(metadata={"a": "b"}, version=2),
    ),
    row(
        "the end of a scheduled subscription is not changed directly",
        schedule(phase("M10")),
        update(cancel_at_period_end=True),
        refused("subscription_scheduled"),
        update(cancel_at="2025-01-20"),
        refused("subscription_scheduled"),
    ),
]


@pytest.mark.parametrize("story", [*ENDING, *TAKING_OVER, *UPDATING])
def test_ends_and_changes(story: Row) -> None:
    story.play()
