"""Tallies: what is kept of many meter events, and how a span of time is put together from them.

Events are tallied as they come in, by minute and by hour, so that closing a period reads hundreds of rows however
many events there were. Only the seconds at the two ends of a span are looked up event by event. For meters with an
`event_time_window` there is one tally for each window, which holds the event that was received last.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from billing_server.domain.meter import MeterFormula, MeterWindow

MINUTE: Final = 60
HOUR: Final = 3_600
EACH: Final = 0
"""The width of pieces that are looked up event by event."""

WINDOW_SECONDS: Final[dict[MeterWindow, int]] = {"hour": HOUR, "day": 86_400}


class Tally(msgspec.Struct, frozen=True):
    """The events of one customer and meter within some time.

    `last` is the value of the last event, by timestamp and then by the moment (microseconds) it was received.
    """

    sum: int = 0
    count: int = 0
    last: int = 0
    last_at: int = 0
    last_received: int = 0


NOTHING: Final = Tally()


def merged(one: Tally, other: Tally) -> Tally:
    """The tally of both."""
    later = one if (one.last_at, one.last_received) > (other.last_at, other.last_received) else other
    if not one.count or not other.count:
        later = one if one.count else other
    return Tally(one.sum + other.sum, one.count + other.count, later.last, later.last_at, later.last_received)


def total(tallies: Iterable[Tally]) -> Tally:
    """The tally of all."""
    result = NOTHING
    for tally in tallies:
        result = merged(result, tally)
    return result


def usage_by(formula: MeterFormula, tally: Tally) -> int:
    """What a meter says of the events."""
    if formula == "sum":
        return tally.sum
    return tally.count if formula == "count" else tally.last


class Piece(NamedTuple):
    """A part [start, end) of a span that is made of tallies of one width in seconds, or of single events."""

    width: int
    start: int
    end: int


def pieces(start: int, end: int) -> list[Piece]:
    """What [start, end) is made of: whole hours, whole minutes beside them, and the seconds at its ends."""
    first, last = _up(start, MINUTE), _down(end, MINUTE)
    if first >= last:
        return [Piece(EACH, start, end)] if start < end else []
    parts = [Piece(EACH, start, first), Piece(EACH, last, end)]
    first_hour, last_hour = _up(first, HOUR), _down(last, HOUR)
    if first_hour >= last_hour:
        parts.append(Piece(MINUTE, first, last))
    else:
        parts.append(Piece(MINUTE, first, first_hour))
        parts.append(Piece(HOUR, first_hour, last_hour))
        parts.append(Piece(MINUTE, last_hour, last))
    return [part for part in parts if part.start < part.end]


def _down(moment: int, width: int) -> int:
    return moment - moment % width


def _up(moment: int, width: int) -> int:
    return -(-moment // width) * width


def windows(start: int, end: int, window: MeterWindow) -> list[tuple[int, int]]:
    """The whole hours or days that [start, end) touches, the first and the last cut at its ends."""
    width = WINDOW_SECONDS[window]
    edges = [start, *range(_down(start, width) + width, end, width), end]
    return list(itertools.pairwise(edges))
