"""Instants for people: written in UTC as ISO 8601, read as dates, Unix seconds or steps such as "+30d"."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_STEP = re.compile(r"\+(\d{1,6})(s|min|h|d|w|mo|y)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MONTHS = {"mo": 1, "y": 12}
_WAY_OUT = "write a date (2025-01-31 or 2025-01-31T10:00:00Z), Unix seconds, or a step such as +30d, +6mo, +1y"


def format_seconds(seconds: int) -> str:
    """Unix seconds as "2025-01-31T10:00:00Z"; the bare number where the calendar ends."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def format_timestamp(moment: Timestamp) -> str:
    """A timestamp of the contract as "2025-01-31T10:00:00Z"."""
    return format_seconds(moment.seconds)


def parse_instant(text: str, now: int) -> int:
    """Unix seconds of what somebody typed; a step counts from `now`. Raises ValueError with a way out."""
    text = text.strip()
    if text.startswith("+"):
        return _step(text, now)
    if re.fullmatch(r"-?\d{5,}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time: {_WAY_OUT}") from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def add_months(seconds: int, months: int) -> int:
    """The same day and time of day so many months later or earlier; clamped to the length of the month."""
    moment = datetime.fromtimestamp(seconds, UTC)
    index = moment.year * 12 + moment.month - 1 + months
    year, month = divmod(index, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return int(moment.replace(year=year, month=month + 1, day=day).timestamp())


def _step(text: str, now: int) -> int:
    matched = _STEP.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text!r} is not a step: {_WAY_OUT}; units are s, min, h, d, w, mo and y")
    count, unit = int(matched[1]), matched[2]
    try:
        if unit in _MONTHS:
            return add_months(now, count * _MONTHS[unit])
        moment = datetime.fromtimestamp(now, UTC) + timedelta(seconds=count * _SECONDS[unit])
    except (OverflowError, ValueError):
        raise ValueError(f"{text!r} leads beyond the year 9999") from None
    return int(moment.timestamp())
