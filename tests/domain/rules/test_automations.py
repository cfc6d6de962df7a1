"""Automations: which of them runs, what its run does, and what ends it (semantics 8; decisions 14, 17, 19 to 21)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing_server.domain.account import OverduePolicy, Settings
from billing_server.domain.automation import Action
from billing_server.domain.dunning import RetryPolicy
from tests.domain.rules.shop import BAD, GOLD, LOST, MUTE, OK, SILVER
from tests.domain.rules.sights import (
    balance,
    charges,
    customer,
    events,
    invoice,
    invoices,
    mails,
    no_events,
    ran,
    refused,
    run,
    runs,
    sub,
)
from tests.domain.rules.steps import (
    Fields,
    Row,
    Step,
    action,
    attach,
    automate,
    automation,
    cancel,
    cancel_run,
    change_customer,
    change_invoice,
    condition,
    delete_customer,
    finalize,
    give_up,
    mark,
    one_off,
    pause,
    pay,
    row,
    subscribe,
    to,
    update,
    void,
)

TEAM = ("ops@acme.test",)
MEMO = action("send_team_email", recipients=TEAM, memo="Look at this")
SMART = RetryPolicy(kind="smart", max_retries=8, window="two_months")
CUSTOM = RetryPolicy(kind="custom", retry_days=(1, 2))

DUNNING = automation(
    "subscription_payment_fails",
    action("start_retry_policy", retry_policy=SMART),
    action("cancel_subscription", after=7),
    action("mark_invoice_uncollectible"),
    when=[condition("subscription_interval", interval="yearly")],
)
"""Recipe 1 of the seed."""

BASE = (subscribe("M31"), to("2025-01-20"), attach(BAD), mark())
YEARLY = (subscribe("Y120", billing_cycle_anchor="2025-02-01", proration_behavior="none"), attach(BAD), mark())
SENT: Fields = {"collection_method": "send_invoice", "days_until_due": 30}


def fails(*actions: Action, **more: Any) -> Step:
    """An automation without conditions for failed payments."""
    return automate(automation("subscription_payment_fails", *actions, **more))


PAYMENT_FAILS = [
    row(
        "S0.1: smart retries over two months, a week of grace, then canceled and given up together",
        automate(DUNNING),
        YEARLY,
        to("2025-02-01 01:00"),
        invoice(attempt_count=1, next_payment_attempt="2025-02-08 13:00", automation_run="set"),
        events("""
            invoice.upcoming
            customer.subscription.updated @2025-02-01
            invoice.created
            invoice.finalized @2025-02-01T01:00
            payment_intent.created
            payment_intent.payment_failed
            invoice.updated was=attempt_count,attempted,automation_run
            invoice.payment_failed attempt_count=1 next_payment_attempt=None
            customer.subscription.updated was.status=active status=past_due
            customer.updated was=delinquent
            automation_run.created trigger=subscription_payment_fails trigger_event=invoice.payment_failed
            invoice.updated was=next_payment_attempt was.next_payment_attempt=None next_payment_attempt=2025-02-08T13:00
            automation_run.updated next_action_at=None
        """),
        to("2025-02-08 13:00"),
        invoice(attempt_count=2, next_payment_attempt="2025-02-16 01:00"),
        to("2025-02-16 01:00"),
        invoice(attempt_count=3, next_payment_attempt="2025-02-23 13:00"),
        to("2025-03-25 13:00"),
        sub(status="past_due"),
        invoice(attempt_count=8, next_payment_attempt="2025-04-02 01:00"),
        run(status="running", retrying=True),
        to("2025-04-02 01:00"),
        invoice(attempt_count=9, next_payment_attempt=None),
        run(retrying=False, next_action_at="2025-04-09 01:00"),
        to("2025-04-09 00:59:59"),
        sub(status="past_due"),
        mark(),
        to("2025-04-09 01:00"),
        sub(status="canceled", ended_at="2025-04-09 01:00", cancellation_details__reason="payment_failed"),
        invoice(status="uncollectible"),
        events("""
            customer.subscription.deleted
            invoice.updated was=auto_advance
            invoice.marked_uncollectible
            customer.updated was.delinquent=True
            automation_run.updated status=completed end_reason=completed
        """),
        ran(
            "start_retry_policy done",
            "cancel_subscription done",
            "mark_invoice_uncollectible done",
        ),
        to("2025-12-31"),
        invoices("uncollectible"),
    ),
    row(
        "S0.3: a monthly subscription is none of its business: the settings' retries",
        automate(DUNNING),
        BASE,
        to("2025-02-01 01:00"),
        invoice(attempt_count=1, next_payment_attempt="2025-02-04 01:00", automation_run=None),
        runs(),
        to("2025-02-16 01:00"),
        sub(status="canceled"),
    ),
    row(
        "S2.31: without a retry policy no retries, and no final action",
        fails(MEMO),
        BASE,
        to("2025-02-01 01:00"),
        runs("completed"),
        mails("receipt jenny@example.com", "payment_failed jenny@example.com", "team_memo ops@acme.test"),
        to("2025-02-28"),
        sub(status="past_due"),
        invoice(status="open", attempt_count=1, next_payment_attempt=None, auto_advance=True),
        charges(2),
    ),
    row(
        "S2.32: an amount above 100 dollars",
        fails(MEMO, when=[condition("invoice_amount", more_than=10000)]),
        YEARLY,
        to("2025-02-01 01:00"),
        runs("completed"),
    ),
    row(
        "S2.32: not 31 dollars",
        fails(MEMO, when=[condition("invoice_amount", more_than=10000)]),
        BASE,
        to("2025-02-01 01:00"),
        runs(),
        invoice(next_payment_attempt="2025-02-04 01:00"),
    ),
    row(
        "S2.45: what comes a day after the cancellation does not happen",
        fails(action("cancel_subscription"), action("mark_invoice_uncollectible", after=1)),
        BASE,
        to("2025-02-01 01:00"),
        sub(status="canceled", ended_at="2025-02-01 01:00"),
        run(status="terminated", end_reason="subscription_canceled", next_action_at=None),
        to("2025-03-01"),
        invoice(status="open", auto_advance=False),
        ran("cancel_subscription done"),
    ),
    row(
        "S2.46: only the first failure starts a run",
        fails(action("start_retry_policy", retry_policy=CUSTOM), MEMO),
        BASE,
        to("2025-02-02 01:00"),
        invoice(attempt_count=2, next_payment_attempt="2025-02-04 01:00"),
        to("2025-02-04 01:00"),
        invoice(attempt_count=3, next_payment_attempt=None),
        runs("completed"),
        to("2025-02-28"),
        runs("completed"),
        sub(status="past_due"),
        charges(4),
    ),
    row(
        "each failure tells no next attempt, the update after it does",
        fails(action("start_retry_policy", retry_policy=CUSTOM)),
        BASE,
        to("2025-02-01 01:00"),
        mark(),
        to("2025-02-02 01:00"),
        events("""
            payment_intent.payment_failed
            invoice.updated was.next_payment_attempt=2025-02-02T01:00 next_payment_attempt=None
            invoice.payment_failed next_payment_attempt=None
            invoice.updated was=next_payment_attempt was.next_payment_attempt=None next_payment_attempt=2025-02-04T01:00
            automation_run.updated was=retries_done retries_done=1
        """),
    ),
    row(
        "the run ends when the invoice is paid by a retry",
        fails(action("start_retry_policy", retry_policy=CUSTOM), action("cancel_subscription", after=1)),
        BASE,
        to("2025-02-01 12:00"),
        attach(OK),
        to("2025-02-02 01:00"),
        invoice(status="paid"),
        sub(status="active"),
        run(status="terminated", end_reason="invoice_paid"),
        ran("start_retry_policy done"),
        to("2025-03-15"),
        sub(status="active"),
    ),
    row(
        "paid by hand during the grace",
        fails(action("cancel_subscription", after=7)),
        BASE,
        to("2025-02-05"),
        pay(payment_method=BAD),
        run(status="running"),
        invoice(attempt_count=1),
        attach(OK),
        pay(),
        run(status="terminated", end_reason="invoice_paid", ended_at="2025-02-05"),
        ran(),
        to("2025-02-28"),
        sub(status="active"),
    ),
    row(
        "voided during the grace",
        fails(action("cancel_subscription", after=7)),
        BASE,
        to("2025-02-05"),
        void(),
        run(status="terminated", end_reason="invoice_voided"),
        to("2025-02-28"),
        sub(status="active"),
    ),
    row(
        "auto_advance switched off, and on again: the settings take over",
        fails(action("start_retry_policy", retry_policy=CUSTOM)),
        BASE,
        to("2025-02-01 12:00"),
        change_invoice(auto_advance=False),
        run(status="terminated", end_reason="auto_advance_disabled"),
        ran("start_retry_policy skipped"),
        invoice(next_payment_attempt=None),
        change_invoice(auto_advance=True),
        invoice(next_payment_attempt="2025-02-04 01:00", automation_run=None),
        to("2025-02-16 01:00"),
        sub(status="canceled"),
    ),
    row(
        "canceled by hand: the run ends, and nothing is retried",
        fails(action("start_retry_policy", retry_policy=CUSTOM), action("cancel_subscription")),
        BASE,
        to("2025-02-01 12:00"),
        cancel_run(),
        run(status="canceled", end_reason="canceled_by_user"),
        invoice(next_payment_attempt=None, status="open"),
        cancel_run(),
        refused("automation_run_ended", "id"),
        to("2025-02-28"),
        sub(status="past_due"),
        charges(2),
    ),
    row(
        "a subscription canceled by a caller ends the run",
        fails(action("start_retry_policy", retry_policy=CUSTOM)),
        BASE,
        to("2025-02-01 12:00"),
        cancel(),
        run(status="terminated", end_reason="subscription_canceled"),
        to("2025-02-28"),
        charges(2),
    ),
    row(
        "marked as unpaid: later invoices stay drafts",
        fails(action("mark_subscription_unpaid", after=3)),
        BASE,
        to("2025-02-04 01:00"),
        sub(status="unpaid"),
        run(status="completed"),
        to("2025-03-01 02:00"),
        invoice(status="draft", auto_advance=False),
        invoices("paid", "open", "draft"),
    ),
    row(
        "given up: the subscription is active again (decision)",
        fails(action("mark_invoice_uncollectible", after=3)),
        BASE,
        to("2025-02-04 01:00"),
        invoice(status="uncollectible"),
        sub(status="active"),
        customer(delinquent=False),
        run(status="completed"),
    ),
    row(
        "a hard decline: tries go on without charges, and the policy comes to its end",
        fails(action("start_retry_policy", retry_policy=CUSTOM), action("cancel_subscription")),
        (subscribe("M31"), to("2025-01-20"), attach(LOST), mark()),
        to("2025-02-04 01:00"),
        charges(2),
        invoice(attempt_count=3),
        sub(status="canceled", ended_at="2025-02-04 01:00"),
        run(status="completed"),
    ),
    row(
        "a retry policy that comes after a delay counts from then",
        fails(action("start_retry_policy", after=2, retry_policy=CUSTOM)),
        BASE,
        to("2025-02-01 01:00"),
        invoice(next_payment_attempt=None),
        to("2025-02-03 01:00"),
        invoice(next_payment_attempt="2025-02-04 01:00"),
        to("2025-02-04 01:00"),
        invoice(next_payment_attempt="2025-02-06 01:00"),
        to("2025-02-06 01:00"),
        run(status="completed", ended_at="2025-02-06 01:00"),
    ),
    row(
        "the first invoice of an incomplete subscription starts nothing",
        fails(MEMO),
        subscribe("M31"),
        sub(status="incomplete"),
        runs(),
        card=BAD,
    ),
    row(
        "nor does auto_advance, switched on by hand, make it one that is retried",
        fails(MEMO),
        subscribe("M31"),
        change_invoice(auto_advance=True),
        invoice(auto_advance=True, next_payment_attempt=None),
        pay(),
        invoice(status="open", next_payment_attempt=None),
        to("2025-01-01 22:59:59"),
        charges(2),
        runs(),
        to("2025-01-01 23:00"),
        sub(status="incomplete_expired"),
        card=BAD,
    ),
    row(
        "a one-off invoice is no subscription's",
        fails(MEMO),
        one_off(1000, auto_advance=True),
        to("2025-01-01 01:00"),
        invoice(status="open", attempt_count=1, next_payment_attempt="2025-01-04 01:00"),
        runs(),
        card=BAD,
    ),
    row(
        "an upgrade whose payment fails is a subscription's invoice (decision 6)",
        fails(MEMO),
        BASE,
        update(price="M1000_JPY", proration_behavior="always_invoice"),
        refused("currency_mismatch"),
        update(quantity=2, proration_behavior="always_invoice"),
        runs("completed"),
        invoice(status="open", next_payment_attempt=None, automation_run="set"),
    ),
    row(
        "the next period's failure starts a run of its own",
        fails(MEMO),
        BASE,
        to("2025-03-01 01:00"),
        runs("completed", "completed"),
        sub(status="past_due"),
    ),
    row(
        "an automation that comes later does not take over what the settings have begun",
        BASE,
        to("2025-02-02"),
        fails(MEMO),
        to("2025-02-16 01:00"),
        runs(),
        sub(status="canceled"),
    ),
    row(
        "a run keeps the definition it started with",
        fails(action("cancel_subscription", after=7)),
        BASE,
        to("2025-02-02"),
        fails(MEMO, version=2),
        to("2025-02-08 01:00"),
        sub(status="canceled"),
        run(status="completed", automation_version=1),
    ),
    row(
        "voided by hand after the run is over: past due as long as an older one is missing",
        fails(MEMO),
        BASE,
        to("2025-03-02"),
        invoices("paid", "open", "open"),
        void(-1),
        sub(status="past_due"),
        void(-2),
        sub(status="active"),
    ),
]

DISABLED = [
    row(
        "disabled: runs under way go on, no new ones begin (S2.43: nothing is made up for)",
        fails(action("cancel_subscription", after=7)),
        BASE,
        to("2025-02-02"),
        fails(action("cancel_subscription", after=7), enabled=False, version=2),
        to("2025-02-08 01:00"),
        sub(status="canceled"),
    ),
    row(
        "disabled: the next failure is the settings' again",
        fails(MEMO, enabled=False),
        BASE,
        to("2025-02-01 01:00"),
        runs(),
        fails(MEMO),
        to("2025-02-04 01:00"),
        runs(),
        invoice(next_payment_attempt="2025-02-09 01:00"),
    ),
    row(
        "told to end with all its runs: the next step does not happen",
        fails(action("cancel_subscription", after=7)),
        BASE,
        to("2025-02-02"),
        fails(action("cancel_subscription", after=7), enabled=False, version=2, runs_canceled_version=2),
        to("2025-02-08 01:00"),
        sub(status="past_due"),
        run(status="canceled", end_reason="canceled_by_user"),
    ),
    row(
        "told to end with all its runs: the next try does not happen",
        fails(action("start_retry_policy", retry_policy=CUSTOM)),
        BASE,
        to("2025-02-01 02:00"),
        fails(action("start_retry_policy", retry_policy=CUSTOM), version=2, runs_canceled_version=1),
        to("2025-02-28"),
        charges(2),
        run(status="canceled"),
        invoice(next_payment_attempt=None),
    ),
    row(
        "deleted ones begin nothing",
        fails(MEMO, deleted=True),
        BASE,
        to("2025-02-01 01:00"),
        runs(),
    ),
]

FINALIZED = [
    row(
        "S2.38: given up 30 days after finalization, for a segment",
        automate(
            automation(
                "invoice_finalized",
                action("mark_invoice_uncollectible", after=30),
                when=[condition("customer_metadata", key="segment", value="x")],
            )
        ),
        subscribe("M31", **SENT),
        to("2025-01-01 01:00"),
        run(status="running", next_action_at="2025-01-31 01:00"),
        to("2025-01-31 00:59:59"),
        invoice(-1, status="open"),
        to("2025-01-31 01:00"),
        invoice(-1, status="uncollectible", marked_uncollectible_at="2025-01-31 01:00"),
        sub(status="active"),
        metadata={"segment": "x"},
    ),
    row(
        "another segment: nothing",
        automate(
            automation("invoice_finalized", MEMO, when=[condition("customer_metadata", key="segment", value="x")])
        ),
        subscribe("M31", **SENT),
        to("2025-01-01 01:00"),
        runs(),
        metadata={"segment": "y"},
    ),
    row(
        "S2.49: auto_advance is off at finalization",
        automate(automation("invoice_finalized", MEMO)),
        one_off(1000),
        finalize(),
        invoice(status="open", auto_advance=False),
        runs(),
    ),
    row(
        "born while collection is paused",
        automate(automation("invoice_finalized", MEMO)),
        subscribe("M31"),
        pause("mark_uncollectible"),
        to("2025-02-02"),
        invoices("paid", "uncollectible"),
        runs(),
    ),
    row(
        "an invoice that is charged at once: the memo goes out, the run is over before the money is there",
        automate(automation("invoice_finalized", MEMO, action("mark_invoice_uncollectible", after=1))),
        subscribe("M31"),
        to("2025-02-01 01:00"),
        runs("terminated"),
        run(end_reason="invoice_paid"),
        ran("send_team_email done"),
    ),
    row(
        "given up at once: not before the charge that is under way is settled",
        automate(automation("invoice_finalized", action("mark_invoice_uncollectible"))),
        BASE,
        to("2025-02-01 01:00"),
        invoice(status="uncollectible", attempt_count=1),
        run(status="completed"),
    ),
    row(
        "given up at once: paid by then",
        automate(automation("invoice_finalized", action("mark_invoice_uncollectible"))),
        subscribe("M31"),
        to("2025-02-01 01:00"),
        invoice(status="paid"),
        run(status="terminated", end_reason="invoice_paid"),
    ),
    row(
        "given up later, but it is unknown whether it was paid: the step waits",
        automate(automation("invoice_finalized", action("mark_invoice_uncollectible", after=1))),
        (subscribe("M31"), to("2025-01-20"), attach(MUTE)),
        to("2025-02-03"),
        invoice(status="open", charging=True),
        run(status="running", steps=()),
    ),
    row(
        "nothing due: finalized and paid in one, nothing to collect",
        automate(automation("invoice_finalized", MEMO)),
        subscribe("M_FREE"),
        to("2025-02-01 01:00"),
        runs(),
    ),
    row(
        "a run of its own for each event: finalized and due date are two triggers",
        automate(
            automation("invoice_finalized", MEMO),
            automation("invoice_due_date_upcoming", action("send_invoice_will_be_due_webhook", before=7)),
        ),
        subscribe("M31", **SENT),
        to("2025-01-01 01:00"),
        runs("completed", "running"),
    ),
]

UPCOMING = automation("invoice_due_date_upcoming", action("send_invoice_will_be_due_webhook", before=7))

DUE = [
    row(
        "S2.36: seven days before the due date",
        automate(UPCOMING),
        subscribe("M31", **SENT),
        to("2025-01-23 23:59:59"),
        mark(),
        to("2025-01-24"),
        events("""
            invoice.will_be_due @2025-01-24
            automation_run.updated status=completed @2025-01-24
        """),
    ),
    row(
        "S2.36: paid four days before",
        automate(UPCOMING),
        subscribe("M31", **SENT),
        to("2025-01-20"),
        pay(paid_out_of_band=True),
        run(status="terminated", end_reason="invoice_paid"),
        mark(),
        to("2025-01-31"),
        no_events(),
    ),
    row(
        "S2.37: never for what is charged automatically",
        automate(UPCOMING),
        BASE,
        to("2025-03-01"),
        runs(),
    ),
    row(
        "offsets that are past are skipped, the others happen in the order of time",
        automate(
            automation(
                "invoice_due_date_upcoming",
                action("send_team_email", before=3, recipients=TEAM, memo="soon"),
                action("send_invoice_will_be_due_webhook", before=60),
                action("send_invoice_will_be_due_webhook", before=7),
            )
        ),
        subscribe("M31", **SENT),
        to("2025-01-30"),
        ran(
            "send_invoice_will_be_due_webhook skipped",
            "send_invoice_will_be_due_webhook done",
            "send_team_email done",
        ),
        run(status="completed", ended_at="2025-01-28", steps__1__executed_at="2025-01-24"),
    ),
    row(
        "a due date that moves takes the step along",
        automate(UPCOMING),
        subscribe("M31", **SENT),
        to("2025-01-10"),
        change_invoice(due_date="2025-03-01"),
        run(next_action_at="2025-02-22"),
        to("2025-02-22"),
        run(0, status="completed", ended_at="2025-02-22"),
    ),
    row(
        "auto_advance off ends it, too (decision 19)",
        automate(UPCOMING),
        subscribe("M31", **SENT),
        to("2025-01-10"),
        change_invoice(auto_advance=False),
        run(status="terminated", end_reason="auto_advance_disabled"),
    ),
]

OVERDUE_MEMO = automation(
    "invoice_overdue",
    action("send_team_email", recipients=TEAM, memo="Invoice over $500 is overdue"),
    when=[condition("invoice_amount", more_than=50000)],
)

OVERDUE = [
    row(
        "S0.4: one e-mail to the team at the due date, the invoice stays open",
        automate(OVERDUE_MEMO),
        one_off(60000, auto_advance=True, **SENT),
        to("2025-01-30 23:59:59"),
        mails("invoice_to_pay jenny@example.com"),
        to("2025-01-31"),
        mails("invoice_to_pay jenny@example.com", "team_memo ops@acme.test"),
        run(status="completed", ended_at="2025-01-31"),
        invoice(status="open", overdue=True),
        to("2025-06-01"),
        mails("invoice_to_pay jenny@example.com", "team_memo ops@acme.test"),
    ),
    row(
        "exactly 500 dollars is not more than 500",
        automate(OVERDUE_MEMO),
        one_off(50000, auto_advance=True, **SENT),
        to("2025-02-01"),
        runs(),
    ),
    row(
        "the settings' overdue policy does not apply to what an automation has taken over",
        automate(OVERDUE_MEMO),
        subscribe(("M31", 20), **SENT),
        to("2025-06-01"),
        sub(status="past_due"),
        invoice(0, status="open"),
        settings=Settings(overdue_policy=OverduePolicy(days_after_due=30, subscription_action="cancel")),
    ),
    row(
        "the settings' overdue policy applies to the others",
        automate(OVERDUE_MEMO),
        subscribe("M31", **SENT),
        to("2025-03-02"),
        sub(status="canceled"),
        settings=Settings(overdue_policy=OverduePolicy(days_after_due=30, subscription_action="cancel")),
    ),
    row(
        "webhooks at custom offsets after the due date, given up at last",
        automate(
            automation(
                "invoice_overdue",
                action("send_invoice_overdue_webhook", after=1),
                action("send_invoice_overdue_webhook", after=6),
                action("mark_invoice_uncollectible", after=30),
            )
        ),
        one_off(60000, auto_advance=True, **SENT),
        to("2025-01-31"),
        mark(),
        to("2025-02-01"),
        events("""
            invoice.overdue @2025-02-01
            automation_run.updated
        """),
        to("2025-02-07"),
        events("""
            invoice.overdue @2025-02-07
            automation_run.updated
        """),
        to("2025-03-09"),
        invoice(status="uncollectible"),
        run(status="completed"),
    ),
    row(
        "paid meanwhile",
        automate(automation("invoice_overdue", action("send_invoice_overdue_webhook", after=1))),
        one_off(60000, auto_advance=True, **SENT),
        to("2025-01-31"),
        runs("running"),
        pay(paid_out_of_band=True),
        runs("terminated"),
        run(end_reason="invoice_paid"),
    ),
    row(
        "given up by hand: auto_advance is off then",
        automate(automation("invoice_overdue", action("send_invoice_overdue_webhook", after=1))),
        one_off(60000, auto_advance=True, **SENT),
        to("2025-01-31"),
        give_up(),
        run(status="terminated", end_reason="auto_advance_disabled"),
    ),
]

CANCELED = [
    row(
        "S0.7: a confirmation with the date and the survey",
        automate(
            automation("subscription_canceled", action("send_cancellation_email", survey_url="https://acme.test/why"))
        ),
        subscribe("M31"),
        to("2025-01-20"),
        mark(),
        cancel(),
        events("""
            customer.subscription.deleted
            automation_run.created trigger=subscription_canceled
            automation_run.updated status=completed
        """),
        mails("receipt jenny@example.com", "cancellation_confirmation jenny@example.com"),
    ),
    row(
        "at the end of the period, too, and after failed payments",
        automate(automation("subscription_canceled", action("send_cancellation_email"))),
        subscribe("M31"),
        update(cancel_at_period_end=True),
        runs(),
        to("2025-02-01"),
        runs("completed"),
    ),
    row(
        "an automation that cancels starts another",
        automate(
            automation("subscription_payment_fails", action("cancel_subscription")),
            automation("subscription_canceled", action("send_cancellation_email")),
        ),
        BASE,
        to("2025-02-01 01:00"),
        runs("completed", "completed"),
        mails(
            "receipt jenny@example.com",
            "payment_failed jenny@example.com",
            "cancellation_confirmation jenny@example.com",
        ),
    ),
    row(
        "what expires incomplete was never canceled",
        automate(automation("subscription_canceled", MEMO)),
        subscribe("M31"),
        cancel(),
        sub(status="incomplete_expired"),
        runs(),
        card=BAD,
    ),
    row(
        "a customer without an address",
        automate(automation("subscription_canceled", action("send_cancellation_email"))),
        subscribe("M31"),
        change_customer(email=None),
        cancel(),
        run(status="completed"),
        ran("send_cancellation_email skipped"),
    ),
    row(
        "filtered by product, price, amount, segment",
        automate(
            automation("subscription_canceled", MEMO, when=[condition("product", products=(SILVER,))], priority=1),
            automation("subscription_canceled", MEMO, when=[condition("price", prices=("M30",))], priority=2),
            automation(
                "subscription_canceled", MEMO, when=[condition("subscription_amount", more_than=6200)], priority=3
            ),
            automation(
                "subscription_canceled", MEMO, when=[condition("customer_segment", segments=("vip", "b2b"))], priority=4
            ),
        ),
        subscribe(("M31", 2)),
        cancel(),
        run(automation="bauto_subscription_canceled_4"),
        metadata={"segment": "b2b"},
    ),
    row(
        "after a delay",
        automate(automation("subscription_canceled", action("send_cancellation_email", after=2))),
        subscribe("M31"),
        cancel(),
        run(next_action_at="2025-01-03"),
        to("2025-01-03"),
        run(status="completed"),
    ),
    row(
        "a deleted customer is left alone",
        automate(automation("subscription_canceled", action("send_cancellation_email", after=2))),
        subscribe("M31"),
        cancel(),
        delete_customer(),
        to("2025-01-03"),
        run(status="canceled"),
        mails("receipt jenny@example.com"),
    ),
]

CREDIT = action("credit_customer_balance", amount=1000, currency="usd")

CREATED = [
    row(
        "recipe 4: a credit for a new customer",
        balance(-1000, "adjustment"),
        runs("completed"),
        subscribe("M31"),
        invoice(amount_due=2100),
        automations=[automation("customer_created", CREDIT)],
    ),
    row(
        "with a subscription first, in this order",
        sub(status="active"),
        balance(-1000),
        ran("create_subscription done", "credit_customer_balance done"),
        card=None,
        automations=[automation("customer_created", action("create_subscription", price="M_METERED"), CREDIT)],
    ),
    row(
        "a subscription that must be paid and cannot be is incomplete",
        sub(status="incomplete"),
        runs("completed"),
        card=None,
        automations=[automation("customer_created", action("create_subscription", price="M31", quantity=2))],
    ),
    row(
        "an action that is refused ends the run and leaves no trace",
        balance(0),
        run(status="failed", end_reason="error"),
        ran("credit_customer_balance failed"),
        customer(currency="eur"),
        automations=[automation("customer_created", CREDIT, MEMO)],
        currency="eur",
    ),
    row(
        "a price that is sold no more: refused, explained, and nothing half-done",
        run(status="completed"),
        sub(status="active"),
        card=None,
        automations=[automation("customer_created", action("create_subscription", price="M_FREE"))],
    ),
]

CHOOSING = [
    row(
        "the first by priority whose conditions hold; the others are ignored",
        automate(
            automation("invoice_finalized", MEMO, when=[condition("invoice_amount", more_than=10000)], priority=1),
            automation("invoice_finalized", MEMO, when=[condition("invoice_amount", less_than=5000)], priority=3),
            automation("invoice_finalized", MEMO, priority=2),
        ),
        subscribe("M31", **SENT),
        to("2025-01-01 01:00"),
        runs("completed"),
        run(automation="bauto_invoice_finalized_2"),
    ),
    row(
        "conditions are all needed",
        automate(
            automation(
                "invoice_finalized",
                MEMO,
                when=[
                    condition("invoice_amount", more_than=1000, less_than=3100),
                    condition("product", products=(GOLD,)),
                ],
            )
        ),
        subscribe("M31", **SENT),
        to("2025-01-01 01:00"),
        runs(),
    ),
    row(
        "S2.47: one of the products is enough",
        automate(automation("invoice_finalized", MEMO, when=[condition("product", products=("prod_x", SILVER))])),
        subscribe("M31", "M31_SILVER", **SENT),
        to("2025-01-01 01:00"),
        runs("completed"),
    ),
    row(
        "S2.47: none of the products is not",
        automate(automation("invoice_finalized", MEMO, when=[condition("product", products=("prod_x", SILVER))])),
        subscribe("M31", **SENT),
        to("2025-01-01 01:00"),
        runs(),
    ),
    row(
        "another currency is converted: 31 euro are worth 33.48 dollars",
        automate(automation("invoice_finalized", MEMO, when=[condition("invoice_amount", more_than=3347)])),
        subscribe("M31_EUR", **SENT),
        to("2025-01-01 01:00"),
        runs("completed"),
        settings=Settings(exchange_rates={"eur": Decimal("1.08")}),
    ),
    row(
        "another currency is converted: not more than what it is worth",
        automate(automation("invoice_finalized", MEMO, when=[condition("invoice_amount", more_than=3348)])),
        subscribe("M31_EUR", **SENT),
        to("2025-01-01 01:00"),
        runs(),
        settings=Settings(exchange_rates={"eur": Decimal("1.08")}),
    ),
    row(
        "1000 yen are worth 6.50 dollars: minor units differ",
        automate(
            automation("invoice_finalized", MEMO, when=[condition("invoice_amount", more_than=649, less_than=651)])
        ),
        subscribe("M1000_JPY", **SENT),
        to("2025-01-01 01:00"),
        runs("completed"),
        settings=Settings(exchange_rates={"jpy": Decimal("0.0065")}),
    ),
    row(
        "without a rate an amount cannot be compared",
        automate(automation("invoice_finalized", MEMO, when=[condition("invoice_amount", more_than=1)])),
        subscribe("M31_EUR", **SENT),
        to("2025-01-01 01:00"),
        runs(),
    ),
    row(
        "metadata of the invoice, set while it is a draft",
        automate(automation("invoice_finalized", MEMO, when=[condition("invoice_metadata", key="po", value="17")])),
        subscribe("M31", **SENT),
        change_invoice(metadata={"po": "17"}),
        to("2025-01-01 01:00"),
        runs("completed"),
    ),
    row(
        "monthly is every month, not every three",
        automate(automation("invoice_finalized", MEMO, when=[condition("subscription_interval", interval="monthly")])),
        subscribe("Q90", **SENT),
        to("2025-01-01 01:00"),
        runs(),
    ),
]


@pytest.mark.parametrize(
    "told",
    [
        *PAYMENT_FAILS,
        *DISABLED,
        *FINALIZED,
        *DUE,
        *OVERDUE,
        *CANCELED,
        *CREATED,
        *CHOOSING,
    ],
)
def test_automations(told: Row) -> None:
    told.play()
