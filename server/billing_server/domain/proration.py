"""Proration: the share of an amount that belongs to a part of a period, and splits without loss.

Owns the arithmetic of semantics section 5: amounts in minor units, spans in integer seconds, each line
rounded once, half away from zero. Which items are prorated, and when, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from billing_server.domain.money import round_half_away_from_zero


def prorate(amount: int | Decimal, remaining: int, full: int) -> int:
    """Return amount * remaining / full, rounded once, half away from zero.

    The amount is in minor units and may be negative; an exact Decimal of them is accepted, so that an amount
    with fractions of a minor unit is not rounded twice. The spans are seconds. For a stub up to an anchor,
    `full` is the length of the notional period that ends at the anchor (semantics section 4).

    Raises:
        ValueError: the full span is not above zero, or the remaining one is negative or longer than it.
    """
    if full <= 0:
        raise ValueError(f"full span must be above zero seconds, not {full}")
    if not 0 <= remaining <= full:
        raise ValueError(f"remaining span must be from 0 to {full} seconds, not {remaining}")
    numerator, denominator = amount.as_integer_ratio()
    return round_half_away_from_zero(numerator * remaining, denominator * full)


def credit_for_unused(unit_total: int | Decimal, remaining: int, full: int) -> int:
    """Return the amount (zero or negative for a price) of an "Unused time" line.

    `unit_total` is what the whole quantity costs for the full period. Errors as those of `prorate`.
    """
    return -prorate(unit_total, remaining, full)


def debit_for_remaining(unit_total: int | Decimal, remaining: int, full: int) -> int:
    """Return the amount (zero or positive for a price) of a "Remaining time" line.

    `unit_total` is what the whole quantity costs for the full period. Errors as those of `prorate`.
    """
    return prorate(unit_total, remaining, full)


def split_proportionally(amount: int, weights: Sequence[int]) -> list[int]:
    """Split an amount over lines in proportion to their weights; the parts sum up to the amount exactly.

    Every part is cut off towards zero, and what is left over goes to the last line that has a weight
    (semantics section 5: 500 over 1000 and 2000 is 166 and 334). A line of weight zero gets nothing.

    Raises:
        ValueError: a negative weight, or no weight above zero to carry an amount other than zero.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError("weights must not be negative")
    total = sum(weights)
    if total == 0:
        if amount != 0:
            raise ValueError("an amount needs at least one weight above zero to be split over")
        return [0] * len(weights)
    sign = -1 if amount < 0 else 1
    parts = [sign * (abs(amount) * weight // total) for weight in weights]
    last = max(index for index, weight in enumerate(weights) if weight > 0)
    parts[last] += amount - sum(parts)
    return parts
