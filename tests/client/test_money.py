"""Amounts as people write and read them; the tables are those of the engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_client.money import (
    exponent,
    format_money,
    format_unit_amount,
    minimum_charge,
    parse_money,
    parse_unit_amount,
)
from billing_server.domain import money as engine

CURRENCIES = ["usd", "eur", "gbp", "jpy", "kwd", "huf", "isk", "mga", "krw", "bhd", "dkk", "nok", "czk", "inr"]


@pytest.mark.parametrize("currency", CURRENCIES)
def test_currencies_are_those_of_the_engine(currency: str) -> None:
    assert exponent(currency) == engine.minor_unit_exponent(currency)
    assert minimum_charge(currency) == engine.minimum_charge(currency)


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (2985, "usd", "29.85 USD"),
        (-5, "eur", "-0.05 EUR"),
        (1000, "jpy", "1000 JPY"),
        (1234567, "kwd", "1234.567 KWD"),
        (0, "usd", "0.00 USD"),
        (7, "", "7"),
        (2**63 - 1, "usd", "92233720368547758.07 USD"),
    ],
)
def test_amounts_as_text(amount: int, currency: str, text: str) -> None:
    assert format_money(amount, currency) == text


@pytest.mark.parametrize(
    ("text", "currency", "amount"), [("29.85", "usd", 2985), ("-10", "eur", -1000), ("1000", "jpy", 1000)]
)
def test_text_as_amounts(text: str, currency: str, amount: int) -> None:
    assert parse_money(text, currency) == amount


@pytest.mark.parametrize(
    ("text", "currency"),
    [("29.855", "usd"), ("1.5", "jpy"), ("ten", "usd"), ("", "usd"), ("nan", "usd"), ("inf", "usd")],
)
def test_text_that_is_no_amount(text: str, currency: str) -> None:
    with pytest.raises(ValueError, match=r"decimals|not an amount"):
        parse_money(text, currency)


@given(st.integers(-(10**15), 10**15), st.sampled_from(CURRENCIES))
def test_what_is_written_can_be_read(amount: int, currency: str) -> None:
    assert parse_money(format_money(amount, currency).split()[0], currency) == amount


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        ("1000", "usd", "10.00 USD"),
        ("0.5", "usd", "0.005 USD"),
        ("1000", "jpy", "1000 JPY"),
        ("0.000000000001", "usd", "0.00000000000001 USD"),
    ],
)
def test_unit_prices(minor: str, currency: str, text: str) -> None:
    assert format_unit_amount(minor, currency) == text
    assert parse_unit_amount(text.split()[0], currency) == minor
