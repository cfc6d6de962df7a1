"""Pricing: what a quantity costs under a price, per unit or in tiers.

Owns the arithmetic of billing schemes (semantics section 1, Price). Unit amounts are exact decimals of minor
units with at most twelve decimals; an amount is rounded once, at its end, half away from zero. Prices come in
as anything with the attributes of `PricedBy`, so that this module knows nothing of the catalog.

A quantity of zero costs nothing under every scheme: it reaches no tier, so no flat amount is due either.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, Inexact
from typing import Final, Literal, Protocol

import msgspec

from billing_server.domain.money import round_decimal_half_away_from_zero

BillingScheme = Literal["per_unit", "tiered"]
"""per_unit: quantity times unit amount; tiered: the rates of the tiers."""
TiersMode = Literal["graduated", "volume"]
"""graduated: each band of the quantity at its own rate; volume: all of it at the rate of the band reached."""

UNIT_AMOUNT_DECIMALS_MAX: Final = 12
"""Most decimals that a unit amount, in minor units, may have."""

_ZERO: Final = Decimal(0)
_EXACT: Final = Context(prec=200, traps=[Inexact])


class Tier(msgspec.Struct, frozen=True):
    """One band of a tiered price; it reaches from the tier before it, exclusive, to `up_to`, inclusive."""

    up_to: int | None
    """Last unit of the band; None for the open-ended last tier."""
    unit_amount: Decimal | None
    """Minor units for each unit in the band; None is zero."""
    flat_amount: int = 0
    """Minor units due once when the band is reached."""


class TransformQuantity(msgspec.Struct, frozen=True):
    """Division of the quantity before it is priced, as for packages of ten."""

    divide_by: int
    """Units in a package; at least 1."""
    round: Literal["up", "down"]
    """Whether a package that is not full counts."""


class PricedBy(Protocol):
    """The attributes of a price that decide an amount."""

    @property
    def billing_scheme(self) -> BillingScheme:
        """How the amount is computed."""

    @property
    def unit_amount(self) -> Decimal | None:
        """Minor units for each unit; set with per_unit."""

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Tiers, lowest first; set with tiered."""

    @property
    def tiers_mode(self) -> TiersMode | None:
        """How tiers add up; set with tiered."""

    @property
    def transform_quantity(self) -> TransformQuantity | None:
        """Division applied to the quantity first, if any."""


def amount_for_quantity(price: PricedBy, quantity: int) -> int:
    """Return what the quantity costs, in minor units, rounded once.

    Raises:
        ValueError: the quantity is negative, or the price lacks what its billing scheme needs.
    """
    return round_decimal_half_away_from_zero(exact_amount_for_quantity(price, quantity))


def exact_amount_for_quantity(price: PricedBy, quantity: int) -> Decimal:
    """Return what the quantity costs, in minor units, before rounding.

    For sums and shares that are rounded later, such as proration. Never inexact, whatever the size.

    Raises:
        ValueError: the quantity is negative, or the price lacks what its billing scheme needs.
    """
    if quantity < 0:
        raise ValueError(f"quantity must not be negative: {quantity}")
    if price.transform_quantity is not None:
        quantity = transformed_quantity(price.transform_quantity, quantity)
    if price.billing_scheme == "per_unit":
        if price.unit_amount is None:
            raise ValueError("a per_unit price needs a unit amount")
        return _EXACT.multiply(price.unit_amount, quantity)
    if price.tiers_mode == "graduated":
        return _graduated_amount(price.tiers, quantity)
    if price.tiers_mode == "volume":
        return _volume_amount(price.tiers, quantity)
    raise ValueError("a tiered price needs a tiers mode")


def transformed_quantity(transform: TransformQuantity, quantity: int) -> int:
    """Return the quantity that is priced: whole packages, the last one counted or not as the rule says."""
    if transform.round == "up":
        return -(-quantity // transform.divide_by)
    return quantity // transform.divide_by


def check_unit_amount(unit_amount: Decimal) -> None:
    """Refuse a unit amount that is not finite, is negative, or has more than twelve decimals.

    Raises:
        ValueError: with the rule that is broken.
    """
    if not unit_amount.is_finite() or unit_amount < 0:
        raise ValueError(f"unit amount must be a finite number of at least zero, not {unit_amount}")
    exponent = unit_amount.normalize(_EXACT).as_tuple().exponent
    if isinstance(exponent, int) and exponent < -UNIT_AMOUNT_DECIMALS_MAX:
        raise ValueError(f"unit amount must have at most {UNIT_AMOUNT_DECIMALS_MAX} decimals: {unit_amount}")


def check_tiers(tiers: Sequence[Tier]) -> None:
    """Refuse tiers that leave a quantity without a price or price it twice.

    Raises:
        ValueError: with the rule that is broken.
    """
    if not tiers or tiers[-1].up_to is not None:
        raise ValueError("the last tier must be open-ended (up_to: inf)")
    reached = 0
    for tier in tiers[:-1]:
        if tier.up_to is None:
            raise ValueError("only the last tier may be open-ended (up_to: inf)")
        if tier.up_to <= reached:
            raise ValueError(f"up_to must be above zero and ascend: {tier.up_to} comes after {reached}")
        reached = tier.up_to
    for tier in tiers:
        if tier.flat_amount < 0:
            raise ValueError(f"flat amount of a tier must not be negative: {tier.flat_amount}")
        if tier.unit_amount is not None:
            check_unit_amount(tier.unit_amount)


def _graduated_amount(tiers: Sequence[Tier], quantity: int) -> Decimal:
    total = _ZERO
    band_start = 0
    for tier in tiers:
        if quantity <= band_start:
            return total
        band_end = quantity if tier.up_to is None else min(quantity, tier.up_to)
        total = _EXACT.add(total, _band_amount(tier, band_end - band_start))
        band_start = band_end
    if quantity > band_start:
        raise ValueError(f"no tier covers the quantity {quantity}")
    return total


def _volume_amount(tiers: Sequence[Tier], quantity: int) -> Decimal:
    if quantity == 0:
        return _ZERO
    for tier in tiers:
        if tier.up_to is None or quantity <= tier.up_to:
            return _band_amount(tier, quantity)
    raise ValueError(f"no tier covers the quantity {quantity}")


def _band_amount(tier: Tier, quantity: int) -> Decimal:
    if tier.unit_amount is None:
        return Decimal(tier.flat_amount)
    return _EXACT.add(_EXACT.multiply(tier.unit_amount, quantity), tier.flat_amount)
