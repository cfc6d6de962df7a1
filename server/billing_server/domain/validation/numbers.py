"""Rules of numbers: counts, amounts of minor units, decimals, currencies and instants."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from billing_server.domain.calendar import DAY
from billing_server.domain.money import AMOUNT_MAX, is_currency
from billing_server.domain.pricing import UNIT_AMOUNT_DECIMALS_MAX, check_unit_amount
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Rule

QUANTITY_MAX: Final = 1_000_000_000
SEQUENCE_MAX: Final = 1_000_000_000
DAYS_UNTIL_DUE_MAX: Final = 3650
TRIAL_DAYS_MAX: Final = 730
EARLIEST_INSTANT: Final = 946_684_800
"""2000-01-01T00:00:00: nothing that is billed here is older."""
HORIZON_SECONDS: Final = 36_525 * DAY
"""A hundred years: no time that is given lies further ahead."""

_DIGITS_MAX: Final = 50
_RATE_SIZE_MAX: Final = 12
_RATES_MAX: Final = 200


def whole(least: int, most: int, what: str = "") -> Rule:
    """A whole number within bounds."""
    text = f"must be from {least} to {most}{what}"

    def rule(value: int, field: str, findings: Findings) -> None:
        if not least <= value <= most:
            findings.add(field, "parameter_invalid_integer", f"{text}, not {value}")

    return rule


QUANTITY: Final = whole(0, QUANTITY_MAX)
SEQUENCE: Final = whole(1, SEQUENCE_MAX)
DAYS_UNTIL_DUE: Final = whole(0, DAYS_UNTIL_DUE_MAX, " days")
TRIAL_DAYS: Final = whole(1, TRIAL_DAYS_MAX, " days")


def amount(*, least: int = -AMOUNT_MAX) -> Rule:
    """Minor units of a currency: neither above the largest single amount, nor below the least."""

    def rule(value: int, field: str, findings: Findings) -> None:
        if abs(value) > AMOUNT_MAX:
            findings.add(field, "amount_too_large", f"must be at most {AMOUNT_MAX} minor units; use a smaller amount")
        elif value < least:
            findings.add(field, "amount_too_small", f"must be at least {least} minor units, not {value}")

    return rule


ANY_AMOUNT: Final = amount()
AMOUNT_OR_NOTHING: Final = amount(least=0)
AMOUNT: Final = amount(least=1)


def unit_amount(value: Decimal, field: str, findings: Findings) -> None:
    """Minor units for each unit: a decimal of at least zero with at most twelve decimals."""
    if value.is_finite():
        if value > AMOUNT_MAX:
            findings.add(field, "amount_too_large", f"must be at most {AMOUNT_MAX} minor units")
            return
        if value < 0:
            findings.add(field, "amount_too_small", f"must be at least 0 minor units, not {value:.20}")
            return
        if len(value.as_tuple().digits) > _DIGITS_MAX or (value and value.adjusted() < -UNIT_AMOUNT_DECIMALS_MAX):
            decimals = f"must have at most {UNIT_AMOUNT_DECIMALS_MAX} decimals; round it"
            findings.add(field, "parameter_invalid", decimals)
            return
    try:
        check_unit_amount(value)
    except ValueError as error:
        findings.add(field, "parameter_invalid", str(error))


def currency(value: str, field: str, findings: Findings) -> None:
    """A currency that can be billed in, spelled as in ISO 4217 but in lower case."""
    if is_currency(value):
        return
    lower = value.lower()
    if is_currency(lower):
        findings.add(field, "parameter_invalid", f"must be in lower case: '{lower}'")
    else:
        findings.add(field, "parameter_invalid", "must be an ISO 4217 code in lower case, such as 'usd'")


def exchange_rates(rates: dict[str, Decimal], field: str, findings: Findings) -> None:
    """Values of currencies in the default currency: known codes, decimals above zero."""
    if len(rates) > _RATES_MAX:
        findings.add(field, "parameter_invalid", f"holds at most {_RATES_MAX} rates, not {len(rates)}")
        return
    for code, rate in rates.items():
        if not is_currency(code):
            findings.add(field, "parameter_invalid", "keys are ISO 4217 codes in lower case, such as 'eur'")
        elif not _is_rate(rate):
            findings.add(
                f"{field}[{code}]",
                "parameter_invalid",
                f"must be a decimal above zero, from 1e-{_RATE_SIZE_MAX} to 1e{_RATE_SIZE_MAX}",
            )


def _is_rate(rate: Decimal) -> bool:
    return (
        rate.is_finite()
        and rate > 0
        and -_RATE_SIZE_MAX <= rate.adjusted() <= _RATE_SIZE_MAX
        and len(rate.as_tuple().digits) <= _DIGITS_MAX
    )


def instant(value: Any, field: str, findings: Findings) -> None:
    """UTC seconds between the year 2000 and a hundred years from now."""
    if not EARLIEST_INSTANT <= value <= findings.now + HORIZON_SECONDS:
        findings.add(
            field,
            "time_out_of_range",
            "must lie between 2000-01-01 and a hundred years from now; times are UTC seconds",
        )
