"""Products, prices and meters: what an account sells and counts, and the read-only catalog that decisions consult.

Prices never change their amounts once created, so a decision taken on a cached catalog is safe as long as
the catalog's version is the account's.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from operator import is_
from typing import Literal

import msgspec

from billing_server.domain.calendar import Interval
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.meter import Meter
from billing_server.domain.pricing import Tier, TransformQuantity

BillingScheme = Literal["per_unit", "tiered"]
PriceType = Literal["one_time", "recurring"]
TiersMode = Literal["graduated", "volume"]
UsageType = Literal["licensed", "metered"]
TaxBehavior = Literal["unspecified", "inclusive", "exclusive"]


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """Something sold (semantics 1)."""

    id: str
    created: int
    name: str
    active: bool = True
    description: str | None = None
    default_price: str | None = None
    statement_descriptor: str | None = None
    unit_label: str | None = None
    metadata: dict[str, str] = {}
    version: int = 1


class Recurring(msgspec.Struct, frozen=True, kw_only=True):
    """How often a recurring price is billed, and whether by quantity or by usage."""

    interval: Interval
    interval_count: int = 1
    usage_type: UsageType = "licensed"
    meter: str | None = None
    trial_period_days: int | None = None


class CurrencyOption(msgspec.Struct, frozen=True, kw_only=True):
    """What a price costs in another currency, by the price's own billing scheme."""

    currency: str
    unit_amount: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    tax_behavior: TaxBehavior = "unspecified"


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a product costs (semantics 1). `unit_amount` is in minor units and may carry up to 12 decimals."""

    id: str
    created: int
    product: str
    currency: str
    active: bool = True
    type: PriceType = "one_time"
    nickname: str | None = None
    billing_scheme: BillingScheme = "per_unit"
    unit_amount: Decimal | None = None
    recurring: Recurring | None = None
    tiers: tuple[Tier, ...] = ()
    tiers_mode: TiersMode | None = None
    transform_quantity: TransformQuantity | None = None
    lookup_key: str | None = None
    tax_behavior: TaxBehavior = "unspecified"
    currency_options: tuple[CurrencyOption, ...] = ()
    metadata: dict[str, str] = {}
    version: int = 1

    def in_currency(self, currency: str) -> Price:
        """The price as it is in a currency that it has an option for; else in its own."""
        if currency == self.currency:
            return self
        for option in self.currency_options:
            if option.currency == currency:
                return msgspec.structs.replace(
                    self,
                    currency=currency,
                    unit_amount=option.unit_amount,
                    tiers=option.tiers,
                    tax_behavior=option.tax_behavior,
                )
        return self

    @property
    def metered(self) -> bool:
        """Whether quantities come from usage instead of from the subscription."""
        return self.recurring is not None and self.recurring.usage_type == "metered"


class Catalog:
    """The products, prices and meters of one account, as of one version of its pages.

    `meters_by_event_name` has the meter that counts the events of a name: the active one, else the newest of those
    that are not.
    """

    __slots__ = ("_by_currency", "meters", "meters_by_event_name", "prices", "products")

    def __init__(
        self,
        products: Mapping[str, Product],
        prices: Mapping[str, Price],
        meters: Mapping[str, Meter] | None = None,
    ) -> None:
        self.products = products
        self.prices = prices
        self.meters: Mapping[str, Meter] = meters or {}
        self.meters_by_event_name: Mapping[str, Meter] = _by_event_name(self.meters)
        self._by_currency: dict[str, Catalog] = {}

    def in_currency(self, currency: str | None) -> Catalog:
        """The catalog that a customer sees who is billed in a currency; None: in none yet."""
        if currency is None:
            return self
        seen = self._by_currency.get(currency)
        if seen is None:
            prices = {key: price.in_currency(currency) for key, price in self.prices.items()}
            as_it_is = all(map(is_, prices.values(), self.prices.values()))
            seen = self._by_currency[currency] = self if as_it_is else Catalog(self.products, prices, self.meters)
        return seen

    def price(self, price_id: str, field: str = "price") -> Price:
        """The price with this id; `ResourceMissing` naming `field` when the account has none."""
        found = self.prices.get(price_id)
        if found is None:
            raise ResourceMissing("price", price_id, field=field)
        return found

    def product(self, product_id: str, field: str = "product") -> Product:
        """The product with this id; `ResourceMissing` naming `field` when the account has none."""
        found = self.products.get(product_id)
        if found is None:
            raise ResourceMissing("product", product_id, field=field)
        return found

    def meter(self, meter_id: str, field: str = "meter") -> Meter:
        """The meter with this id; `ResourceMissing` naming `field` when the account has none."""
        found = self.meters.get(meter_id)
        if found is None:
            raise ResourceMissing("meter", meter_id, field=field)
        return found

    def meter_of_price(self, price: Price) -> Meter | None:
        """The meter whose usage the price bills; None for licensed prices."""
        if price.recurring is None or price.recurring.meter is None or not price.metered:
            return None
        return self.meter(price.recurring.meter)


def _by_event_name(meters: Mapping[str, Meter]) -> dict[str, Meter]:
    ordered = sorted(meters.values(), key=lambda meter: (meter.status == "active", meter.created, meter.id))
    return {meter.event_name: meter for meter in ordered}
