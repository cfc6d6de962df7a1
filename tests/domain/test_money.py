"""Rounding, exponents, minimum charges, formatting and conversion of money."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_server.domain.money import (
    INT64_MAX,
    convert,
    format_amount,
    is_currency,
    minimum_charge,
    minor_unit_exponent,
    round_decimal_half_away_from_zero,
    round_half_away_from_zero,
)

integers = st.integers(-(10**30), 10**30)
positive = st.integers(1, 10**30)


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [
        (0, 7, 0),
        (1, 2, 1),
        (-1, 2, -1),
        (3, 2, 2),
        (5, 2, 3),
        (-5, 2, -3),
        (5, -2, -3),
        (-5, -2, 3),
        (49, 100, 0),
        (-49, 100, 0),
        (2000, 3, 667),
        (1000, 3, 333),
        (INT64_MAX, 1, INT64_MAX),
        (INT64_MAX, 2, 2**62),
    ],
)
def test_ties_go_away_from_zero(numerator: int, denominator: int, rounded: int) -> None:
    assert round_half_away_from_zero(numerator, denominator) == rounded


def test_a_denominator_of_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError):
        round_half_away_from_zero(1, 0)


@given(integers, positive)
def test_rounding_is_nearest_and_symmetric(numerator: int, denominator: int) -> None:
    rounded = round_half_away_from_zero(numerator, denominator)
    distance = abs(Fraction(numerator, denominator) - rounded)
    assert distance <= Fraction(1, 2)
    if distance == Fraction(1, 2):
        assert abs(rounded) > abs(Fraction(numerator, denominator))
    assert round_half_away_from_zero(-numerator, denominator) == -rounded
    assert round_half_away_from_zero(numerator, -denominator) == -rounded


@given(integers, integers, positive)
def test_rounding_is_monotone(first: int, second: int, denominator: int) -> None:
    low, high = sorted((first, second))
    assert round_half_away_from_zero(low, denominator) <= round_half_away_from_zero(high, denominator)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        ("0", 0),
        ("0.5", 1),
        ("-0.5", -1),
        ("1.5", 2),
        ("-2.5", -3),
        ("2.499999999999", 2),
        ("1E+3", 1000),
        ("1000.000000000000", 1000),
    ],
)
def test_decimals_round_like_fractions(value: str, rounded: int) -> None:
    assert round_decimal_half_away_from_zero(Decimal(value)) == rounded


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40, places=12))
def test_decimal_rounding_ignores_the_context(value: Decimal) -> None:
    with localcontext(prec=3):
        rounded = round_decimal_half_away_from_zero(value)
    assert rounded == round_half_away_from_zero(*value.as_integer_ratio())


@pytest.mark.parametrize(("value", "error"), [("NaN", ValueError), ("Infinity", OverflowError)])
def test_what_is_no_number_is_not_rounded(value: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        round_decimal_half_away_from_zero(Decimal(value))


@pytest.mark.parametrize(
    ("exponent", "currencies"),
    [
        (0, "bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"),
        (2, "usd eur gbp aud cad chf nzd sgd brl dkk nok sek hkd mxn pln czk huf isk inr"),
        (3, "bhd jod kwd omr tnd"),
    ],
)
def test_exponents_are_those_of_the_specification(exponent: int, currencies: str) -> None:
    for currency in currencies.split():
        assert minor_unit_exponent(currency) == exponent, currency


@pytest.mark.parametrize("code", ["USD", "", "us", "dollar", "zzz", "xau", "xxx", "xts"])
def test_other_codes_are_no_currencies(code: str) -> None:
    assert not is_currency(code)
    for function in (minor_unit_exponent, minimum_charge):
        with pytest.raises(ValueError, match="unknown currency"):
            function(code)


@pytest.mark.parametrize(
    ("currency", "minimum"),
    [
        ("usd", 50),
        ("gbp", 30),
        ("jpy", 50),
        ("dkk", 250),
        ("nok", 300),
        ("huf", 17500),
        ("inr", 1),
        ("kwd", 1),
    ],
)
def test_minimum_charges(currency: str, minimum: int) -> None:
    assert minimum_charge(currency) == minimum


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (3100, "usd", "31.00 USD"),
        (5, "usd", "0.05 USD"),
        (-5, "usd", "-0.05 USD"),
        (-2100, "eur", "-21.00 EUR"),
        (0, "usd", "0.00 USD"),
        (1000, "jpy", "1000 JPY"),
        (-1000, "jpy", "-1000 JPY"),
        (1005, "kwd", "1.005 KWD"),
        (INT64_MAX, "usd", "92233720368547758.07 USD"),
    ],
)
def test_amounts_are_written_with_their_decimals(amount: int, currency: str, text: str) -> None:
    assert format_amount(amount, currency) == text


@given(st.integers(-INT64_MAX, INT64_MAX), st.sampled_from(["usd", "jpy", "kwd"]))
def test_written_amounts_read_back(amount: int, currency: str) -> None:
    number, code = format_amount(amount, currency).split()
    assert code == currency.upper()
    assert Fraction(number) * 10 ** minor_unit_exponent(currency) == amount


RATES = {"eur": Decimal("1.10"), "jpy": Decimal("0.0065"), "kwd": Decimal("3.25")}


@pytest.mark.parametrize(
    ("amount", "source", "target", "converted"),
    [
        (10000, "usd", "usd", 10000),
        (10000, "eur", "usd", 11000),
        (10000, "jpy", "usd", 6500),
        (10000, "kwd", "usd", 3250),
        (1, "kwd", "usd", 0),
        (2, "kwd", "usd", 1),
        (1000, "eur", "jpy", 1692),
        (1000, "jpy", "kwd", 2000),
        (-10000, "eur", "usd", -11000),
        (-1, "jpy", "usd", -1),
    ],
)
def test_conversion_respects_the_decimals_of_both(amount: int, source: str, target: str, converted: int) -> None:
    assert convert(amount, source, target, RATES) == converted


def test_a_missing_rate_is_named() -> None:
    with pytest.raises(KeyError, match="no exchange rate for gbp, needed to convert it to usd"):
        convert(1, "gbp", "usd", RATES)


@pytest.mark.parametrize("rate", ["0", "-1", "NaN", "Infinity"])
def test_a_senseless_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="exchange rate of eur"):
        convert(1, "eur", "usd", {"eur": Decimal(rate)})


def test_a_conversion_to_an_unknown_currency_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown currency"):
        convert(1, "eur", "zzz", RATES)


@given(st.integers(-INT64_MAX, INT64_MAX), st.sampled_from(["eur", "jpy", "kwd"]))
def test_conversion_is_symmetric_in_sign(amount: int, source: str) -> None:
    assert convert(-amount, source, "usd", RATES) == -convert(amount, source, "usd", RATES)
