"""What products and prices have to be like (semantics 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from billing_server.domain import commands as c
from billing_server.domain.catalog import BillingScheme, CurrencyOption, Recurring
from billing_server.domain.pricing import Tier, TransformQuantity, check_tiers
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, each, needs, nested

TIERS_MAX: Final = 100
CURRENCY_OPTIONS_MAX: Final = 50
INTERVAL_COUNT_MAX: Final[Mapping[str, int]] = {"day": 1095, "week": 156, "month": 36, "year": 3}
"""Intervals in a period of three years, the longest there is."""


def period_length(struct: Any, findings: Findings) -> None:
    """A period is at least one interval and at most three years long."""
    most = INTERVAL_COUNT_MAX[struct.interval]
    if not 1 <= struct.interval_count <= most:
        findings.add(
            "interval_count",
            "parameter_invalid_integer",
            f"must be from 1 to {most}, not {struct.interval_count}: a period is at most three years",
        )


def _meter_of_usage(recurring: Recurring, findings: Findings) -> None:
    if recurring.meter is None and recurring.usage_type == "metered":
        findings.add("meter", "parameter_missing", "a metered price bills the usage of a meter; name one")
    if recurring.meter is not None and recurring.usage_type != "metered":
        findings.add(
            "meter", "parameters_exclusive", "only metered prices have a meter; set usage_type, or leave it out"
        )


RECURRING: Final = Shape(
    Recurring, {"meter": text.ID, "trial_period_days": numbers.TRIAL_DAYS}, period_length, _meter_of_usage
)
TIER: Final = Shape(
    Tier,
    {
        "up_to": numbers.amount(least=1),
        "unit_amount": numbers.unit_amount,
        "flat_amount": numbers.AMOUNT_OR_NOTHING,
    },
)
CURRENCY_OPTION: Final = Shape(
    CurrencyOption,
    {"currency": numbers.currency, "unit_amount": numbers.unit_amount, "tiers": each(TIER, most=TIERS_MAX)},
)
TRANSFORM_QUANTITY: Final = Shape(TransformQuantity, {"divide_by": numbers.whole(1, numbers.QUANTITY_MAX)})

_OF_SCHEME: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "per_unit": (("unit_amount",), ("tiers", "tiers_mode")),
    "tiered": (("tiers", "tiers_mode"), ("unit_amount", "transform_quantity")),
}
"""The fields that each billing scheme needs, and those that it does not take."""


def _fields_of_scheme(price: c.CreatePrice, findings: Findings) -> None:
    _judge_fields(price, "", price.billing_scheme, findings)
    for index, option in enumerate(price.currency_options):
        _judge_fields(option, f"currency_options[{index}].", price.billing_scheme, findings)


def _judge_fields(costs: c.CreatePrice | CurrencyOption, path: str, scheme: BillingScheme, findings: Findings) -> None:
    needed, refused = _OF_SCHEME[scheme]
    for name in needed:
        if getattr(costs, name, "of the price") in (None, ()):
            findings.add(f"{path}{name}", "parameter_missing", f"billing_scheme={scheme} needs it")
    for name in refused:
        if getattr(costs, name, None) not in (None, ()):
            findings.add(
                f"{path}{name}",
                "parameters_exclusive",
                f"not together with billing_scheme={scheme}; leave it out, or change the scheme",
            )


def _tiers_ascend(price: c.CreatePrice, findings: Findings) -> None:
    _judge_tiers(price.tiers, "tiers", findings)
    for index, option in enumerate(price.currency_options):
        _judge_tiers(option.tiers, f"currency_options[{index}].tiers", findings)


def _judge_tiers(tiers: Sequence[Tier], field: str, findings: Findings) -> None:
    """The tiers as a whole; their amounts have been judged one by one."""
    if not tiers or any(violation.field.startswith(field) for violation in findings.violations):
        return
    try:
        check_tiers(tiers)
    except ValueError as error:
        findings.add(field, "parameter_invalid", str(error))


def _each_currency_once(price: c.CreatePrice, findings: Findings) -> None:
    known = {price.currency}
    for index, option in enumerate(price.currency_options):
        if option.currency in known:
            findings.add(
                f"currency_options[{index}].currency",
                "parameters_exclusive",
                f"the price has an amount in {option.currency} already; give each currency once",
            )
        known.add(option.currency)


_KEY_TO_TRANSFER: Final = needs("transfer_lookup_key", "lookup_key", "name the key to take over")

SHAPES: Final = (
    Shape(
        c.CreateProduct,
        {
            "name": text.NAME,
            "description": text.DESCRIPTION,
            "statement_descriptor": text.STATEMENT_DESCRIPTOR,
            "unit_label": text.UNIT_LABEL,
            "metadata": text.metadata,
        },
    ),
    Shape(
        c.UpdateProduct,
        {
            "id": text.ID,
            "name": text.NAME,
            "description": text.DESCRIPTION,
            "default_price": text.ID,
            "statement_descriptor": text.STATEMENT_DESCRIPTOR,
            "unit_label": text.UNIT_LABEL,
            "metadata": text.metadata,
            "etag": text.ID,
        },
    ),
    Shape(
        c.CreatePrice,
        {
            "product": text.ID,
            "currency": numbers.currency,
            "nickname": text.NAME,
            "unit_amount": numbers.unit_amount,
            "recurring": nested(RECURRING),
            "tiers": each(TIER, most=TIERS_MAX),
            "transform_quantity": nested(TRANSFORM_QUANTITY),
            "lookup_key": text.LOOKUP_KEY,
            "currency_options": each(CURRENCY_OPTION, most=CURRENCY_OPTIONS_MAX),
            "metadata": text.metadata,
        },
        _fields_of_scheme,
        _tiers_ascend,
        _each_currency_once,
        _KEY_TO_TRANSFER,
    ),
    Shape(
        c.UpdatePrice,
        {
            "id": text.ID,
            "nickname": text.NAME,
            "lookup_key": text.LOOKUP_KEY,
            "metadata": text.metadata,
            "etag": text.ID,
        },
        _KEY_TO_TRANSFER,
    ),
)
