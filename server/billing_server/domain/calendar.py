"""Calendar: boundaries of billing periods, and the only module that knows months.

Instants are integer UTC seconds since 1970. The boundaries of a billing cycle are always computed from its
anchor, never from the boundary before (semantics section 4, "Anchor arithmetic"): days and weeks are fixed
numbers of seconds; months and years keep the anchor's time of day and its day of the month, which is
clamped to the length of a shorter month. So a cycle anchored on January 31 bills on February 28, then on
March 31. The boundaries reach backwards from the anchor as well: the anchor may lie after the instants
asked about.

Instants outside 1970-01-01T00:00:00 to 9999-12-31T23:59:59 are refused with ValueError, whether they are
given or would be the answer. So is an interval count below one.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import accumulate
from typing import Final, Literal

Interval = Literal["day", "week", "month", "year"]
"""Unit of a recurring price's interval; a period lasts `count` of them."""

MINUTE: Final = 60
"""Seconds in a minute."""
HOUR: Final = 3600
"""Seconds in an hour."""
DAY: Final = 86_400
"""Seconds in a day (UTC as counted by Unix time has no leap seconds)."""
WEEK: Final = 604_800
"""Seconds in a week."""

LAST_INSTANT: Final = 253_402_300_799
"""The last second of the year 9999, the largest instant handled."""


