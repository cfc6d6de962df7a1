"""Instants as people write them: dates, Unix seconds, steps."""

from __future__ import annotations

import pytest

from billing_client.instants import add_months, format_seconds, parse_instant

NOW = 1735689600  # 2025-01-01T00:00:00Z


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2025-01-31", "2025-01-31T00:00:00Z"),
        ("2025-01-31T10:00:00Z", "2025-01-31T10:00:00Z"),
        ("2025-01-31T10:00:00+02:00", "2025-01-31T08:00:00Z"),
        ("1735689600", "2025-01-01T00:00:00Z"),
        ("+90s", "2025-01-01T00:01:30Z"),
        ("+30min", "2025-01-01T00:30:00Z"),
        ("+1h", "2025-01-01T01:00:00Z"),
        ("+30d", "2025-01-31T00:00:00Z"),
        ("+2w", "2025-01-15T00:00:00Z"),
        ("+1mo", "2025-02-01T00:00:00Z"),
        ("+1y", "2026-01-01T00:00:00Z"),
    ],
)
def test_what_can_be_written(text: str, shown: str) -> None:
    assert format_seconds(parse_instant(text, NOW)) == shown


@pytest.mark.parametrize("text", ["", "tomorrow", "+1m", "+", "+1.5d", "2025-13-01", "+999999y", "12"])
def test_what_cannot(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a date|beyond the year"):
        parse_instant(text, NOW)


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2025-01-31T10:00:00Z", 1, "2025-02-28T10:00:00Z"),
        ("2024-01-31T10:00:00Z", 1, "2024-02-29T10:00:00Z"),
        ("2025-01-01T00:00:00Z", -72, "2019-01-01T00:00:00Z"),
        ("2025-03-31T00:00:00Z", -1, "2025-02-28T00:00:00Z"),
    ],
)
def test_months(start: str, months: int, end: str) -> None:
    assert format_seconds(add_months(parse_instant(start, 0), months)) == end
