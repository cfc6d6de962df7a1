"""Boundaries of billing periods, checked against python-dateutil and the numbers of the specification."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given
from hypothesis import strategies as st

from billing_server.domain.calendar import (
    DAY,
    HOUR,
    LAST_INSTANT,
    WEEK,
    Interval,
    boundary,
    next_boundary,
    period_around,
    previous_boundary,
    resolve_anchor,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORTY_YEARS = 40 * 366 * DAY

# Far enough from both ends of the range that forty periods of three years fit on either side.
instants = st.integers(DAY * 366 * 130, LAST_INSTANT - DAY * 366 * 130)
intervals: st.SearchStrategy[tuple[Interval, int]] = st.one_of(
    st.tuples(st.just("day"), st.integers(1, 1095)),
    st.tuples(st.just("week"), st.integers(1, 156)),
    st.tuples(st.just("month"), st.integers(1, 36)),
    st.tuples(st.just("year"), st.integers(1, 3)),
)


def at(text: str) -> int:
    """Read an ISO date or date and time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def text_of(instant: int) -> str:
    """Write an instant the way `at` reads it, without a midnight's time."""
    return (EPOCH + timedelta(seconds=instant)).strftime("%Y-%m-%dT%H:%M:%S").removesuffix("T00:00:00")


def by_dateutil(anchor: int, interval: Interval, count: int, k: int) -> int:
    """Move an anchor with python-dateutil."""
    offsets = {
        "day": relativedelta(days=count * k),
        "week": relativedelta(weeks=count * k),
        "month": relativedelta(months=count * k),
        "year": relativedelta(years=count * k),
    }
    moved = EPOCH + timedelta(seconds=anchor) + offsets[interval]
    return round((moved - EPOCH).total_seconds())


@pytest.mark.parametrize(
    ("anchor", "interval", "count", "boundaries"),
    [
        ("2024-01-31T10:00:00", "month", 1, [1706695200, 1709200800, 1711879200, 1714471200]),
        ("2025-01-31", "month", 1, [at("2025-01-31"), at("2025-02-28"), at("2025-03-31"), at("2025-04-30")]),
        (
            "2024-02-29",
            "year",
            1,
            [at("2024-02-29"), at("2025-02-28"), at("2026-02-28"), at("2027-02-28"), at("2028-02-29")],
        ),
        (
            "2021-01-18T22:21:45",
            "month",
            1,
            [1611008505, at("2021-02-18T22:21:45"), at("2021-03-18T22:21:45")],
        ),
        ("2025-01-01", "month", 1, [1735689600, 1738368000, 1740787200]),
        ("2025-03-15", "month", 1, [1741996800, at("2025-04-15")]),
        ("2025-04-10T12:00:00", "month", 1, [1744286400, at("2025-05-10T12:00:00")]),
        ("2024-12-31", "month", 2, [at("2024-12-31"), at("2025-02-28"), at("2025-04-30")]),
        ("2025-03-30", "week", 2, [at("2025-03-30"), at("2025-04-13"), at("2025-04-27")]),
        ("2025-03-30T23:59:59", "day", 1, [at("2025-03-30T23:59:59"), at("2025-03-31T23:59:59")]),
    ],
)
def test_boundaries_of_the_specification(anchor: str, interval: Interval, count: int, boundaries: list[int]) -> None:
    assert [boundary(at(anchor), interval, count, k) for k in range(len(boundaries))] == boundaries


