"""Rules of numbers: bounds, amounts, decimals, currencies and instants."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from billing_server.domain.validation import numbers
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Rule

NOW = 1_750_000_000
CENTURY = 36_525 * 86_400


def reasons(rule: Rule, value: Any) -> list[str]:
    """The reasons for which a rule refuses a value."""
    findings = Findings(NOW)
    rule(value, "field", findings)
    return [violation.reason for violation in findings.violations]


GOOD = [
    (numbers.QUANTITY, 0),
    (numbers.QUANTITY, 10**9),
    (numbers.SEQUENCE, 1),
    (numbers.DAYS_UNTIL_DUE, 0),
    (numbers.DAYS_UNTIL_DUE, 3650),
    (numbers.TRIAL_DAYS, 1),
    (numbers.TRIAL_DAYS, 730),
    (numbers.ANY_AMOUNT, -(10**15)),
    (numbers.ANY_AMOUNT, 10**15),
    (numbers.AMOUNT_OR_NOTHING, 0),
    (numbers.AMOUNT, 1),
    (numbers.unit_amount, Decimal(0)),
    (numbers.unit_amount, Decimal("0E-1000020")),
    (numbers.unit_amount, Decimal("0.000000000001")),
    (numbers.unit_amount, Decimal(10**15)),
    (numbers.currency, "usd"),
    (numbers.exchange_rates, {"eur": Decimal("1.08"), "jpy": Decimal("0.0067")}),
    (numbers.instant, 946_684_800),
    (numbers.instant, NOW + CENTURY),
]


@pytest.mark.parametrize(("rule", "value"), GOOD)
def test_good_numbers_are_accepted(rule: Rule, value: Any) -> None:
    assert reasons(rule, value) == []


BAD = [
    (numbers.QUANTITY, -1, "parameter_invalid_integer"),
    (numbers.QUANTITY, 10**9 + 1, "parameter_invalid_integer"),
    (numbers.SEQUENCE, 0, "parameter_invalid_integer"),
    (numbers.DAYS_UNTIL_DUE, -1, "parameter_invalid_integer"),
    (numbers.DAYS_UNTIL_DUE, 3651, "parameter_invalid_integer"),
    (numbers.TRIAL_DAYS, 0, "parameter_invalid_integer"),
    (numbers.TRIAL_DAYS, 731, "parameter_invalid_integer"),
    (numbers.ANY_AMOUNT, -(2**63), "amount_too_large"),
    (numbers.ANY_AMOUNT, -(10**15) - 1, "amount_too_large"),
    (numbers.ANY_AMOUNT, 10**15 + 1, "amount_too_large"),
    (numbers.ANY_AMOUNT, 2**63, "amount_too_large"),
    (numbers.AMOUNT_OR_NOTHING, -1, "amount_too_small"),
    (numbers.AMOUNT, 0, "amount_too_small"),
    (numbers.unit_amount, Decimal(-1), "amount_too_small"),
    (numbers.unit_amount, Decimal(10**15 + 1), "amount_too_large"),
    (numbers.unit_amount, Decimal(2**63), "amount_too_large"),
    (numbers.unit_amount, Decimal("1E+999999"), "amount_too_large"),
    (numbers.unit_amount, Decimal("-1E+999999"), "amount_too_small"),
    (numbers.unit_amount, Decimal("0.0000000000001"), "parameter_invalid"),
    (numbers.unit_amount, Decimal("1E-1000020"), "parameter_invalid"),
    (numbers.unit_amount, Decimal("0." + "1" * 60), "parameter_invalid"),
    (numbers.unit_amount, Decimal("NaN"), "parameter_invalid"),
    (numbers.unit_amount, Decimal("sNaN"), "parameter_invalid"),
    (numbers.unit_amount, Decimal("Infinity"), "parameter_invalid"),
    (numbers.currency, "USD", "parameter_invalid"),
    (numbers.currency, "dollar", "parameter_invalid"),
    (numbers.currency, "xau", "parameter_invalid"),
    (numbers.currency, "", "parameter_invalid"),
    (numbers.exchange_rates, {"EUR": Decimal(1)}, "parameter_invalid"),
    (numbers.exchange_rates, {"eur": Decimal(0)}, "parameter_invalid"),
    (numbers.exchange_rates, {"eur": Decimal(-1)}, "parameter_invalid"),
    (numbers.exchange_rates, {"eur": Decimal("NaN")}, "parameter_invalid"),
    (numbers.exchange_rates, {"eur": Decimal("1E+999999")}, "parameter_invalid"),
    (numbers.exchange_rates, {str(index): Decimal(1) for index in range(201)}, "parameter_invalid"),
    (numbers.instant, 946_684_799, "time_out_of_range"),
    (numbers.instant, NOW + CENTURY + 1, "time_out_of_range"),
]


@pytest.mark.parametrize(("rule", "value", "reason"), BAD)
def test_bad_numbers_are_refused(rule: Rule, value: Any, reason: str) -> None:
    assert reasons(rule, value) == [reason]


def test_a_currency_in_capitals_is_told_how_to_be_spelled() -> None:
    findings = Findings(NOW)
    numbers.currency("EUR", "currency", findings)
    assert findings.violations[0].description == "must be in lower case: 'eur'"
