"""Money: integer minor units of a currency, and the one rounding function.

Owns what a currency code means here (does it exist, how many decimals have its minor units, what is the
smallest amount worth charging) and every step from an exact value to a whole minor unit. It is apart so
that rounding happens in exactly one way in the whole engine: half away from zero (semantics section 13,
decision 7). Nothing here touches floats.

Currency codes are ISO 4217, in lower case, as they appear in the API ("usd").
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from iso4217 import Currency

INT64_MAX: Final = 2**63 - 1
"""Largest amount that the wire format and the database can hold; the smallest is its negative."""

AMOUNT_MAX: Final = 10**15
"""Largest single amount, in minor units: more than anything costs, and thousands of them still fit into 64 bits. So
time never meets an invoice whose sum does not fit, which nobody could be told of then."""

BALANCE_MAX: Final = 10**18
"""Largest balance that callers can give a customer, in minor units: that of an invoice still fits beside it."""

_LISTED_EXPONENTS: Final[dict[str, int]] = {
    "bif": 0,
    "clp": 0,
    "djf": 0,
    "gnf": 0,
    "jpy": 0,
    "kmf": 0,
    "krw": 0,
    "mga": 0,
    "pyg": 0,
    "rwf": 0,
    "ugx": 0,
    "vnd": 0,
    "vuv": 0,
    "xaf": 0,
    "xof": 0,
    "xpf": 0,
    "bhd": 3,
    "jod": 3,
    "kwd": 3,
    "omr": 3,
    "tnd": 3,
}
_USUAL_EXPONENT: Final = 2


def _exponent_by_currency() -> dict[str, int]:
    """Build the table of currencies: which exist comes from ISO 4217, the exponents from the specification.

    Codes to which ISO gives no minor unit (metals, testing, "no currency") are not money one can bill in.
    """
    codes = (currency.code.lower() for currency in Currency if currency.exponent is not None)
    return {code: _LISTED_EXPONENTS.get(code, _USUAL_EXPONENT) for code in codes}


_EXPONENTS: Final = _exponent_by_currency()

_MINIMUM_CHARGES: Final[dict[str, int]] = {
    "usd": 50,
    "eur": 50,
    "aud": 50,
    "cad": 50,
    "chf": 50,
    "nzd": 50,
    "sgd": 50,
    "brl": 50,
    "gbp": 30,
    "jpy": 50,
    "dkk": 250,
    "nok": 300,
    "sek": 300,
    "hkd": 400,
    "mxn": 1000,
    "pln": 200,
    "czk": 1500,
    "huf": 17500,
}


def round_half_away_from_zero(numerator: int, denominator: int) -> int:
    """Round the exact fraction numerator/denominator to the nearest integer, ties away from zero.

    The one rounding function of the engine (semantics section 5 and decision 7): 2.5 becomes 3 and -2.5
    becomes -3. Integers only, of any size, hence exact.

    Raises:
        ZeroDivisionError: the denominator is zero.
    """
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    if numerator < 0:
        return -((denominator - 2 * numerator) // (2 * denominator))
    return (2 * numerator + denominator) // (2 * denominator)


def round_decimal_half_away_from_zero(value: Decimal) -> int:
    """Round an exact decimal to the nearest integer, ties away from zero, whatever the decimal context.

    Raises:
        ValueError: the value is not a number.
        OverflowError: the value is infinite.
    """
    numerator, denominator = value.as_integer_ratio()
    if denominator == 1:
        return numerator
    return round_half_away_from_zero(numerator, denominator)


def is_currency(code: str) -> bool:
    """Tell whether the lower-case code is a currency that can be billed in."""
    return code in _EXPONENTS


def minor_unit_exponent(currency: str) -> int:
    """Return the number of decimals between the major and the minor unit: 2 for usd, 0 for jpy, 3 for kwd.

    The zero- and three-decimal currencies are those listed in semantics section 5; all others have two,
    also where ISO 4217 differs (isk).

    Raises:
        ValueError: the code is not a lower-case ISO 4217 currency with a minor unit.
    """
    try:
        return _EXPONENTS[currency]
    except KeyError:
        raise ValueError(f"unknown currency: {currency!r}") from None


def minimum_charge(currency: str) -> int:
    """Return the smallest amount, in minor units, that is collected rather than carried on the balance.

    Semantics section 3, "Amounts": an amount due above zero but below this goes to the customer's balance.
    A currency without an entry there has the minimum 1: any amount above zero is charged, zero never is.

    Raises:
        ValueError: unknown currency.
    """
    minor_unit_exponent(currency)
    return _MINIMUM_CHARGES.get(currency, 1)


def format_amount(amount: int, currency: str) -> str:
    """Write an amount of minor units for people, with all its decimals: "31.00 USD", "-1000 JPY".

    Raises:
        ValueError: unknown currency.
    """
    exponent = minor_unit_exponent(currency)
    sign = "-" if amount < 0 else ""
    if exponent == 0:
        return f"{sign}{abs(amount)} {currency.upper()}"
    major, minor = divmod(abs(amount), 10**exponent)
    return f"{sign}{major}.{minor:0{exponent}d} {currency.upper()}"


def convert(amount: int, source: str, target: str, rates: Mapping[str, Decimal]) -> int:
    """Convert minor units of the source currency to minor units of the target, rounded once.

    The rates are those of the account: how many major units of its default currency one major unit of the
    key currency is worth. The default currency itself needs no rate: a target without one is taken to be
    the currency that the rates are quoted in. The decimals of both currencies are respected.

    Raises:
        KeyError: the source differs from the target and has no rate.
        ValueError: unknown currency, or a rate that is not a finite number above zero.
    """
    source_exponent = minor_unit_exponent(source)
    target_exponent = minor_unit_exponent(target)
    if source == target:
        return amount
    if source not in rates:
        raise KeyError(f"no exchange rate for {source}, needed to convert it to {target}")
    source_numerator, source_denominator = _rate_ratio(source, rates[source])
    target_numerator, target_denominator = _rate_ratio(target, rates.get(target, Decimal(1)))
    return round_half_away_from_zero(
        amount * source_numerator * target_denominator * 10**target_exponent,
        source_denominator * target_numerator * 10**source_exponent,
    )


def _rate_ratio(currency: str, rate: Decimal) -> tuple[int, int]:
    if not rate.is_finite() or rate <= 0:
        raise ValueError(f"exchange rate of {currency} must be a finite number above zero, not {rate}")
    return rate.as_integer_ratio()