@pytest.mark.parametrize("day", range(1, 32))
@pytest.mark.parametrize(
    ("interval", "count"),
    [("day", 30), ("week", 2), ("month", 1), ("month", 2), ("month", 6), ("year", 1), ("year", 3)],
)
def test_forty_years_are_tiled_as_dateutil_does(day: int, interval: Interval, count: int) -> None:
    anchor = at(f"2023-12-{day:02d}T13:14:15")
    start = anchor
    k = 0
    while start < anchor + FORTY_YEARS:
        end = by_dateutil(anchor, interval, count, k + 1)
        assert boundary(anchor, interval, count, k + 1) == end
        for inside in (start, (start + end) // 2, end - 1):
            assert period_around(anchor, interval, count, inside) == (start, end)
        start, k = end, k + 1


@pytest.mark.parametrize("day", [28, 29, 30, 31])
def test_every_year_from_a_leap_year_is_as_dateutil_says(day: int) -> None:
    anchor = at("2024-02-29") if day == 29 else at(f"2024-01-{day}")
    for k in range(-50, 400):
        assert boundary(anchor, "year", 1, k) == by_dateutil(anchor, "year", 1, k)


def test_every_day_of_the_gregorian_cycle_is_in_its_month() -> None:
    epoch_ordinal = date(1970, 1, 1).toordinal()
    for day in range(146_097 + 366):
        month_start = date.fromordinal(epoch_ordinal + day).replace(day=1).toordinal() - epoch_ordinal
        assert period_around(0, "month", 1, day * DAY)[0] == month_start * DAY


@given(instants, intervals, st.integers(-40, 40))
def test_any_boundary_is_as_dateutil_says(anchor: int, interval: tuple[Interval, int], k: int) -> None:
    assert boundary(anchor, *interval, k) == by_dateutil(anchor, *interval, k)


@given(instants, intervals, st.integers(-FORTY_YEARS, FORTY_YEARS))
def test_a_period_contains_its_instant_and_is_made_of_neighbours(
    anchor: int, interval: tuple[Interval, int], distance: int
) -> None:
    instant = anchor + distance
    start, end = period_around(anchor, *interval, instant)
    assert start <= instant < end
    assert period_around(anchor, *interval, end)[0] == end
    assert period_around(anchor, *interval, start - 1)[1] == start


@given(instants, intervals, st.integers(-40, 40))
def test_boundaries_ascend_and_are_found_from_both_sides(anchor: int, interval: tuple[Interval, int], k: int) -> None:
    before, here, after = (boundary(anchor, *interval, k + step) for step in (-1, 0, 1))
    assert before < here < after
    assert period_around(anchor, *interval, here) == (here, after)
    assert next_boundary(anchor, *interval, here) == after
    assert next_boundary(anchor, *interval, here - 1) == here
    assert previous_boundary(anchor, *interval, here) == before
    assert previous_boundary(anchor, *interval, here + 1) == here


@given(instants, st.integers(1, 3), st.integers(-40, 40))
def test_a_year_is_twelve_months_and_a_week_seven_days(anchor: int, count: int, k: int) -> None:
    assert boundary(anchor, "year", count, k) == boundary(anchor, "month", 12 * count, k)
    assert boundary(anchor, "week", count, k) == boundary(anchor, "day", 7 * count, k) == anchor + k * count * WEEK


@pytest.mark.parametrize("instant", [-1, LAST_INSTANT + 1])
def test_instants_out_of_range_are_refused(instant: int) -> None:
    intervals: tuple[Interval, ...] = ("day", "month")
    for interval in intervals:
        with pytest.raises(ValueError, match="out of range"):
            boundary(instant, interval, 1, 0)
        with pytest.raises(ValueError, match="out of range"):
            period_around(instant, interval, 1, DAY)
        with pytest.raises(ValueError, match="out of range"):
            period_around(DAY, interval, 1, instant)
        with pytest.raises(ValueError, match="out of range"):
            next_boundary(DAY, interval, 1, instant)
        with pytest.raises(ValueError, match="out of range"):
            previous_boundary(DAY, interval, 1, instant)
    with pytest.raises(ValueError, match="out of range"):
        resolve_anchor(instant, "month", 1, 1, None, None, None, None)


def test_answers_out_of_range_are_refused() -> None:
    december = at("9999-12-15")
    assert boundary(december, "month", 1, -12 * 8029) == at("1970-12-15")
    assert previous_boundary(december, "month", 1, LAST_INSTANT) == december
    assert next_boundary(at("1970-01-15"), "month", 1, 0) == at("1970-01-15")
    for interval, count, k in (("month", 1, 1), ("month", 10**9, 1), ("week", 3, 1), ("year", 1, -8030)):
        with pytest.raises(ValueError, match="out of range"):
            boundary(december, interval, count, k)  # type: ignore[arg-type]  # the tuple widens the literals
    with pytest.raises(ValueError, match="out of range"):
        next_boundary(december, "month", 1, december)
    with pytest.raises(ValueError, match="out of range"):
        period_around(december, "month", 1, december)
    with pytest.raises(ValueError, match="out of range"):
        period_around(at("1970-01-15"), "month", 1, 0)
    with pytest.raises(ValueError, match="out of range"):
        previous_boundary(at("1970-01-15"), "month", 1, 0)


@pytest.mark.parametrize("count", [0, -1])
def test_interval_counts_below_one_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="interval count"):
        boundary(0, "month", count, 1)
    with pytest.raises(ValueError, match="interval count"):
        period_around(0, "day", count, DAY)
    with pytest.raises(ValueError, match="interval count"):
        resolve_anchor(0, "year", count, 1, None, None, None, None)


