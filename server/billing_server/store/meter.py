"""How meters are stored and listed."""

from __future__ import annotations

from billing_server.domain.meter import Meter, MeterStatus
from billing_server.store.listing import Filter
from billing_server.store.rows import Rows

METERS = Rows(Meter, "meter", "meters", "meter_row")


class MeterFilter(Filter[Meter], frozen=True, kw_only=True):
    """Which meters to list."""

    status: MeterStatus | None = None
    event_name: str | None = None
