"""Shares of amounts, with every number that the specification and its scenarios give."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_server.domain.calendar import DAY
from billing_server.domain.proration import (
    credit_for_unused,
    debit_for_remaining,
    prorate,
    split_proportionally,
)

amounts = st.integers(-(2**63) + 1, 2**63 - 1)
spans = st.integers(1, 3 * 366 * DAY).flatmap(lambda full: st.tuples(st.integers(0, full), st.just(full)))


@pytest.mark.parametrize(
    ("amount", "remaining", "full", "share"),
    [
        pytest.param(1000, 445_540, 2_678_400, 166, id="published number"),
        pytest.param(2000, 1, 3, 667, id="two thirds of 1000"),
        pytest.param(1000, 1, 3, 333, id="one third of 1000"),
        pytest.param(3000, 1611008505 - 1610403705, 2_678_400, 677, id="seed: trial with anchor"),
        pytest.param(3100, 10 * DAY, 31 * DAY, 1000, id="July 22 to August 1 of 3100"),
        pytest.param(3000, 10 * DAY, 31 * DAY, 968, id="July 22 to August 1 of 3000"),
        pytest.param(3100, 28 * DAY, 31 * DAY, 2800, id="August 4 to September 1"),
        pytest.param(12000, 182 * DAY, 366 * DAY, 5967, id="cancel_at in a leap year"),
        pytest.param(3100, 16 * DAY, 31 * DAY, 1600, id="scenario 92: January 16 to February 1"),
        pytest.param(-3100, 21 * DAY, 31 * DAY, -2100, id="scenario 94: canceled January 11"),
        pytest.param(1000, 15 * DAY, 30 * DAY, 500, id="scenario 85: credit"),
        pytest.param(2000, 15 * DAY, 30 * DAY, 1000, id="scenario 85: debit"),
        pytest.param(1, 1, 2, 1, id="tie"),
        pytest.param(-1, 1, 2, -1, id="negative tie"),
        pytest.param(Decimal("0.5"), 1, 1, 1, id="tie of a decimal"),
        pytest.param(Decimal("0.98"), 1, 2, 0, id="a decimal is not rounded twice"),
        pytest.param(0, 1, 2, 0, id="nothing"),
    ],
)
def test_shares_of_the_specification(amount: int | Decimal, remaining: int, full: int, share: int) -> None:
    assert prorate(amount, remaining, full) == share


def test_a_downgrade_nets_to_a_credit() -> None:
    assert credit_for_unused(2000, 1, 3) + debit_for_remaining(1000, 1, 3) == -667 + 333 == -334


@given(amounts, spans)
def test_a_share_is_near_its_exact_value_and_symmetric(amount: int, span: tuple[int, int]) -> None:
    remaining, full = span
    share = prorate(amount, remaining, full)
    assert abs(share - Fraction(amount * remaining, full)) <= Fraction(1, 2)
    assert prorate(-amount, remaining, full) == -share
    assert credit_for_unused(amount, remaining, full) + debit_for_remaining(amount, remaining, full) == 0


@given(amounts, st.integers(1, 3 * 366 * DAY))
def test_the_ends_of_a_period_have_all_or_nothing(amount: int, full: int) -> None:
    assert prorate(amount, full, full) == amount
    assert prorate(amount, 0, full) == 0


@pytest.mark.parametrize(("remaining", "full"), [(0, 0), (1, 0), (0, -1), (-1, 10), (11, 10)])
def test_spans_that_are_no_part_of_a_period_are_refused(remaining: int, full: int) -> None:
    with pytest.raises(ValueError, match="span"):
        prorate(1000, remaining, full)


@pytest.mark.parametrize(
    ("amount", "weights", "parts"),
    [
        (500, [1000, 2000], [166, 334]),
        (-500, [1000, 2000], [-166, -334]),
        (500, [1000], [500]),
        (100, [1, 1, 1], [33, 33, 34]),
        (100, [1, 1, 1, 0], [33, 33, 34, 0]),
        (100, [0, 1, 0], [0, 100, 0]),
        (0, [1, 2], [0, 0]),
        (0, [0, 0], [0, 0]),
        (0, [], []),
    ],
)
def test_splits_leave_the_remainder_to_the_last_line(amount: int, weights: list[int], parts: list[int]) -> None:
    assert split_proportionally(amount, weights) == parts


@given(amounts, st.lists(st.integers(0, 10**12), min_size=1).filter(any))
def test_parts_sum_up_and_keep_the_sign(amount: int, weights: list[int]) -> None:
    parts = split_proportionally(amount, weights)
    assert sum(parts) == amount
    assert all(part * amount >= 0 for part in parts)
    assert all(part == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)
    exact = [Fraction(amount * weight, sum(weights)) for weight in weights]
    assert all(abs(part - share) < len(weights) for part, share in zip(parts, exact, strict=True))


@pytest.mark.parametrize(("amount", "weights"), [(1, []), (1, [0, 0]), (1, [2, -1]), (0, [-1])])
def test_weights_that_carry_nothing_are_refused(amount: int, weights: list[int]) -> None:
    with pytest.raises(ValueError, match="weight"):
        split_proportionally(amount, weights)
