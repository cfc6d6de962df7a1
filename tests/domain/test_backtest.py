"""Moments of triggers, and runs on paper, by examples. That they match real runs is shown by the scenarios."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain.automation import Action, EndReason, Trigger
from billing_server.domain.backtest import Moment, Proposal, Seen, moments, replay
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.invoice import Invoice

DAY = 86_400
T = 1_000_000
LATE = T + 1_000 * DAY

SENT = Invoice(
    id="in_1",
    created=T - 60,
    customer="cus_1",
    currency="usd",
    status="open",
    billing_reason="manual",
    collection_method="send_invoice",
    auto_advance=True,
    period_start=0,
    period_end=0,
    due_date=T + 10 * DAY,
    finalized_at=T,
)
CHARGED = msgspec.structs.replace(SENT, collection_method="charge_automatically", due_date=None, subscription="sub_1")


def seen(at: int, of: Invoice = SENT, **changes: Any) -> Seen:
    return Seen(at, msgspec.structs.replace(of, **changes))


def paid(at: int, of: Invoice = SENT) -> Seen:
    return seen(at, of, status="paid", auto_advance=False)


FIRES: list[tuple[Trigger, Seen, tuple[Seen, ...], list[int]]] = [
    ("invoice_finalized", seen(T), (), [T]),
    ("invoice_finalized", seen(T, CHARGED), (), [T]),
    ("invoice_finalized", seen(T, auto_advance=False), (), []),
    ("invoice_finalized", paid(T), (), []),
    ("invoice_due_date_upcoming", seen(T), (), [T]),
    ("invoice_due_date_upcoming", seen(T, CHARGED), (), []),
    ("subscription_payment_fails", seen(T, CHARGED), (), [T]),
    ("subscription_payment_fails", seen(T, CHARGED, subscription=None), (), []),
    ("subscription_payment_fails", seen(T), (), []),
    ("subscription_payment_fails", seen(T, CHARGED, auto_advance=False), (), []),
    ("invoice_overdue", seen(T), (), [T + 10 * DAY]),
    ("invoice_overdue", seen(T), (paid(T + 10 * DAY - 1),), []),
    ("invoice_overdue", seen(T), (paid(T + 10 * DAY),), [T + 10 * DAY]),
    ("invoice_overdue", seen(T, due_date=T - DAY), (), [T]),
    ("invoice_overdue", seen(T, CHARGED), (), []),
    ("invoice_overdue", seen(T), (seen(T + DAY, auto_advance=False), seen(T + 11 * DAY)), []),
    ("invoice_overdue", seen(T), (seen(T + DAY, due_date=T + 20 * DAY),), [T + 20 * DAY]),
    ("invoice_overdue", seen(T), (seen(T + 12 * DAY, due_date=T + 20 * DAY),), [T + 10 * DAY, T + 20 * DAY]),
    ("invoice_overdue", seen(T), (seen(T + 12 * DAY, metadata={"a": "b"}),), [T + 10 * DAY]),
]


@pytest.mark.parametrize(("trigger", "first", "later", "expected"), FIRES)
def test_when_a_trigger_fires(trigger: Trigger, first: Seen, later: tuple[Seen, ...], expected: list[int]) -> None:
    assert [moment.at for moment in moments(trigger, first, later, LATE)] == expected


def test_what_is_still_to_come_has_not_fired() -> None:
    assert moments("invoice_overdue", seen(T), (), T + 10 * DAY - 1) == []
    (moment,) = moments("invoice_overdue", seen(T), (seen(T + DAY, amount_due=5), paid(T + 12 * DAY)), LATE)
    assert (moment.invoice and moment.invoice.amount_due, len(moment.later)) == (5, 1), "as it was then, and later"


def policy(*days: int) -> Action:
    return Action(type="start_retry_policy", retry_policy=RetryPolicy(kind="custom", retry_days=days))


MAIL = Action(type="send_team_email", recipients=("a@acme.test",))
CANCEL = Action(type="cancel_subscription", delay_seconds=7 * DAY)
GIVE_UP = Action(type="mark_invoice_uncollectible")
LATER = Action(type="send_team_email", recipients=("a@acme.test",), delay_seconds=DAY)

Steps = list[tuple[int, int | None]]
REPLAYS: list[tuple[tuple[Action, ...], tuple[Seen, ...], int, Steps, tuple[int | None, EndReason | None]]] = [
    ((MAIL,), (), 999, [(0, 0)], (0, "completed")),
    ((MAIL, LATER), (), 999, [(0, 0), (1, 1)], (1, "completed")),
    ((LATER,), (paid(T + DAY - 1, CHARGED),), 999, [], (DAY - 1, "invoice_paid")),
    ((LATER,), (paid(T + DAY, CHARGED),), 999, [], (1, "invoice_paid")),
    ((MAIL, LATER), (paid(T, CHARGED),), 999, [(0, 0)], (0, "invoice_paid")),
    ((LATER,), (seen(T + 60, CHARGED, status="void"),), 999, [], (60, "invoice_voided")),
    ((LATER,), (seen(T + 60, CHARGED, auto_advance=False),), 999, [], (60, "auto_advance_disabled")),
    ((LATER,), (), 0, [], (None, None)),
    ((MAIL, LATER), (), 0, [(0, 0)], (None, None)),
    ((policy(1, 2), CANCEL, GIVE_UP), (), 999, [(0, 3), (10, 10), (10, 10)], (10, "completed")),
    ((policy(1, 2), CANCEL, LATER), (), 999, [(0, 3), (10, 10)], (10, "subscription_canceled")),
    ((policy(1, 2), CANCEL), (paid(T + 2 * DAY, CHARGED),), 999, [(0, 2)], (2, "invoice_paid")),
    ((policy(1, 2), MAIL), (paid(T + 3 * DAY, CHARGED),), 999, [(0, 3)], (3, "invoice_paid")),
    ((policy(1, 2), CANCEL), (), 2, [(0, None)], (None, None)),
    ((policy(), MAIL), (), 999, [(0, 0), (0, 0)], (0, "completed")),
    ((GIVE_UP, LATER), (), 999, [(0, 0)], (0, "auto_advance_disabled")),
]
"""Actions, what became of the invoice, days until now; steps and end in days after the trigger (large: seconds)."""


def _moment(days: int | None) -> int | None:
    return None if days is None else T + (days if days >= 60 else days * DAY)


@pytest.mark.parametrize(("actions", "later", "until", "steps", "end"), REPLAYS)
def test_a_run_on_paper(
    actions: tuple[Action, ...],
    later: tuple[Seen, ...],
    until: int,
    steps: Steps,
    end: tuple[int | None, EndReason | None],
) -> None:
    proposal = Proposal(trigger="subscription_payment_fails", conditions=(), actions=actions)
    found = replay(proposal, Moment(at=T, invoice=CHARGED, later=later), until=T + until * DAY)
    assert [(step.scheduled_at, step.ended_at) for step in found.steps] == [
        (_moment(begun), _moment(over)) for begun, over in steps
    ]
    assert (found.ended_at, found.end_reason) == (_moment(end[0]), end[1])


def test_tries_stop_when_the_invoice_is_paid() -> None:
    proposal = Proposal(trigger="subscription_payment_fails", conditions=(), actions=(policy(1, 2, 3),))
    found = replay(proposal, Moment(at=T, invoice=CHARGED, later=(paid(T + 4 * DAY, CHARGED),)), until=LATE)
    assert found.steps[0].tries_at == (T + DAY, T + 3 * DAY)
    assert (found.steps[0].ended_at, found.end_reason) == (T + 4 * DAY, "invoice_paid")


def test_the_end_of_the_subscription_is_told_apart() -> None:
    proposal = Proposal(trigger="subscription_payment_fails", conditions=(), actions=(LATER,))
    moment = Moment(at=T, invoice=CHARGED, later=(seen(T + 60, CHARGED, auto_advance=False),))
    for ended_at, reason in ((T + 60, "subscription_canceled"), (T + 61, "auto_advance_disabled")):
        assert replay(proposal, moment, until=LATE, subscription_ended_at=ended_at).end_reason == reason


def test_actions_before_a_due_date_follow_it_and_are_skipped_when_past() -> None:
    def before(days: int) -> Action:
        return Action(type="send_invoice_will_be_due_webhook", before_due_seconds=days * DAY)

    proposal = Proposal(trigger="invoice_due_date_upcoming", conditions=(), actions=(before(1), before(20), before(5)))
    moved = seen(T + DAY, due_date=T + 30 * DAY)
    found = replay(proposal, Moment(at=T, invoice=SENT, later=(moved,)), until=LATE)
    assert [(step.scheduled_at, step.skipped) for step in found.steps] == [
        (T - 10 * DAY, True),
        (T + 25 * DAY, False),
        (T + 29 * DAY, False),
    ]
