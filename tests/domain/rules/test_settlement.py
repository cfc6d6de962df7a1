"""Outcomes that come late, twice or for what is no more (promises 2 to 5), and what is foreseen of invoices."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.book import Target
from billing_server.domain.decide import decide, target
from billing_server.domain.errors import LimitReached
from billing_server.domain.event import Cause
from billing_server.domain.signup import SUBSCRIPTIONS_MAX
from billing_server.domain.test_clock import TestClock
from tests.domain.rules.shop import BAD, MUTE, OK, at
from tests.domain.rules.sights import balance, charges, invoice, invoices, no_events, refunds, sub, upcoming
from tests.domain.rules.steps import (
    Row,
    adjust_balance,
    bill,
    cancel,
    detach,
    item,
    mark,
    pause,
    pay,
    repeat,
    resolve,
    resume,
    row,
    send,
    subscribe,
    to,
    unpause,
    update,
)
from tests.domain.rules.story import Ids, Story

REPEATED = [
    row(
        "paid late, by a card that is detached by now: the receipt shows none",
        subscribe("M31"),
        detach(MUTE),
        resolve("paid"),
        sub(status="active"),
        card=MUTE,
    ),
    row("paid, told twice", subscribe("M31"), mark(), repeat("paid"), no_events(), invoice(status="paid"), refunds()),
    row(
        "paid, then told to be declined",
        subscribe("M31"),
        mark(),
        repeat("declined"),
        no_events(),
        sub(status="active"),
    ),
    row(
        "declined, then told to be paid",
        subscribe("M31"),
        mark(),
        repeat("paid"),
        no_events(),
        sub(status="incomplete"),
        card=BAD,
    ),
    row(
        "paid late, told twice: given back once",
        subscribe("M31"),
        to("2025-01-02"),
        resolve("paid"),
        repeat("paid"),
        refunds(3100),
        card=MUTE,
    ),
    row(
        "all or nothing, paid when it would cost another amount by now: the money goes back",
        subscribe("M31", payment_behavior="error_if_incomplete"),
        adjust_balance(-1000, currency="usd"),
        resolve("paid"),
        invoices(),
        refunds(3100),
        balance(-1000),
        card=MUTE,
    ),
    row(
        "all or nothing, unknown, then declined: nothing was created",
        subscribe("M31", payment_behavior="error_if_incomplete"),
        mark(),
        resolve("declined"),
        no_events(),
        invoices(),
        card=MUTE,
    ),
    row(
        "all or nothing, never seen by the gateway: charged after all",
        subscribe("M31", payment_behavior="error_if_incomplete", answers=["unknown"]),
        resolve("not found"),
        sub(status="active"),
        charges(2),
    ),
    row(
        "an update of what was canceled meanwhile: the money goes back",
        subscribe("M31", answers=["paid"]),
        to("2025-01-11"),
        update(quantity=2, proration_behavior="always_invoice", payment_behavior="error_if_incomplete"),
        cancel(),
        resolve("paid"),
        sub(status="canceled", items__0__quantity=1),
        refunds(2100),
        card=MUTE,
    ),
]

AT_ONCE = [
    row(
        "a draft of zero, paid by hand, is paid",
        bill(currency="usd"),
        item(0, on=0),
        pay(),
        invoice(status="paid"),
        charges(0),
    ),
    row(
        "a draft of zero, sent by hand, is paid",
        bill(currency="usd", collection_method="send_invoice", days_until_due=5),
        item(0, on=0),
        send(),
        invoice(status="paid"),
    ),
    row(
        "a trial given to a subscription that is sent, with a one-off price: sent at once",
        subscribe("M31", collection_method="send_invoice", days_until_due=5),
        to("2025-01-02"),
        update(trial_end="2025-02-01", add_invoice_items=["SETUP"], proration_behavior="none"),
        sub(status="trialing"),
        invoice(status="open", total=2000),
        card=None,
    ),
    row(
        "resumed in the old cycle, canceled within the period",
        subscribe("M31", trial_period_days=14, missing_payment_method="pause", cancel_at="2025-04-01"),
        to("2025-03-20"),
        resume(billing_cycle_anchor="unchanged", proration_behavior="none"),
        sub(status="active", current_period_end="2025-04-01"),
        to("2025-04-01"),
        sub(status="canceled"),
        card=None,
    ),
    row(
        "resumed in the old cycle from its last second, with nothing to ask for",
        subscribe("M_METERED", trial_period_days=14, missing_payment_method="pause"),
        to("2025-03-20"),
        resume(billing_cycle_anchor="unchanged", proration_behavior="always_invoice"),
        sub(status="active"),
        invoices("paid"),
        card=None,
    ),
]

FORESEEN = [
    row(
        "a renewal",
        subscribe("M31"),
        upcoming(
            lines=[3100],
            amount_due=3100,
            created="2025-02-01",
            next_payment_attempt="2025-02-01 01:00",
            status="draft",
            billing_reason="upcoming",
        ),
    ),
    row(
        "with what is pending",
        subscribe("M10"),
        to("2025-01-16 12:00"),
        update(quantity=2),
        item(70),
        upcoming(lines=[70, 1000, -500, 2000]),
    ),
    row(
        "with the balance",
        subscribe("M31"),
        adjust_balance(-1000),
        upcoming(total=3100, amount_due=2100, starting_balance=-1000, ending_balance=0),
    ),
    row("the end of a trial", subscribe("M31", trial_period_days=14), upcoming(lines=[3100], created="2025-01-15")),
    row(
        "the end of a trial with an anchor",
        subscribe("M31", trial_end="2025-01-15", billing_cycle_anchor="2025-02-01"),
        upcoming(lines=[1700], created="2025-01-15"),
    ),
    row(
        "free days after a trial",
        subscribe("M31", trial_end="2025-01-15", billing_cycle_anchor="2025-02-01", proration_behavior="none"),
        upcoming(lines=[3100], created="2025-02-01", period_end="2025-02-01"),
    ),
    row("a period that will be cut", subscribe("M31"), update(cancel_at="2025-02-15"), upcoming(lines=[1550])),
    row(
        "what is sent has no next attempt",
        subscribe("M31", collection_method="send_invoice", days_until_due=5),
        upcoming(next_payment_attempt=None),
        card=None,
    ),
    row("while collection is paused", subscribe("M31"), pause("void"), upcoming(lines=[3100]), unpause()),
]


@pytest.mark.parametrize("row", REPEATED + AT_ONCE)
def test_outcomes(row: Row) -> None:
    row.play()


@pytest.mark.parametrize("row", FORESEEN)
def test_previews(row: Row) -> None:
    row.play()


TARGETS = [
    (c.UpdateCustomer(id="cus_1"), Target("customer", "cus_1")),
    (c.CreateSubscription(customer="cus_1"), Target("customer", "cus_1")),
    (c.UpdateSubscription(id="sub_1"), Target("subscription", "sub_1")),
    (c.ResumeSubscription(id="sub_1"), Target("subscription", "sub_1")),
    (c.PayInvoice(id="in_1"), Target("invoice", "in_1")),
    (c.DetachPaymentMethod(id="pm_1"), Target("payment_method", "pm_1")),
    (c.DeleteInvoiceItem(id="ii_1"), Target("invoice_item", "ii_1")),
    (c.CreateCreditNote(invoice="in_1", amount=1), Target("invoice", "in_1")),
    (c.VoidCreditNote(id="cn_1"), Target("credit_note", "cn_1")),
    (c.ConfirmPaymentIntent(id="pi_1"), Target("invoice", "in_1")),
    (c.CreateRefund(payment_intent="pi_1"), Target("invoice", "in_1")),
]


@pytest.mark.parametrize(("command", "expected"), TARGETS)
def test_what_a_command_is_about(command: c.Command, expected: Target) -> None:
    assert target(command) == expected


def _story() -> Story:
    story = Story(at("2025-01-01"))
    story.do(c.AttachPaymentMethod(customer=story.book.customer.id, token=OK, set_default=True))
    return story


def _refusal(story: Story, **changes: Any) -> LimitReached:
    """Why a subscription is refused in a book with these changes."""
    book = msgspec.structs.replace(story.book, **changes)
    command = c.CreateSubscription(customer=book.customer.id, items=(c.ItemParams(price="M31"),))
    with pytest.raises(LimitReached) as caught:
        decide(
            book, command, now=story.now, wall_now=story.now, pages=story.pages, new_id=Ids(), cause=Cause(kind="rpc")
        )
    return caught.value


def test_at_most_500_subscriptions() -> None:
    assert _refusal(_story(), live_subscriptions=SUBSCRIPTIONS_MAX).reason == "customer_max_subscriptions"


def test_nothing_is_done_while_the_test_clock_advances() -> None:
    clock = TestClock(id="clock_1", created=0, name=None, frozen_time=0, status="advancing", target_frozen_time=9)
    refusal = _refusal(_story(), test_clock=clock)
    assert (refusal.reason, refusal.retry_after_seconds) == ("test_clock_advancing", 1)
