"""Money for people: amounts of minor units written and read as "29.85 USD".

The engine counts in integers of a currency's minor unit. What people type and read here is the major unit, with
the decimals that the currency has. No floats.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

_USUAL_EXPONENT: Final = 2
_EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys(
        (
            "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga",
            "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf",
        ),
        0,
    ),
    **dict.fromkeys(("bhd", "jod", "kwd", "omr", "tnd"), 3),
}  # fmt: skip

_MINIMUM_CHARGES: Final[dict[str, int]] = {
    **dict.fromkeys(("usd", "eur", "aud", "cad", "chf", "nzd", "sgd", "brl", "jpy"), 50),
    **dict.fromkeys(("nok", "sek"), 300),
    "gbp": 30,
    "dkk": 250,
    "hkd": 400,
    "mxn": 1000,
    "pln": 200,
    "czk": 1500,
    "huf": 17500,
}


def exponent(currency: str) -> int:
    """Decimals between the major and the minor unit: 2 for usd, 0 for jpy, 3 for kwd (semantics section 5)."""
    return _EXPONENTS.get(currency.lower(), _USUAL_EXPONENT)


def minimum_charge(currency: str) -> int:
    """Smallest amount, in minor units, that is charged rather than carried over (semantics section 3)."""
    return _MINIMUM_CHARGES.get(currency.lower(), 1)


def format_money(amount: int, currency: str) -> str:
    """Minor units as people write them: "29.85 USD", "-1000 JPY"; without a currency, the bare number."""
    if not currency:
        return str(amount)
    return f"{format_amount(amount, currency)} {currency.upper()}"


def format_amount(amount: int, currency: str) -> str:
    """Minor units in major ones, without the currency: "29.85"."""
    decimals = exponent(currency)
    return f"{Decimal(amount).scaleb(-decimals):.{decimals}f}"


def format_unit_amount(unit_amount: str, currency: str) -> str:
    """The price of a unit, a decimal string of minor units, in major ones: "0.5" usd is "0.005 USD"."""
    value = _decimal(unit_amount).scaleb(-exponent(currency))
    decimals = max(exponent(currency), -int(value.normalize().as_tuple().exponent))
    return f"{value:.{decimals}f} {currency.upper()}"


def parse_money(text: str, currency: str) -> int:
    """Minor units of an amount in major ones. Raises ValueError for more decimals than the currency has."""
    minor = _decimal(text).scaleb(exponent(currency))
    if minor != minor.to_integral_value():
        raise ValueError(f"{text} has more decimals than {currency.upper()}, which has {exponent(currency)}")
    return int(minor)


def parse_unit_amount(text: str, currency: str) -> str:
    """The price of a unit in major units as the contract has it: a decimal string of minor ones."""
    minor = _decimal(text).scaleb(exponent(currency))
    return f"{minor.normalize():f}"


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        raise ValueError(f"{text!r} is not an amount; write one such as 29.85") from None
    if not value.is_finite():
        raise ValueError(f"{text!r} is not an amount; write one such as 29.85")
    return value
