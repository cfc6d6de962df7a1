"""What the stories sell, and the instants and cards they speak of."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing_server.domain.calendar import Interval
from billing_server.domain.catalog import Catalog, CurrencyOption, Price, Product, Recurring, UsageType
from billing_server.domain.meter import Meter, MeterFormula
from billing_server.domain.pricing import Tier, TransformQuantity

OK = "ok"
"""A card that pays."""
BAD = "bad"
"""A card that is declined, softly, at every charge."""
LOST = "lost"
"""A card that is declined for good."""
ASK = "ask"
"""A card whose bank wants the customer to authenticate each payment."""
MUTE = "mute"
"""A card for which the gateway never answers: the outcome is unknown."""

GOLD = "prod_gold"
SILVER = "prod_silver"

CALLS = "mtr_calls"
"""A meter that sums up."""
VISITS = "mtr_visits"
"""A meter that counts."""
SEATS = "mtr_seats"
"""A meter whose last value counts."""

_CREATED = 1_600_000_000


def at(text: str | int) -> int:
    """The instant of a text such as "2025-02-01 01:00" (UTC), in seconds; numbers are instants already."""
    if isinstance(text, int):
        return text
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def _price(
    price_id: str,
    amount: int | str | None,
    interval: Interval | None,
    *,
    count: int = 1,
    currency: str = "usd",
    product: str = GOLD,
    meter: str | None = None,
    trial_period_days: int | None = None,
    **more: Any,
) -> Price:
    recurring = None
    if interval is not None:
        usage_type: UsageType = "licensed" if meter is None else "metered"
        recurring = Recurring(
            interval=interval,
            interval_count=count,
            usage_type=usage_type,
            meter=meter,
            trial_period_days=trial_period_days,
        )
    return Price(
        id=price_id,
        created=_CREATED,
        product=product,
        currency=currency,
        type="one_time" if interval is None else "recurring",
        unit_amount=None if amount is None else Decimal(amount),
        recurring=recurring,
        **more,
    )


def _meter(meter_id: str, formula: MeterFormula) -> Meter:
    return Meter(id=meter_id, created=_CREATED, display_name=meter_id, event_name=meter_id, formula=formula)


_PRICES = (
    _price("M10", 1000, "month"),
    _price("M20", 2000, "month"),
    _price("M30", 3000, "month"),
    _price("M31", 3100, "month"),
    _price("M31_SILVER", 3100, "month", product=SILVER),
    _price("M31_TRIAL14", 3100, "month", trial_period_days=14),
    _price("M31_EUR", 3100, "month", currency="eur"),
    _price("M1000_JPY", 1000, "month", currency="jpy"),
    _price("M_CENTS", 30, "month"),
    _price("M_FREE", 0, "month"),
    _price("Y_FREE", 0, "year"),
    _price("Q90", 9000, "month", count=3),
    _price("Y120", 12000, "year"),
    _price("W7", 700, "week"),
    _price("D1", 100, "day"),
    _price("M_METERED", 5, "month", meter=CALLS),
    _price("M_METERED_20", 20, "month", meter=CALLS),
    _price("D_METERED", 5, "day", meter=CALLS),
    _price("Y_METERED", 5, "year", meter=CALLS),
    _price("M_VISITS", 100, "month", meter=VISITS),
    _price("M_SEATS", 1000, "month", meter=SEATS),
    _price(
        "M_METERED_GRADUATED",
        None,
        "month",
        meter=CALLS,
        billing_scheme="tiered",
        tiers_mode="graduated",
        tiers=(Tier(10, Decimal(100)), Tier(None, Decimal(50), 500)),
    ),
    _price(
        "M_METERED_PACK10", 500, "month", meter=CALLS, transform_quantity=TransformQuantity(divide_by=10, round="up")
    ),
    _price("M_OLD", 3100, "month", active=False),
    _price("M_FRACTION", "33.333333333333", "month"),
    _price(
        "M_GRADUATED",
        None,
        "month",
        billing_scheme="tiered",
        tiers_mode="graduated",
        tiers=(Tier(10, Decimal(100)), Tier(None, Decimal(50), 500)),
    ),
    _price(
        "M_VOLUME",
        None,
        "month",
        billing_scheme="tiered",
        tiers_mode="volume",
        tiers=(Tier(10, Decimal(100)), Tier(None, Decimal(50), 500)),
    ),
    _price("M_PACK10_UP", 500, "month", transform_quantity=TransformQuantity(divide_by=10, round="up")),
    _price("M_PACK10_DOWN", 500, "month", transform_quantity=TransformQuantity(divide_by=10, round="down")),
    _price(
        "M10_OR_9_EUR",
        1000,
        "month",
        currency_options=(
            CurrencyOption(currency="eur", unit_amount=Decimal(900), tax_behavior="inclusive"),
            CurrencyOption(currency="jpy", unit_amount=Decimal(1500)),
        ),
    ),
    _price(
        "M20_OR_18_EUR", 2000, "month", currency_options=(CurrencyOption(currency="eur", unit_amount=Decimal(1800)),)
    ),
    _price(
        "M_GRADUATED_OR_EUR",
        None,
        "month",
        billing_scheme="tiered",
        tiers_mode="graduated",
        tiers=(Tier(10, Decimal(100)), Tier(None, Decimal(50), 500)),
        currency_options=(CurrencyOption(currency="eur", tiers=(Tier(5, Decimal(90)), Tier(None, Decimal(40), 450))),),
    ),
    _price("SETUP", 2000, None),
    _price("SETUP_OR_EUR", 2000, None, currency_options=(CurrencyOption(currency="eur", unit_amount=Decimal(1700)),)),
    _price("SETUP_EUR", 2000, None, currency="eur"),
    _price("SETUP_OLD", 2000, None, active=False),
)

CATALOG = Catalog(
    products={
        GOLD: Product(id=GOLD, created=_CREATED, name="Gold"),
        SILVER: Product(id=SILVER, created=_CREATED, name="Silver", statement_descriptor="SILVER PLAN"),
    },
    prices={price.id: price for price in _PRICES},
    meters={meter.id: meter for meter in (_meter(CALLS, "sum"), _meter(VISITS, "count"), _meter(SEATS, "last"))},
)
"""Amounts are minor units: M31 is 31.00 usd per month, Y120 120.00 usd per year, SETUP a one-off of 20.00."""
