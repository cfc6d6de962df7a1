"""Meters: what counts usage, and the events that report it (semantics 1, Meter and MeterEvent)."""

from __future__ import annotations

from typing import Literal

import msgspec

MeterFormula = Literal["sum", "count", "last"]
MeterStatus = Literal["active", "inactive"]
MeterWindow = Literal["hour", "day"]


class Meter(msgspec.Struct, frozen=True, kw_only=True):
    """Sums up what customers use. Only its name and metadata ever change.

    With an `event_time_window` callers sum up before they report: of a customer's events within one hour or day
    (UTC) only the one that was received last counts.
    """

    id: str
    created: int
    display_name: str
    event_name: str
    formula: MeterFormula
    event_time_window: MeterWindow | None = None
    status: MeterStatus = "active"
    deactivated_at: int | None = None
    metadata: dict[str, str] = {}
    version: int = 1


class MeterEvent(msgspec.Struct, frozen=True):
    """Somebody used something, as it was reported.

    `value` counts whole units of the caller's choice. Of the events of one meter with the same `identifier` only
    the first has an effect; without one, every event has. `timestamp` is in UTC seconds; None means now.
    """

    event_name: str
    customer: str
    value: int | None = None
    identifier: str = ""
    timestamp: int | None = None