@pytest.mark.parametrize(
    ("start", "interval", "count", "day", "month", "anchor", "first"),
    [
        ("2025-01-16", "month", 1, 1, None, "2025-02-01", "2025-02-01"),
        ("2025-01-16", "month", 1, 16, None, "2025-01-16", "2025-01-16"),
        ("2025-01-16", "month", 1, 31, None, "2025-01-31", "2025-01-31"),
        ("2025-02-10", "month", 1, 31, None, "2025-03-31", "2025-02-28"),
        ("2025-02-10", "month", 1, 30, None, "2025-03-30", "2025-02-28"),
        ("2024-02-10", "month", 1, 29, None, "2024-02-29", "2024-02-29"),
        ("2025-02-10", "month", 2, 31, None, "2025-08-31", "2025-02-28"),
        ("2024-02-10", "month", 2, 31, None, "2024-08-31", "2024-02-29"),
        ("2025-02-10", "month", 3, 31, None, "2025-05-31", "2025-02-28"),
        ("2025-02-10", "month", 3, 1, 7, "2025-07-01", "2025-04-01"),
        ("2025-02-10", "month", 6, 1, 1, "2026-01-01", "2025-07-01"),
        ("2025-02-10", "month", 1, 1, 7, "2025-07-01", "2025-03-01"),
        ("2025-02-10", "month", 5, 1, 1, "2026-01-01", "2025-03-01"),
        ("2025-02-10", "year", 1, 1, 7, "2025-07-01", "2025-07-01"),
        ("2025-07-02", "year", 1, 1, 7, "2026-07-01", "2026-07-01"),
        ("2025-08-01", "year", 2, 1, 7, "2026-07-01", "2026-07-01"),
        ("2025-02-10", "year", 1, 31, 2, "2028-02-29", "2025-02-28"),
        ("2025-02-10", "year", 1, 31, 4, "2025-04-30", "2025-04-30"),
        ("2097-02-10", "year", 1, 29, 2, "2104-02-29", "2097-02-28"),
        ("2025-02-10", "year", 2, 31, 2, "2025-02-28", "2025-02-28"),
        ("2025-12-31", "year", 1, 15, None, "2026-01-15", "2026-01-15"),
    ],
)
def test_anchors_are_resolved(
    start: str, interval: Interval, count: int, day: int, month: int | None, anchor: str, first: str
) -> None:
    resolved = resolve_anchor(at(start), interval, count, day, month, None, None, None)
    assert text_of(resolved) == anchor
    assert text_of(next_boundary(resolved, interval, count, at(start) - 1)) == first


@pytest.mark.parametrize(
    ("day", "time_parts", "anchor"),
    [
        (15, (None, None, None), "2025-01-15T12:30:45"),
        (15, (12, 30, 45), "2025-01-15T12:30:45"),
        (15, (12, 30, 44), "2025-02-15T12:30:44"),
        (15, (13, None, None), "2025-01-15T13:30:45"),
        (15, (None, 0, None), "2025-02-15T12:00:45"),
        (16, (0, 0, 0), "2025-01-16"),
        (14, (23, 59, 59), "2025-02-14T23:59:59"),
    ],
)
def test_an_anchor_takes_the_parts_of_its_time_from_the_start(
    day: int, time_parts: tuple[int | None, int | None, int | None], anchor: str
) -> None:
    resolved = resolve_anchor(at("2025-01-15T12:30:45"), "month", 1, day, None, *time_parts)
    assert text_of(resolved) == anchor


