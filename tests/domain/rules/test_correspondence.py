"""Which e-mails customers receive, when, and with what facts (semantics 4, 7 and 13; scenarios 70 and 82)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain.account import EmailSettings, Settings
from billing_server.domain.message import Message
from tests.domain.rules import steps as do
from tests.domain.rules.shop import ASK, BAD, LOST, MUTE, OK, at
from tests.domain.rules.story import Story

PAGE = "https://shop.example/pay?lang=en"
POLICY = "https://shop.example/cancel"
Mail = tuple[str, str]


def settings(**emails: Any) -> Settings:
    return Settings(emails=EmailSettings(**emails))


def play(*steps: do.Step, start: str = "2025-03-01", card: str | None = OK, **story: Any) -> Story:
    """Tell a story without its checks in small steps being left out."""
    told = Story(at(start), **story)
    if card is not None:
        do.attach(card)(told)
    for step in steps:
        step(told)
    return told


def mails(story: Story) -> list[Mail]:
    """Kind and minute of all messages, in order."""
    from datetime import UTC, datetime

    return [(m.kind, datetime.fromtimestamp(m.created, UTC).strftime("%Y-%m-%d %H:%M")) for m in story.messages]


def of_kind(story: Story, kind: str) -> list[Message]:
    return [message for message in story.messages if message.kind == kind]


# --- trial reminders (S70)

REMINDERS: list[tuple[str, list[do.Step], list[str]]] = [
    ("30 days: 7 days before", [do.subscribe("M31", trial_period_days=30)], ["2025-03-24 00:00"]),
    ("exactly 7 days: at once", [do.subscribe("M31", trial_period_days=7)], ["2025-03-01 00:00"]),
    ("5 days: at once", [do.subscribe("M31", trial_period_days=5)], ["2025-03-01 00:00"]),
    (
        "extended before the reminder: one, for the new end",
        [do.subscribe("M31", trial_period_days=14), do.to("2025-03-05"), do.update(trial_end="2025-04-10")],
        ["2025-04-03 00:00"],
    ),
    (
        "extended after the reminder: again",
        [do.subscribe("M31", trial_period_days=14), do.to("2025-03-10"), do.update(trial_end="2025-04-10")],
        ["2025-03-08 00:00", "2025-04-03 00:00"],
    ),
    (
        "shortened to less than 7 days: again at once",
        [do.subscribe("M31", trial_period_days=30), do.to("2025-03-10"), do.update(trial_end="2025-03-12")],
        ["2025-03-10 00:00"],
    ),
    (
        "ended now: none any more",
        [do.subscribe("M31", trial_period_days=30), do.to("2025-03-10"), do.update(trial_end_now=True)],
        [],
    ),
    (
        "another change leaves it alone",
        [do.subscribe("M31", trial_period_days=5), do.to("2025-03-02"), do.update(quantity=2)],
        ["2025-03-01 00:00"],
    ),
    (
        "a trial in a running subscription",
        [do.subscribe("M31"), do.to("2025-03-05"), do.update(trial_end="2025-04-10", proration_behavior="none")],
        ["2025-04-03 00:00"],
    ),
    ("canceled before", [do.subscribe("M31", trial_period_days=30), do.to("2025-03-02"), do.cancel()], []),
]


@pytest.mark.parametrize(("steps", "expected"), [row[1:] for row in REMINDERS], ids=[row[0] for row in REMINDERS])
def test_70_trial_reminders(steps: list[do.Step], expected: list[str]) -> None:
    story = play(*steps, do.to("2025-05-01"))
    assert [moment for kind, moment in mails(story) if kind == "trial_reminder"] == expected


def test_a_trial_reminder_tells_what_comes() -> None:
    emails = settings(cancellation_policy_url=POLICY, billing_page_url=PAGE)
    story = play(do.subscribe("M31", trial_period_days=5), settings=emails, name="Jenny", preferred_locale="de-DE")
    (message,) = story.messages
    facts = message.facts
    assert (message.recipient, message.locale, message.state, message.due_at) == (
        "jenny@example.com",
        "de-DE",
        "due",
        story.now,
    )
    assert (facts.plan, facts.amount, facts.currency, facts.moment) == ("Gold", 3100, "usd", at("2025-03-06"))
    assert (facts.has_method, facts.ends, facts.company) == (True, False, "Shop")
    assert facts.cancellation_policy_url == POLICY
    assert facts.page_url == f"{PAGE}&customer={message.customer}"


def test_a_trial_that_nothing_follows_is_announced_without_an_amount() -> None:
    story = play(do.subscribe("M31", trial_period_days=5, cancel_at_period_end=True), card=None)
    (message,) = story.messages
    assert (message.facts.ends, message.facts.amount, message.facts.has_method) == (True, None, False)


@pytest.mark.parametrize(
    "story",
    [
        {"email": None},
        {"settings": settings(trial_reminder=False)},
    ],
    ids=["no address", "switched off"],
)
def test_no_trial_reminder(story: dict[str, Any]) -> None:
    told = play(do.subscribe("M31", trial_period_days=30), do.to("2025-03-30"), **story)
    assert mails(told) == []


def test_a_first_invoice_that_is_paid_later_lets_the_trial_and_its_reminder_begin() -> None:
    story = play(
        do.subscribe("M31", trial_period_days=5, add_invoice_items=["SETUP"], answers=["declined"]),
        do.to("2025-03-01 02:00"),
    )
    assert mails(story) == []
    do.pay()(story)
    assert mails(story) == [("trial_reminder", "2025-03-01 02:00"), ("receipt", "2025-03-01 02:00")]


def test_while_trialing_only_the_trial_reminder_then_the_renewal_reminder() -> None:
    story = play(
        do.subscribe("M31", trial_period_days=14), do.to("2025-04-20"), settings=settings(upcoming_renewal=True)
    )
    assert mails(story) == [
        ("trial_reminder", "2025-03-08 00:00"),
        ("receipt", "2025-03-15 01:00"),
        ("upcoming_renewal", "2025-04-08 00:00"),
        ("receipt", "2025-04-15 01:00"),
    ]
    renewal = of_kind(story, "upcoming_renewal")[0].facts
    assert (renewal.amount, renewal.moment, renewal.plan) == (3100, at("2025-04-15"), "Gold")


# --- receipts


def test_the_receipt_after_a_trial_says_so() -> None:
    emails = msgspec.structs.replace(settings(cancellation_policy_url=POLICY), statement_descriptor="SHOP EXAMPLE")
    story = play(do.subscribe("M31", trial_period_days=14), do.to("2025-04-20"), settings=emails)
    first, second = (message.facts for message in of_kind(story, "receipt"))
    assert (first.trial_over, second.trial_over) == (True, False)
    assert first.statement_descriptor == "SHOP EXAMP* TRIAL OVER"
    assert second.statement_descriptor == "SHOP EXAMPLE"
    assert (first.amount, first.moment, first.invoice_number) == (
        3100,
        at("2025-03-15 01:00"),
        story.invoice(1).number,
    )


def test_receipts_follow_charges_only() -> None:
    story = play(do.subscribe("M31", trial_period_days=14), do.subscribe("M_FREE"))
    assert of_kind(story, "receipt") == [], "nothing was charged"
    do.item(500)(story)
    do.bill(currency="usd", pending_invoice_items_behavior="include")(story)
    do.pay(paid_out_of_band=True)(story)
    assert of_kind(story, "receipt") == [], "the engine saw no money"


def test_receipts_can_be_switched_off() -> None:
    assert mails(play(do.subscribe("M31"), settings=settings(receipt=False))) == []
    assert mails(play(do.subscribe("M31"))) == [("receipt", "2025-03-01 00:00")]


# --- failures


FAILURES: list[tuple[str, str | None, list[do.Step], list[Mail]]] = [
    (
        "a renewal and its retries",
        BAD,
        [do.to("2025-05-01")],
        [
            ("payment_failed", "2025-04-01 01:00"),
            ("payment_failed", "2025-04-04 01:00"),
            ("payment_failed", "2025-04-09 01:00"),
            ("payment_failed", "2025-04-16 01:00"),
        ],
    ),
    (
        "hard declined",
        LOST,
        [do.to("2025-04-05")],
        [("payment_failed", "2025-04-01 01:00")] * 1 + [("payment_failed", "2025-04-04 01:00")],
    ),
    ("the bank asks", ASK, [do.to("2025-04-02")], [("payment_failed", "2025-04-01 01:00")]),
    ("unknown is not failed", MUTE, [do.to("2025-04-02")], []),
    (
        "by hand: whoever pays sees it",
        OK,
        [
            do.item(500),
            do.bill(currency="usd", auto_advance=False, pending_invoice_items_behavior="include"),
            do.pay(answers=["declined"]),
        ],
        [],
    ),
]


@pytest.mark.parametrize(("card", "steps", "expected"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failed_payments(card: str, steps: list[do.Step], expected: list[Mail]) -> None:
    story = play(do.subscribe("M31"), do.attach(card), *steps)
    assert mails(story)[1:] == expected
    assert mails(story)[0][0] == "receipt"


def test_a_failed_payment_tells_the_next_try() -> None:
    story = play(do.subscribe("M31"), do.attach(BAD), do.to("2025-05-01"))
    assert [message.facts.next_attempt for message in of_kind(story, "payment_failed")] == [
        at("2025-04-04 01:00"),
        at("2025-04-09 01:00"),
        at("2025-04-16 01:00"),
        None,
    ]


def test_a_first_payment_fails_before_the_customers_eyes() -> None:
    assert mails(play(do.subscribe("M31"), card=BAD)) == []


def test_failures_can_be_switched_off() -> None:
    story = play(do.subscribe("M31"), do.attach(BAD), do.to("2025-05-01"), settings=settings(payment_failed=False))
    assert of_kind(story, "payment_failed") == []


def test_what_came_to_nothing_tells_nobody() -> None:
    """An all-or-nothing command whose charge fails leaves no message behind; one that succeeds tells once."""
    failed = play(do.subscribe("M31", payment_behavior="error_if_incomplete"), card=BAD)
    assert mails(failed) == []
    paid = play(do.subscribe("M31", payment_behavior="error_if_incomplete"))
    assert mails(paid) == [("receipt", "2025-03-01 00:00")]


# --- invoices to pay


def test_sent_invoices() -> None:
    story = play(
        do.subscribe("M31", collection_method="send_invoice", days_until_due=30),
        do.to("2025-03-02"),
        settings=settings(billing_page_url="https://shop.example/pay#form"),
    )
    (message,) = story.messages
    invoice = story.invoice()
    assert mails(story) == [("invoice_to_pay", "2025-03-01 01:00")]
    assert (message.facts.amount, message.facts.moment) == (3100, at("2025-03-31"))
    link = f"https://shop.example/pay?customer={message.customer}&invoice={invoice.id}#form"
    assert (message.facts.invoice, message.facts.page_url) == (invoice.id, link)
    do.send()(story)
    assert len(story.messages) == 2, "sent again by hand"


def test_sent_invoices_can_be_switched_off() -> None:
    story = play(
        do.subscribe("M31", collection_method="send_invoice", days_until_due=30),
        do.to("2025-03-02"),
        settings=settings(invoice=False),
    )
    assert mails(story) == []


# --- paused collection (S82)


@pytest.mark.parametrize("behavior", ["void", "keep_as_draft", "mark_uncollectible"])
@pytest.mark.parametrize("sent", [False, True])
def test_82_no_mail_about_invoices_born_paused(behavior: Any, sent: bool) -> None:
    fields: dict[str, Any] = {"collection_method": "send_invoice", "days_until_due": 30} if sent else {}
    story = play(
        do.subscribe("M31", **fields),
        do.to("2025-03-02"),
        do.pause(behavior),
        do.to("2025-06-15"),
        settings=settings(upcoming_renewal=True),
    )
    assert [kind for kind, _ in mails(story)] == ["invoice_to_pay" if sent else "receipt"], "only of the time before"


def test_a_draft_that_is_released_by_hand_is_told_like_any_other() -> None:
    story = play(
        do.subscribe("M31"),
        do.pause("keep_as_draft"),
        do.to("2025-04-02"),
        do.change_invoice(auto_advance=True),
        do.to("2025-04-03"),
    )
    assert mails(story)[1:] == [("receipt", "2025-04-02 01:00")]


def test_deleted_customers_are_left_alone() -> None:
    story = play(do.subscribe("M31", trial_period_days=30), do.delete_customer(), do.to("2025-05-01"))
    assert mails(story) == []