def written(instant: int) -> str:
    """An instant as messages write it, and as it may be sent: "2025-02-01T00:00:00Z"."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_LAST_MONTH: Final = (9999 - 1970) * 12 + 11
_FIXED_SECONDS: Final[dict[str, int]] = {"day": DAY, "week": WEEK}
_MONTHS: Final[dict[str, int]] = {"month": 1, "year": 12}
_ANCHOR_SEARCH_STEPS: Final = 12

# The Gregorian calendar repeats every 400 years, so tables of the months from 1970 to 2369 serve all others.
# They take the place of datetime.date because a renewal computes its period in half the time with them.
_CYCLE_MONTHS: Final = 400 * 12
_CYCLE_DAYS: Final = 146_097


def _length_of_month(year: int, month_of_year: int) -> int:
    if month_of_year == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month_of_year in (4, 6, 9, 11) else 31


_MONTH_LENGTHS: Final = tuple(
    _length_of_month(year, month_of_year) for year in range(1970, 2370) for month_of_year in range(1, 13)
)
_MONTH_STARTS: Final = tuple(accumulate(_MONTH_LENGTHS, initial=0))


def boundary(anchor: int, interval: Interval, count: int, k: int) -> int:
    """Return the k-th boundary of the cycle: the anchor moved by k (also below zero) times `count` intervals.

    Raises:
        ValueError: the anchor or the boundary lies out of range, or the count is below one.
    """
    _check_instant(anchor)
    _check_count(count)
    seconds = _FIXED_SECONDS.get(interval)
    if seconds is not None:
        return _checked(anchor + k * count * seconds)
    days, time_of_day = divmod(anchor, DAY)
    month, day_index = _month_of(days)
    return _checked(_instant(month + k * count * _MONTHS[interval], day_index, time_of_day))


def period_around(anchor: int, interval: Interval, count: int, at: int) -> tuple[int, int]:
    """Return the period (start, end) of the cycle with start <= at < end.

    Takes constant time: the boundary in the last month of the cycle up to that of `at` is the start, or, when
    it comes later in the same month, the end.

    Raises:
        ValueError: an instant given or found lies out of range, or the count is below one.
    """
    start, end = _surrounding(anchor, interval, count, at)
    if start < 0 or end > LAST_INSTANT:
        raise ValueError(f"period from {start} to {end} is out of range")
    return start, end


def next_boundary(anchor: int, interval: Interval, count: int, after: int) -> int:
    """Return the first boundary strictly after the instant.

    Raises:
        ValueError: an instant given or found lies out of range, or the count is below one.
    """
    return _checked(_surrounding(anchor, interval, count, after)[1])


def previous_boundary(anchor: int, interval: Interval, count: int, before: int) -> int:
    """Return the last boundary strictly before the instant.

    Raises:
        ValueError: an instant given or found lies out of range, or the count is below one.
    """
    _check_instant(before)
    return _checked(_surrounding(anchor, interval, count, before - 1)[0])


def resolve_anchor(
    start: int,
    interval: Interval,
    count: int,
    day_of_month: int,
    month: int | None,
    hour: int | None,
    minute: int | None,
    second: int | None,
) -> int:
    """Turn a billing_cycle_anchor_config into an anchor for a cycle of months or years (semantics section 4).

    The first full period begins at the first boundary of the cycle at or after `start`, which is never a full
    period away. That boundary is not always the anchor itself: find it with
    `next_boundary(anchor, interval, count, start - 1)`.

    * day_of_month 1 to 31; in a shorter month its last day.
    * month 1 to 12 puts the next such month at or after `start` on the cycle, which reaches back from it too:
      every three months with month 7, from February 10, begins in April. It changes nothing for a cycle that
      meets every month. Without it the cycle begins in the first month in which the day is not yet over.
    * hour, minute and second default to those of `start`.

    The anchor carries the true day, since a clamped one would shorten all later months too. Where the first
    fitting month is too short, the anchor is therefore the nearest later boundary of the cycle in a month
    that is long enough: monthly on day 31 from February 10 gives March 31, with February 28 as the first
    boundary; every two months gives August 31, with the same first boundary. A cycle that only ever meets
    too short months gets the longest it meets (yearly on February 31 is anchored on a February 29).

    Raises:
        ValueError: interval day or week, a part out of its range, or no fitting instant in range.
    """
    _check_instant(start)
    _check_count(count)
    if interval not in _MONTHS:
        raise ValueError(f"billing_cycle_anchor_config needs an interval of months or years, not {interval}")
    _check_part("day_of_month", day_of_month, 1, 31)
    days, start_time = divmod(start, DAY)
    first_month = _month_of(days)[0]
    time_of_day = _time_of_day(start_time, hour, minute, second)
    if month is not None:
        _check_part("month", month, 1, 12)
        first_month += (month - 1 - first_month) % 12
    if _instant(first_month, day_of_month - 1, time_of_day) < start:
        first_month += 1 if month is None else 12
    step = count * _MONTHS[interval]
    met_months = range(first_month, min(first_month + _ANCHOR_SEARCH_STEPS * step, _LAST_MONTH) + 1, step)
    if not met_months:
        raise ValueError("no anchor fits before the end of the year 9999")
    anchor_month = max(met_months, key=lambda met: min(_MONTH_LENGTHS[met % _CYCLE_MONTHS], day_of_month))
    return _instant(anchor_month, day_of_month - 1, time_of_day)


def _surrounding(anchor: int, interval: Interval, count: int, at: int) -> tuple[int, int]:
    """Return the boundaries around an instant; one of the two may still lie out of range."""
    _check_instant(anchor)
    _check_instant(at)
    _check_count(count)
    seconds = _FIXED_SECONDS.get(interval)
    if seconds is not None:
        length = count * seconds
        start = at - (at - anchor) % length
        return start, start + length
    step = count * _MONTHS[interval]
    anchor_days, time_of_day = divmod(anchor, DAY)
    anchor_month, day_index = _month_of(anchor_days)
    at_month = _month_of(at // DAY)[0]
    month = at_month - (at_month - anchor_month) % step
    candidate = _instant(month, day_index, time_of_day)
    if candidate > at:
        return _instant(month - step, day_index, time_of_day), candidate
    return candidate, _instant(month + step, day_index, time_of_day)


def _month_of(days: int) -> tuple[int, int]:
    """Find the month that a day is in; days, months and days of the month all count from zero, in 1970."""
    cycles, day = divmod(days, _CYCLE_DAYS)
    month = day * _CYCLE_MONTHS // _CYCLE_DAYS
    if _MONTH_STARTS[month] > day:
        month -= 1
    elif _MONTH_STARTS[month + 1] <= day:
        month += 1
    return cycles * _CYCLE_MONTHS + month, day - _MONTH_STARTS[month]


def _instant(month: int, day_index: int, time_of_day: int) -> int:
    """Put an instant together, the day (counted from zero) clamped to the length of the month."""
    cycles, month = divmod(month, _CYCLE_MONTHS)
    length = _MONTH_LENGTHS[month]
    if day_index >= length:
        day_index = length - 1
    return (cycles * _CYCLE_DAYS + _MONTH_STARTS[month] + day_index) * DAY + time_of_day


def _time_of_day(default: int, hour: int | None, minute: int | None, second: int | None) -> int:
    hour = default // HOUR if hour is None else hour
    minute = default % HOUR // MINUTE if minute is None else minute
    second = default % MINUTE if second is None else second
    _check_part("hour", hour, 0, 23)
    _check_part("minute", minute, 0, 59)
    _check_part("second", second, 0, 59)
    return hour * HOUR + minute * MINUTE + second


def _check_part(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value}")


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(f"interval count must be at least 1, not {count}")


def _check_instant(instant: int) -> None:
    if not 0 <= instant <= LAST_INSTANT:
        raise ValueError(f"instant {instant} is out of range")


def _checked(instant: int) -> int:
    _check_instant(instant)
    return instant