def test_an_anchor_of_day_31_survives_february() -> None:
    anchor = resolve_anchor(at("2025-02-10"), "month", 1, 31, None, None, None, None)
    instant = at("2025-02-10")
    found = []
    for _ in range(4):
        instant = next_boundary(anchor, "month", 1, instant)
        found.append(text_of(instant))
    assert found == ["2025-02-28", "2025-03-31", "2025-04-30", "2025-05-31"]


@given(instants, st.integers(1, 36), st.integers(1, 31), st.integers(0, DAY - 1))
def test_a_resolved_cycle_begins_at_the_first_instant_that_fits(
    start: int, count: int, day: int, time_of_day: int
) -> None:
    hour, minute, second = time_of_day // HOUR, time_of_day // 60 % 60, time_of_day % 60
    anchor = resolve_anchor(start, "month", count, day, None, hour, minute, second)
    first = next_boundary(anchor, "month", count, start - 1)
    candidate = (start // DAY) * DAY + time_of_day
    while candidate < start or not _fits(candidate, day):
        candidate += DAY
    assert first == candidate
    assert anchor % DAY == time_of_day


@given(instants, intervals, st.integers(1, 31), st.none() | st.integers(1, 12))
def test_a_resolved_cycle_bills_on_the_day_for_ever(
    start: int, interval: tuple[Interval, int], day: int, month: int | None
) -> None:
    if interval[0] in ("day", "week"):
        with pytest.raises(ValueError, match="months or years"):
            resolve_anchor(start, *interval, day, month, None, None, None)
        return
    anchor = resolve_anchor(start, *interval, day, month, None, None, None)
    boundaries = [next_boundary(anchor, *interval, start - 1)]
    boundaries += [boundary_after(anchor, interval, boundaries[0], k) for k in range(1, 9)]
    assert all(_fits(instant, day) for instant in boundaries)
    if month is not None and interval[0] == "year":
        assert {(EPOCH + timedelta(seconds=instant)).month for instant in boundaries} == {month}


def boundary_after(anchor: int, interval: tuple[Interval, int], first: int, k: int) -> int:
    """Walk k boundaries on from the first."""
    for _ in range(k):
        first = next_boundary(anchor, *interval, first)
    return first


def _fits(instant: int, day: int) -> bool:
    moment = EPOCH + timedelta(seconds=instant)
    last_day = (moment + timedelta(days=1)).month != moment.month
    return moment.day == day or (last_day and moment.day < day)


@pytest.mark.parametrize(
    "parts",
    [
        (0, None, None, None, None),
        (32, None, None, None, None),
        (1, 0, None, None, None),
        (1, 13, None, None, None),
        (1, None, -1, None, None),
        (1, None, 24, None, None),
        (1, None, None, 60, None),
        (1, None, None, None, 60),
    ],
)
def test_parts_of_a_configuration_out_of_range_are_refused(
    parts: tuple[int, int | None, int | None, int | None, int | None],
) -> None:
    with pytest.raises(ValueError, match="must be from"):
        resolve_anchor(0, "month", 1, *parts)


def test_the_last_instant_may_end_a_period_and_be_an_anchor() -> None:
    assert period_around(LAST_INSTANT, "month", 1, LAST_INSTANT - 1)[1] == LAST_INSTANT
    assert period_around(LAST_INSTANT, "day", 1, LAST_INSTANT - 1) == (LAST_INSTANT - DAY, LAST_INSTANT)
    assert resolve_anchor(LAST_INSTANT, "month", 1, 31, None, None, None, None) == LAST_INSTANT
    assert text_of(resolve_anchor(at("9999-11-15"), "month", 1, 31, None, None, None, None)) == "9999-12-31"


def test_an_anchor_after_the_last_year_is_refused() -> None:
    with pytest.raises(ValueError, match="no anchor fits"):
        resolve_anchor(LAST_INSTANT, "month", 1, 1, None, None, None, None)
