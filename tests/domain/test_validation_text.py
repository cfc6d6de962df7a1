"""Rules of text: shapes, lengths, what cannot be stored, and card numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_server.domain.validation import text
from billing_server.domain.validation.card_numbers import has_card_number
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Rule


def reasons(rule: Rule, value: Any) -> list[str]:
    """The reasons for which a rule refuses a value."""
    findings = Findings(now=1_750_000_000)
    rule(value, "field", findings)
    return [violation.reason for violation in findings.violations]


GOOD = [
    (text.NAME, "Jenny Rosén"),
    (text.NAME, "x" * 250),
    (text.ID, "cus_4242424242424242"),
    (text.ID, "4242424242424242"),
    (text.EMAIL, "jenny@example.com"),
    (text.EMAIL, "jenny.rosen+billing@mail.example.co.uk"),
    (text.EMAIL, "jörg@müller.example"),
    (text.DOMAIN, "acme.test"),
    (text.DOMAIN, "billing.xn--mller-kva.example"),
    (text.URL, "https://example.com/how-to-cancel?from=mail#now"),
    (text.URL, "http://localhost:8080"),
    (text.LOCALE, "en"),
    (text.LOCALE, "pt-BR"),
    (text.LOCALE, "zh-Hant-TW"),
    (text.COUNTRY, "DE"),
    (text.INVOICE_PREFIX, "ABC"),
    (text.INVOICE_PREFIX, "A1B2C3D4E5F6"),
    (text.LAST_FOUR, "0341"),
    (text.STATEMENT_DESCRIPTOR, "ACME 24/7"),
    (text.STATEMENT_DESCRIPTOR, "x" * 22),
    (text.LOOKUP_KEY, "gold-monthly"),
    (text.phone, "+1 415 555 2671"),
    (text.phone, "(030) 123-4567 ext. 12"),
    (text.phone, "+424242424242426"),
    (text.metadata, {}),
    (text.metadata, {"order": "6735", "gone": ""}),
]


@pytest.mark.parametrize(("rule", "value"), GOOD)
def test_good_text_is_accepted(rule: Rule, value: Any) -> None:
    assert reasons(rule, value) == []


BAD = [
    (text.NAME, "", "parameter_invalid_empty"),
    (text.NAME, " \t", "parameter_invalid_empty"),
    (text.NAME, "x" * 251, "parameter_invalid"),
    (text.NAME, "a\x00b", "parameter_invalid"),
    (text.NAME, "ä\x00", "parameter_invalid"),
    (text.NAME, "lone \ud800", "parameter_invalid"),
    (text.NAME, "my card 4242424242424242", "card_number_refused"),
    (text.DESCRIPTION, "x" * 501, "parameter_invalid"),
    (text.LONG_TEXT, "x" * 5001, "parameter_invalid"),
    (text.ID, "x" * 256, "parameter_invalid"),
    (text.ID, "cus_\x00", "parameter_invalid"),
    (text.TOKEN, "4242424242424242", "card_number_refused"),
    (text.LOOKUP_KEY, "x" * 201, "parameter_invalid"),
    (text.UNIT_LABEL, "x" * 51, "parameter_invalid"),
    (text.EMAIL, "jenny", "parameter_invalid"),
    (text.EMAIL, "jenny@example", "parameter_invalid"),
    (text.EMAIL, "jenny@@example.com", "parameter_invalid"),
    (text.EMAIL, "jenny rosen@example.com", "parameter_invalid"),
    (text.EMAIL, "jenny@-example.com", "parameter_invalid"),
    (text.EMAIL, "jenny@example.com\n", "parameter_invalid"),
    (text.EMAIL, "jenny@example..com", "parameter_invalid"),
    (text.EMAIL, f"jenny@{'x.' * 300}com", "parameter_invalid"),
    (text.DOMAIN, "https://acme.test", "parameter_invalid"),
    (text.DOMAIN, "acme", "parameter_invalid"),
    (text.DOMAIN, "acme.test/", "parameter_invalid"),
    (text.DOMAIN, "@acme.test", "parameter_invalid"),
    (text.URL, "javascript:alert(1)", "parameter_invalid"),
    (text.URL, "https://", "parameter_invalid"),
    (text.URL, "https://example.com/a b", "parameter_invalid"),
    (text.LOCALE, "english", "parameter_invalid"),
    (text.LOCALE, "en_US", "parameter_invalid"),
    (text.COUNTRY, "de", "parameter_invalid"),
    (text.COUNTRY, "DEU", "parameter_invalid"),
    (text.INVOICE_PREFIX, "AB", "parameter_invalid"),
    (text.INVOICE_PREFIX, "abc", "parameter_invalid"),
    (text.INVOICE_PREFIX, "A-B-C", "parameter_invalid"),
    (text.INVOICE_PREFIX, "A" * 13, "parameter_invalid"),
    (text.LAST_FOUR, "42", "parameter_invalid"),
    (text.STATEMENT_DESCRIPTOR, "ACME", "parameter_invalid"),
    (text.STATEMENT_DESCRIPTOR, "x" * 23, "parameter_invalid"),
    (text.STATEMENT_DESCRIPTOR, "12345", "parameter_invalid"),
    *((text.STATEMENT_DESCRIPTOR, f"ACME {character} INC", "parameter_invalid") for character in "<>'\"*\\\n"),
    (text.phone, "call me", "parameter_invalid"),
    (text.phone, "+4242424242424242", "parameter_invalid"),
    (text.phone, "4242 4242 4242 4242", "card_number_refused"),
    (text.phone, "12345678901234567", "parameter_invalid"),
    (text.metadata, {str(index): "x" for index in range(51)}, "metadata_invalid"),
    (text.metadata, {"k" * 41: "x"}, "metadata_invalid"),
    (text.metadata, {"": "x"}, "metadata_invalid"),
    (text.metadata, {"k": "x" * 501}, "metadata_invalid"),
    (text.metadata, {"k\x00": "x"}, "metadata_invalid"),
    (text.metadata, {"k": "\x00"}, "metadata_invalid"),
    (text.metadata, {"k": "\udfff"}, "metadata_invalid"),
    (text.metadata, {"card": "4242-4242-4242-4242"}, "card_number_refused"),
    (text.metadata, {"4242424242424242": "card"}, "card_number_refused"),
]


@pytest.mark.parametrize(("rule", "value", "reason"), BAD)
def test_bad_text_is_refused(rule: Rule, value: Any, reason: str) -> None:
    assert reasons(rule, value) == [reason]


CARDS = [
    "4242424242424242",
    "4242 4242 4242 4242",
    "4242-4242-4242-4242",
    "4242\u00a04242\u00a04242\u00a04242",
    "3782 822463 10005",
    "378282246310005",
    "4222222222222",
    "6304000000000000000",
    "my card: 4242424242424242, thanks",
    "4242 4242 4242 4242 12 29 123",
    "call 12 4242-4242-4242-4242",
    "4242424242424242/12/29",
]
NOT_CARDS = [
    "",
    "4242",
    "4242424242424241",
    "42424242424242424242424242424242",
    "424242424242",
    "pi_4242424242424242",
    "order4242424242424242",
    "4242424242424242abc",
    "4242 4242-4242 4242",
    "123e4567-e89b-4234-8124-424242424242",
    "2024-01-01 2024-12-31",
    "invoices 1001, 1002, 1003 and 1004",
]


@pytest.mark.parametrize("value", CARDS)
def test_card_numbers_are_found(value: str) -> None:
    assert has_card_number(value)


@pytest.mark.parametrize("value", NOT_CARDS)
def test_identifiers_dates_and_other_numbers_are_no_cards(value: str) -> None:
    assert not has_card_number(value)


def luhn_digit(digits: str) -> str:
    """The check digit, counted the slow way: every second digit from the right doubled, its digits added."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        doubled = str(int(digit) * (2 if index % 2 == 0 else 1))
        total += sum(int(part) for part in doubled)
    return str(-total % 10)


@given(
    digits=st.text("0123456789", min_size=12, max_size=18),
    before=st.sampled_from(["", "card ", "(", "№ "]),
    after=st.sampled_from(["", ".", ", thanks", ")"]),
    separator=st.sampled_from(["", " ", "-"]),
    group=st.integers(1, 6),
)
def test_every_number_with_a_good_check_digit_is_found_and_with_a_bad_one_is_not(
    digits: str, before: str, after: str, separator: str, group: int
) -> None:
    good = luhn_digit(digits)
    number = digits + good
    grouped = separator.join(number[start : start + group] for start in range(0, len(number), group))
    assert has_card_number(before + grouped + after)
    bad = str((int(good) + 1) % 10)
    assert not has_card_number(f"{before}{digits}{bad}{after}")


@pytest.mark.parametrize("value", ["1 " * 2500, "12 " * 1666 + "x", "1" * 5000 + "x"])
def test_long_texts_full_of_digits_are_judged_to_their_end(value: str) -> None:
    assert not has_card_number(value)
    assert has_card_number(value + " card 4242424242424242")
