"""What quantities cost: per unit, in graduated and in volume tiers, with transformed quantities."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_server.domain.money import INT64_MAX, round_half_away_from_zero
from billing_server.domain.pricing import (
    BillingScheme,
    Tier,
    TiersMode,
    TransformQuantity,
    amount_for_quantity,
    check_tiers,
    check_unit_amount,
    exact_amount_for_quantity,
    transformed_quantity,
)


class PriceInTest(msgspec.Struct, frozen=True):
    """The attributes of a price that pricing reads."""

    billing_scheme: BillingScheme
    unit_amount: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    tiers_mode: TiersMode | None = None
    transform_quantity: TransformQuantity | None = None


def per_unit(unit_amount: str, divide_by: int | None = None, rounding: Literal["up", "down"] = "up") -> PriceInTest:
    """A price of so many minor units each."""
    transform = None if divide_by is None else TransformQuantity(divide_by, rounding)
    return PriceInTest("per_unit", Decimal(unit_amount), transform_quantity=transform)


def tiered(mode: TiersMode, *tiers: Tier) -> PriceInTest:
    """A price in tiers."""
    return PriceInTest("tiered", tiers=tiers, tiers_mode=mode)


FONTS = (Tier(5, Decimal(700)), Tier(10, Decimal(650)), Tier(None, Decimal(600)))
WITH_FLAT = (Tier(10, Decimal("0.5"), 1000), Tier(20, None, 500), Tier(None, Decimal("0.25"), 0))

unit_amounts = st.decimals(min_value=0, max_value=10**9, places=12)
quantities = st.integers(0, 10**9)


@st.composite
def tier_tables(draw: st.DrawFn) -> tuple[Tier, ...]:
    """Any tiers that are allowed, few and low enough that quantities meet their edges."""
    ends = sorted(draw(st.sets(st.integers(1, 60), max_size=5)))
    bounds: list[int | None] = [*ends, None]
    return tuple(Tier(bound, draw(st.none() | unit_amounts), draw(st.integers(0, 10**6))) for bound in bounds)


@pytest.mark.parametrize(
    ("price", "quantity", "amount"),
    [
        (per_unit("1000"), 1, 1000),
        (per_unit("1000"), 7, 7000),
        (per_unit("1000"), 0, 0),
        (per_unit("0"), 5, 0),
        (per_unit("0.5"), 1, 1),
        (per_unit("0.5"), 3, 2),
        (per_unit("0.000000000001"), 500_000_000_000, 1),
        (per_unit("0.000000000001"), 499_999_999_999, 0),
        (per_unit("10.333333333333"), 3, 31),
        (per_unit("1000", 10), 0, 0),
        (per_unit("1000", 10), 1, 1000),
        (per_unit("1000", 10), 10, 1000),
        (per_unit("1000", 10), 11, 2000),
        (per_unit("1000", 10, "down"), 9, 0),
        (per_unit("1000", 10, "down"), 19, 1000),
        (tiered("volume", *FONTS), 1, 700),
        (tiered("volume", *FONTS), 5, 3500),
        (tiered("volume", *FONTS), 6, 3900),
        (tiered("volume", *FONTS), 20, 12000),
        (tiered("volume", *FONTS), 0, 0),
        (tiered("graduated", *FONTS), 5, 3500),
        (tiered("graduated", *FONTS), 6, 4150),
        (tiered("graduated", *FONTS), 20, 12750),
        (tiered("graduated", *FONTS), 0, 0),
        (tiered("graduated", *WITH_FLAT), 0, 0),
        (tiered("graduated", *WITH_FLAT), 1, 1001),
        (tiered("graduated", *WITH_FLAT), 10, 1005),
        (tiered("graduated", *WITH_FLAT), 11, 1505),
        (tiered("graduated", *WITH_FLAT), 21, 1505),
        (tiered("graduated", *WITH_FLAT), 22, 1506),
        (tiered("volume", *WITH_FLAT), 0, 0),
        (tiered("volume", *WITH_FLAT), 3, 1002),
        (tiered("volume", *WITH_FLAT), 15, 500),
        (tiered("volume", *WITH_FLAT), 30, 8),
        (tiered("graduated", Tier(None, Decimal(3), 7)), 4, 19),
    ],
)
def test_what_quantities_cost(price: PriceInTest, quantity: int, amount: int) -> None:
    assert amount_for_quantity(price, quantity) == amount


def test_bands_are_summed_before_the_one_rounding() -> None:
    price = tiered("graduated", Tier(1, Decimal("0.4")), Tier(None, Decimal("0.4")))
    assert exact_amount_for_quantity(price, 2) == Decimal("0.8")
    assert amount_for_quantity(price, 2) == 1


def test_large_amounts_are_exact_whatever_the_decimal_context() -> None:
    unit_amount = Decimal(f"{INT64_MAX}.999999999999")
    with localcontext(prec=2):
        exact = exact_amount_for_quantity(PriceInTest("per_unit", unit_amount), INT64_MAX)
    assert Fraction(exact) == Fraction(unit_amount) * INT64_MAX


@given(unit_amounts, quantities)
def test_per_unit_amounts_are_rounded_products(unit_amount: Decimal, quantity: int) -> None:
    product = Fraction(unit_amount) * quantity
    expected = round_half_away_from_zero(product.numerator, product.denominator)
    assert amount_for_quantity(PriceInTest("per_unit", unit_amount), quantity) == expected


@given(tier_tables(), st.integers(0, 80))
def test_graduated_amounts_are_the_sum_of_their_units(tiers: tuple[Tier, ...], quantity: int) -> None:
    check_tiers(tiers)
    units = [reached(tiers, unit) for unit in range(1, quantity + 1)]
    expected = sum((Fraction(tier.unit_amount or 0) for tier in units), Fraction(0))
    expected += sum(tier.flat_amount for tier in tiers if tier in set(units))
    assert Fraction(exact_amount_for_quantity(tiered("graduated", *tiers), quantity)) == expected


@given(tier_tables(), st.integers(1, 80))
def test_volume_amounts_are_the_quantity_at_the_tier_reached(tiers: tuple[Tier, ...], quantity: int) -> None:
    tier = reached(tiers, quantity)
    expected = Fraction(tier.unit_amount or 0) * quantity + tier.flat_amount
    assert Fraction(exact_amount_for_quantity(tiered("volume", *tiers), quantity)) == expected


@given(tier_tables(), quantities, quantities)
def test_graduated_amounts_never_fall_as_quantities_grow(tiers: tuple[Tier, ...], first: int, second: int) -> None:
    price = tiered("graduated", *tiers)
    low, high = sorted((first, second))
    assert 0 <= amount_for_quantity(price, low) <= amount_for_quantity(price, high)


@given(quantities, st.integers(1, 1000))
def test_packages_hold_the_quantity(quantity: int, divide_by: int) -> None:
    down = transformed_quantity(TransformQuantity(divide_by, "down"), quantity)
    up = transformed_quantity(TransformQuantity(divide_by, "up"), quantity)
    assert down * divide_by <= quantity <= up * divide_by
    assert up - down == (quantity % divide_by != 0)


def reached(tiers: tuple[Tier, ...], unit: int) -> Tier:
    """Find the tier of one unit by looking at every tier."""
    return next(tier for tier in tiers if tier.up_to is None or unit <= tier.up_to)


@pytest.mark.parametrize(
    ("price", "quantity", "message"),
    [
        (per_unit("1"), -1, "negative"),
        (PriceInTest("per_unit"), 1, "needs a unit amount"),
        (PriceInTest("tiered", tiers=FONTS), 1, "needs a tiers mode"),
        (tiered("graduated", Tier(5, Decimal(1))), 6, "no tier covers"),
        (tiered("volume", Tier(5, Decimal(1))), 6, "no tier covers"),
        (tiered("volume"), 1, "no tier covers"),
    ],
)
def test_what_has_no_price_is_refused(price: PriceInTest, quantity: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        amount_for_quantity(price, quantity)


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ((), "last tier must be open-ended"),
        ((Tier(5, Decimal(1)),), "last tier must be open-ended"),
        ((Tier(None, Decimal(1)), Tier(None, Decimal(1))), "only the last tier"),
        ((Tier(0, Decimal(1)), Tier(None, Decimal(1))), "ascend"),
        ((Tier(5, Decimal(1)), Tier(5, Decimal(1)), Tier(None, Decimal(1))), "ascend"),
        ((Tier(5, Decimal(1)), Tier(4, Decimal(1)), Tier(None, Decimal(1))), "ascend"),
        ((Tier(None, Decimal(1), -1),), "flat amount"),
        ((Tier(5, Decimal(-1)), Tier(None, Decimal(1))), "unit amount"),
    ],
)
def test_tiers_with_gaps_or_overlaps_are_refused(tiers: tuple[Tier, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_tiers(tiers)


@pytest.mark.parametrize("unit_amount", ["0", "1000", "0.000000000001", "1E+3", "1.5000000000000000"])
def test_unit_amounts_of_twelve_decimals_are_accepted(unit_amount: str) -> None:
    check_unit_amount(Decimal(unit_amount))


@pytest.mark.parametrize("unit_amount", ["-1", "0.0000000000001", "NaN", "Infinity", "-Infinity"])
def test_other_unit_amounts_are_refused(unit_amount: str) -> None:
    with pytest.raises(ValueError, match="unit amount must"):
        check_unit_amount(Decimal(unit_amount))
