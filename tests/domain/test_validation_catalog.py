"""What settings, products and prices have to be like."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.account import EmailSettings, OverduePolicy
from billing_server.domain.catalog import CurrencyOption, Recurring
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.errors import InvalidArgument
from billing_server.domain.pricing import Tier, TransformQuantity
from billing_server.domain.validation import validate

NOW = 1_750_000_000

SETTINGS = c.UpdateSettings()
PRODUCT = c.CreateProduct(name="Gold plan")
PRODUCT_UPDATE = c.UpdateProduct(id="prod_1")
PRICE = c.CreatePrice(product="prod_1", currency="usd", unit_amount=Decimal(1000))
TIERS = (Tier(up_to=10, unit_amount=Decimal(5)), Tier(up_to=None, unit_amount=Decimal(3), flat_amount=100))
TIERED = c.CreatePrice(product="prod_1", currency="usd", billing_scheme="tiered", tiers=TIERS, tiers_mode="graduated")
PRICE_UPDATE = c.UpdatePrice(id="price_1")
MONTHLY = Recurring(interval="month")


def recurring(**changes: Any) -> dict[str, Any]:
    """A monthly recurrence with changes."""
    return {"recurring": msgspec.structs.replace(MONTHLY, **changes)}


GOOD = [
    (SETTINGS, {}),
    (
        SETTINGS,
        {
            "default_currency": "eur",
            "exchange_rates": {"usd": Decimal("0.92")},
            "company_name": None,
            "company_domain": "acme.test",
            "team_users": ("jenny@example.com",),
            "retry_policy": RetryPolicy(kind="custom"),
            "overdue_policy": OverduePolicy(days_after_due=30),
            "upcoming_renewal_days": 0,
            "finalization_delay_seconds": 0,
            "emails": EmailSettings(cancellation_policy_url="https://acme.test/cancel"),
        },
    ),
    (PRODUCT, {"metadata": {"tier": "1"}, "unit_label": "seat"}),
    (PRODUCT_UPDATE, {"name": "Gold", "description": None, "default_price": None}),
    (PRICE, {}),
    (PRICE, recurring(interval_count=36)),
    (PRICE, recurring(interval="year", interval_count=3, trial_period_days=730)),
    (PRICE, recurring(usage_type="metered", meter="mtr_1")),
    (PRICE, {"transform_quantity": TransformQuantity(divide_by=10, round="up")}),
    (TIERED, {}),
    (TIERED, {"tiers": (Tier(up_to=None, unit_amount=None),), "tiers_mode": "volume"}),
    (PRICE, {"currency_options": (CurrencyOption(currency="eur", unit_amount=Decimal(1)),)}),
    (TIERED, {"currency_options": (CurrencyOption(currency="eur", tiers=TIERS),)}),
    (PRICE_UPDATE, {"lookup_key": "gold", "transfer_lookup_key": True}),
    (PRICE_UPDATE, {"lookup_key": None, "active": False}),
]


@pytest.mark.parametrize(("command", "changes"), GOOD)
def test_good_commands_are_accepted(command: c.Command, changes: dict[str, Any]) -> None:
    validate(msgspec.structs.replace(command, **changes), NOW)


BAD = [
    (SETTINGS, {"default_currency": "USD"}, "default_currency", "parameter_invalid"),
    (SETTINGS, {"exchange_rates": {"eur": Decimal(0)}}, "exchange_rates[eur]", "parameter_invalid"),
    (SETTINGS, {"exchange_rates": {"EUR": Decimal(1)}}, "exchange_rates", "parameter_invalid"),
    (SETTINGS, {"company_name": "x" * 251}, "company_name", "parameter_invalid"),
    (SETTINGS, {"company_domain": "jenny@acme.test"}, "company_domain", "parameter_invalid"),
    (SETTINGS, {"team_users": ("jenny@acme.test", "bob")}, "team_users[1]", "parameter_invalid"),
    (SETTINGS, {"team_users": ("a@acme.test",) * 101}, "team_users", "parameter_invalid"),
    (
        SETTINGS,
        {"retry_policy": RetryPolicy(kind="custom", retry_days=(1, 2, 3, 4))},
        "retry_policy.retry_days",
        "parameter_invalid",
    ),
    (
        SETTINGS,
        {"one_off_retry_policy": RetryPolicy(kind="smart", max_retries=9)},
        "one_off_retry_policy.max_retries",
        "parameter_invalid",
    ),
    (
        SETTINGS,
        {"overdue_policy": OverduePolicy(days_after_due=0)},
        "overdue_policy.days_after_due",
        "parameter_invalid_integer",
    ),
    (SETTINGS, {"upcoming_renewal_days": 366}, "upcoming_renewal_days", "parameter_invalid_integer"),
    (SETTINGS, {"finalization_delay_seconds": 259_201}, "finalization_delay_seconds", "parameter_invalid_integer"),
    (SETTINGS, {"statement_descriptor": "A*B CORP"}, "statement_descriptor", "parameter_invalid"),
    (
        SETTINGS,
        {"emails": EmailSettings(cancellation_policy_url="nowhere")},
        "emails.cancellation_policy_url",
        "parameter_invalid",
    ),
    (PRODUCT, {"name": ""}, "name", "parameter_missing"),
    (PRODUCT, {"name": "x" * 251}, "name", "parameter_invalid"),
    (PRODUCT, {"description": "4242 4242 4242 4242"}, "description", "card_number_refused"),
    (PRODUCT, {"statement_descriptor": "GOLD"}, "statement_descriptor", "parameter_invalid"),
    (PRODUCT, {"unit_label": "x" * 51}, "unit_label", "parameter_invalid"),
    (PRODUCT, {"metadata": {"": "x"}}, "metadata", "metadata_invalid"),
    (PRODUCT_UPDATE, {"id": ""}, "id", "parameter_missing"),
    (PRODUCT_UPDATE, {"name": ""}, "name", "parameter_invalid_empty"),
    (PRODUCT_UPDATE, {"default_price": ""}, "default_price", "parameter_invalid_empty"),
    (PRICE, {"product": ""}, "product", "parameter_missing"),
    (PRICE, {"currency": ""}, "currency", "parameter_missing"),
    (PRICE, {"currency": "dollars"}, "currency", "parameter_invalid"),
    (PRICE, {"unit_amount": None}, "unit_amount", "parameter_missing"),
    (PRICE, {"unit_amount": Decimal(-1)}, "unit_amount", "amount_too_small"),
    (PRICE, {"unit_amount": Decimal("0.0000000000001")}, "unit_amount", "parameter_invalid"),
    (PRICE, {"tiers": TIERS}, "tiers", "parameters_exclusive"),
    (PRICE, {"tiers_mode": "volume"}, "tiers_mode", "parameters_exclusive"),
    (
        PRICE,
        {"transform_quantity": TransformQuantity(divide_by=0, round="up")},
        "transform_quantity.divide_by",
        "parameter_invalid_integer",
    ),
    (PRICE, recurring(usage_type="metered"), "recurring.meter", "parameter_missing"),
    (PRICE, recurring(interval_count=0), "recurring.interval_count", "parameter_invalid_integer"),
    (PRICE, recurring(interval_count=37), "recurring.interval_count", "parameter_invalid_integer"),
    (PRICE, recurring(interval="day", interval_count=1096), "recurring.interval_count", "parameter_invalid_integer"),
    (PRICE, recurring(interval="week", interval_count=157), "recurring.interval_count", "parameter_invalid_integer"),
    (PRICE, recurring(interval="year", interval_count=4), "recurring.interval_count", "parameter_invalid_integer"),
    (PRICE, recurring(trial_period_days=731), "recurring.trial_period_days", "parameter_invalid_integer"),
    (PRICE, recurring(meter="mtr_1"), "recurring.meter", "parameters_exclusive"),
    (PRICE, {"lookup_key": "x" * 201}, "lookup_key", "parameter_invalid"),
    (PRICE, {"transfer_lookup_key": True}, "lookup_key", "parameter_missing"),
    (TIERED, {"tiers": ()}, "tiers", "parameter_missing"),
    (TIERED, {"tiers_mode": None}, "tiers_mode", "parameter_missing"),
    (TIERED, {"unit_amount": Decimal(1)}, "unit_amount", "parameters_exclusive"),
    (
        TIERED,
        {"transform_quantity": TransformQuantity(divide_by=10, round="up")},
        "transform_quantity",
        "parameters_exclusive",
    ),
    (TIERED, {"tiers": TIERS[:1]}, "tiers", "parameter_invalid"),
    (TIERED, {"tiers": (TIERS[0], *TIERS)}, "tiers", "parameter_invalid"),
    (TIERED, {"tiers": TIERS * 51}, "tiers", "parameter_invalid"),
    (TIERED, {"tiers": (Tier(None, Decimal(-1)),)}, "tiers[0].unit_amount", "amount_too_small"),
    (TIERED, {"tiers": (TIERS[0], Tier(None, None, -1))}, "tiers[1].flat_amount", "amount_too_small"),
    (TIERED, {"tiers": (Tier(0, None), TIERS[1])}, "tiers[0].up_to", "amount_too_small"),
    (
        PRICE,
        {"currency_options": (CurrencyOption(currency="eur"),)},
        "currency_options[0].unit_amount",
        "parameter_missing",
    ),
    (
        PRICE,
        {"currency_options": (CurrencyOption(currency="eur", unit_amount=Decimal(1), tiers=TIERS),)},
        "currency_options[0].tiers",
        "parameters_exclusive",
    ),
    (
        PRICE,
        {"currency_options": (CurrencyOption(currency="eur", unit_amount=Decimal(-1)),)},
        "currency_options[0].unit_amount",
        "amount_too_small",
    ),
    (
        PRICE,
        {"currency_options": (CurrencyOption(currency="", unit_amount=Decimal(1)),)},
        "currency_options[0].currency",
        "parameter_missing",
    ),
    (
        PRICE,
        {"currency_options": (CurrencyOption(currency="usd", unit_amount=Decimal(1)),)},
        "currency_options[0].currency",
        "parameters_exclusive",
    ),
    (
        PRICE,
        {"currency_options": (CurrencyOption(currency="eur", unit_amount=Decimal(1)),) * 2},
        "currency_options[1].currency",
        "parameters_exclusive",
    ),
    (
        TIERED,
        {"currency_options": (CurrencyOption(currency="eur", tiers=(TIERS[0], *TIERS)),)},
        "currency_options[0].tiers",
        "parameter_invalid",
    ),
    (PRICE_UPDATE, {"nickname": "x" * 251}, "nickname", "parameter_invalid"),
    (PRICE_UPDATE, {"transfer_lookup_key": True}, "lookup_key", "parameter_missing"),
    (PRICE_UPDATE, {"etag": "x" * 256}, "etag", "parameter_invalid"),
]


@pytest.mark.parametrize(("command", "changes", "field", "reason"), BAD)
def test_bad_commands_are_refused(command: c.Command, changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(msgspec.structs.replace(command, **changes), NOW)
    assert [(violation.field, violation.reason) for violation in refused.value.violations] == [(field, reason)]
