"""Letters say what their message holds, in the customer's way of writing, and nothing that a name smuggles in."""

from __future__ import annotations

import typing
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import msgspec
import pytest
from babel import Locale
from jinja2.exceptions import SecurityError

from billing_server.delivery import letter as letters
from billing_server.delivery.letter import LETTER_CHARACTERS_MAX, LetterError, Sender, format_money, write_letter
from billing_server.domain.message import Facts, Message, MessageKind
from tests.store import samples

SENDER = Sender("billing@shop.example")
FACTS = Facts(
    company="Shop",
    customer_name="Jenny",
    plan="Gold",
    subscription="sub_1",
    invoice="in_1",
    invoice_number="A1-0001",
    amount=123456,
    currency="eur",
    moment=1_735_689_600,
    next_attempt=1_735_948_800,
    card_brand="visa",
    card_last4="4242",
    has_method=True,
    page_url="https://shop.example/pay?customer=cus_1&invoice=in_1",
    cancellation_policy_url="https://shop.example/cancel",
    survey_url="https://shop.example/survey",
    statement_descriptor="SHOP * TRIAL OVER",
    trial_over=True,
    memo="First line\nSecond line",
)
KINDS = typing.get_args(MessageKind)


def written(kind: str, *, locale: str | None = None, **facts: Any) -> EmailMessage:
    """The letter as its reader's program sees it."""
    message = samples.message(
        samples.customer(), kind=kind, locale=locale, facts=msgspec.structs.replace(FACTS, **facts)
    )
    return message_from_bytes(write_letter(message, SENDER).as_bytes(), _class=EmailMessage, policy=default)


def body(letter: EmailMessage, kind: str = "plain") -> str:
    part = letter.get_body((kind,))
    assert part is not None
    return str(part.get_content())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_text_and_html_with_what_matters(kind: str) -> None:
    letter = written(kind)
    assert letter["Subject"]
    for shape in ("plain", "html"):
        text = body(letter, shape)
        assert "Jenny" in text
        assert ("Gold" in text) and ("None" not in text)
        if kind != "cancellation_confirmation":
            assert "€1,234.56" in text
    assert letter["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_does_with_the_least_it_can_know(kind: str) -> None:
    """What a kind always knows is an amount, a currency and a moment; all else may be missing."""
    facts = Facts(company="Shop", amount=100, currency="usd", moment=1_735_689_600)
    write_letter(samples.message(samples.customer(), kind=kind, facts=facts), SENDER)


def test_a_letter_is_always_the_same() -> None:
    message = samples.message(samples.customer(), facts=FACTS)
    assert write_letter(message, SENDER).as_bytes() == write_letter(message, SENDER).as_bytes()
    assert write_letter(message, SENDER)["Message-ID"] == f"<{message.id}@shop.example>"


@pytest.mark.parametrize(
    ("locale", "money", "day"),
    [
        (None, "€1,234.56", "January 1, 2025"),
        ("en-GB", "€1,234.56", "1 January 2025"),
        ("de", "1.234,56\xa0€", "1. Januar 2025"),
        ("de-XY", "1.234,56\xa0€", "1. Januar 2025"),
        ("ja-JP", "€1,234.56", "2025年1月1日"),
        ("xx-nonsense", "€1,234.56", "January 1, 2025"),
        ("zh-Hant-TW", "€1,234.56", "2025年1月1日"),
    ],
)
def test_money_and_dates_follow_the_locale(locale: str | None, money: str, day: str) -> None:
    text = body(written("receipt", locale=locale))
    assert money in text
    assert day in text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1000, "jpy", "¥1,000"),
        (12345, "kwd", "KWD12.345"),
        (100, "isk", "ISK1.00"),
        (-500, "usd", "-$5.00"),
        (2**63 - 1, "usd", "$92,233,720,368,547,758.07"),
        (0, "huf", "HUF0.00"),
    ],
)
def test_decimals_are_those_that_amounts_are_counted_in(amount: int, currency: str, text: str) -> None:
    assert format_money(amount, currency, Locale("en")) == text


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "Jenny\r\nBcc: everyone@example.com",
    "Jenny\n\nYou owe us 1,000,000",
    "{{ 7 * 7 }}{% for x in range(10**9) %}{% endfor %}",
    "Jenny\u202egnp.exe",
    "Jenny\u2028Bcc: x@example.com",
    "\x1b[31mred\x07",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_stay_names(kind: str, name: str) -> None:
    letter = written(kind, customer_name=name, company=name, plan=name, statement_descriptor=name)
    assert set(map(str.lower, letter.keys())).isdisjoint({"bcc", "cc"})
    assert len(letter.get_all("Subject", [])) == 1
    page = body(letter, "html")
    assert "<script" not in page
    assert "<img" not in page
    assert "You owe us" not in [line.strip() for line in body(letter).splitlines()]
    assert "49" not in body(letter).replace("{{ 7 * 7 }}", "")
    for character in "\u202e\u2028\x1b\x07":
        assert character not in page + body(letter) + letter["Subject"]


def test_a_memo_is_escaped_too() -> None:
    letter = written("team_memo", memo="<b>pay</b>\nnow")
    assert "&lt;b&gt;pay&lt;/b&gt;" in body(letter, "html")
    assert body(letter).splitlines()[:2] == ["<b>pay</b>", "now"]


def test_links_are_escaped() -> None:
    page = body(written("receipt", cancellation_policy_url='https://shop.example/?a="onclick="x'), "html")
    assert '"onclick' not in page


def test_letters_are_bounded() -> None:
    with pytest.raises(LetterError, match=str(LETTER_CHARACTERS_MAX)):
        written("team_memo", memo="x" * (LETTER_CHARACTERS_MAX + 1))


@pytest.mark.parametrize("template", ["{{ ''.__class__.__mro__ }}", "{{ money.__globals__ }}", "{{ ''.__init__ }}"])
def test_a_template_cannot_leave_its_sandbox(template: str) -> None:
    with pytest.raises(SecurityError, match="unsafe"):
        letters._TEXTS.from_string(template).render(money=format_money)


def test_what_its_text_needs_must_be_there() -> None:
    with pytest.raises(LetterError, match="receipt"):
        write_letter(samples.message(samples.customer(), facts=Facts(company="Shop")), SENDER)


@pytest.mark.parametrize(
    ("sender", "shown"),
    [
        (Sender("billing@shop.example"), "Shop <billing@shop.example>"),
        (Sender("billing@shop.example", "The Shop, Inc."), '"The Shop, Inc." <billing@shop.example>'),
    ],
)
def test_the_sender_bears_the_name_of_the_company_or_its_own(sender: Sender, shown: str) -> None:
    message: Message = samples.message(samples.customer(), facts=FACTS)
    assert write_letter(message, sender)["From"] == shown
