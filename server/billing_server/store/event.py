"""How events are read: in order after a position, or newest first.

They are written by `Unit.save`. Their payload is opaque here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from billing_server.store import owners
from billing_server.store.database import Connection
from billing_server.store.listing import narrow
from billing_server.store.queries import read_queries

QUERIES: Final = read_queries("event", {"filters": "{filters}"})

WINDOW_POSITIONS: Final = 20_000
"""How many positions one filtered read looks at, at most: a rare type must not become an endless scan."""


_WITHOUT_CUSTOMER: Final = ("prod_", "price_", "mtr_", "clock_", "acct_", "we_", "bauto_")
"""Objects that belong to no customer; their events are indexed by their own ids."""


class EventRow(msgspec.Struct, frozen=True):
    """An event to be written; its position is given when it is. `created` is engine or test-clock time.

    A `quiet` one is for readers of the log alone.
    """

    type: str
    customer: str | None
    object_id: str
    created: int
    payload: bytes
    quiet: bool = False


class StoredEvent(msgspec.Struct, frozen=True):
    """An event at its position."""

    position: int
    type: str
    customer: str | None
    object_id: str
    created: int
    payload: bytes


class Appended(msgspec.Struct, frozen=True):
    """Events that a transaction has written, and the position of the last of them."""

    rows: Sequence[EventRow]
    last: int

    @property
    def first(self) -> int:
        """Position of the first event."""
        return self.last - len(self.rows) + 1

    def stored(self, after: int = 0) -> list[StoredEvent]:
        """The events after a position, as they are read from the log."""
        first = self.first
        skipped = max(0, after + 1 - first)
        return [
            StoredEvent(position, row.type, row.customer, row.object_id, row.created, row.payload)
            for position, row in enumerate(self.rows[skipped:], first + skipped)
        ]


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events to read.

    `types` are exact, or prefixes such as "invoice.*". `shards` are those of a consumer, None for all. The span of
    `created` is engine or test-clock time.
    """

    types: tuple[str, ...] = ()
    customer: str | None = None
    object_ids: tuple[str, ...] = ()
    shards: tuple[int, ...] | None = None
    created_from: int | None = None
    created_before: int | None = None


class EventPage(msgspec.Struct, frozen=True):
    """Events in order, how far the log has been looked at for them, and the head at that moment.

    Nothing that the filter lets pass is left out between where the read began and `scanned_to`.
    """

    events: list[StoredEvent]
    scanned_to: int
    head: int


class PayloadPage(msgspec.Struct, frozen=True):
    """Payloads of the events from position `first` on, without a gap, and the head at that moment.

    Without events, `first` is the position that the next one will have.
    """

    first: int
    payloads: list[bytes]
    head: int


class _Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """The filters of `sql/event.sql`."""

    until: int | None = None
    down_to: int | None = None
    types: tuple[str, ...] | None = None
    type_patterns: tuple[str, ...] | None = None
    object_ids: tuple[str, ...] | None = None
    shards: tuple[int, ...] | None = None
    created_from: int | None = None
    created_before: int | None = None


EVERYTHING: Final = EventFilter()


async def head(connection: Connection, account_id: str) -> int:
    """Position of the account's last event; 0 before the first."""
    return int(await connection.fetchval(QUERIES["head"], account_id) or 0)


async def read(
    connection: Connection,
    account_id: str,
    *,
    after: int,
    limit: int,
    wanted: EventFilter,
    until: int | None = None,
) -> EventPage:
    """Up to `limit` events after a position, in order, and not beyond `until`.

    A selective filter may need several reads.
    """
    # The head comes first: whatever is at or below it is committed and seen by the statement after it.
    newest = await head(connection, account_id)
    subjects = await _subjects(connection, account_id, wanted)
    unbounded = wanted == EVERYTHING or subjects is not None
    last = newest if until is None else min(newest, until)
    until = last if unbounded else min(last, after + WINDOW_POSITIONS)
    conditions = _conditions(wanted, until=until)
    events = await _fetch(connection, "read", account_id, (limit, after), conditions, subjects)
    scanned_to = events[-1].position if len(events) == limit else max(until, after)
    return EventPage(events, scanned_to, newest)


async def read_payloads(connection: Connection, account_id: str, *, after: int, limit: int) -> PayloadPage:
    """Payloads of up to `limit` events of any kind after a position; the first may be later than the next position.

    The head is of the same snapshot as the events are.
    """
    rows = await connection.fetch(QUERIES["read_payloads"], account_id, after, limit)
    # No event lies beyond the head, so its row is one of the last two.
    newest = next((position for position, payload in reversed(rows) if payload is None), 0)
    payloads = [payload for _, payload in rows if payload is not None]
    return PayloadPage(rows[0]["position"] if payloads else newest + 1, payloads, newest)


async def read_newest(
    connection: Connection, account_id: str, *, before: int | None, limit: int, wanted: EventFilter
) -> EventPage:
    """Up to `limit` events before a position (None: from the head), newest first.

    Nothing is left out above `scanned_to`; everything was looked at once that is 0.
    """
    newest = await head(connection, account_id)
    start = newest + 1 if before is None else before
    subjects = await _subjects(connection, account_id, wanted)
    unbounded = wanted == EVERYTHING or subjects is not None
    down_to = 0 if unbounded else max(0, start - 1 - WINDOW_POSITIONS)
    conditions = _conditions(wanted, down_to=down_to)
    events = await _fetch(connection, "list", account_id, (limit, start), conditions, subjects)
    scanned_to = events[-1].position if len(events) == limit else down_to
    return EventPage(events, scanned_to, newest)


async def get(connection: Connection, account_id: str, position: int) -> StoredEvent | None:
    """The event at a position, if it is (still) there."""
    record = await connection.fetchrow(QUERIES["get"], account_id, position)
    return None if record is None else StoredEvent(*record)


async def at_positions(connection: Connection, account_id: str, positions: Sequence[int]) -> list[StoredEvent]:
    """The events at some positions, in order, as far as they are kept."""
    records = await connection.fetch(QUERIES["at_positions"], account_id, list(positions))
    return [StoredEvent(*record) for record in records]


async def _fetch(
    connection: Connection,
    query: str,
    account_id: str,
    bounds: tuple[int, int],
    conditions: _Conditions,
    subjects: tuple[str, ...] | None,
) -> list[StoredEvent]:
    """The events that an index finds: by their subjects where these are known, else by position."""
    parameters: list[object] = [account_id, *bounds]
    if subjects is not None:
        query = f"{query}_of_subjects"
        parameters.append(list(subjects))
    statement = QUERIES[query].replace("{filters}", narrow(QUERIES, conditions, parameters))
    return [StoredEvent(*record) for record in await connection.fetch(statement, *parameters)]


def _conditions(wanted: EventFilter, *, until: int | None = None, down_to: int | None = None) -> _Conditions:
    prefixes = any(name.endswith("*") for name in wanted.types)
    return _Conditions(
        until=until,
        down_to=down_to,
        types=wanted.types if wanted.types and not prefixes else None,
        type_patterns=tuple(map(_pattern, wanted.types)) if prefixes else None,
        object_ids=wanted.object_ids or None,
        shards=wanted.shards,
        created_from=wanted.created_from,
        created_before=wanted.created_before,
    )


def _pattern(name: str) -> str:
    """The LIKE pattern of a type or prefix."""
    literal = name.removesuffix("*").replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
    return f"{literal}%" if name.endswith("*") else literal


async def _subjects(connection: Connection, account_id: str, wanted: EventFilter) -> tuple[str, ...] | None:
    """Under which subjects the wanted events are indexed; None where that is not known."""
    if wanted.customer is not None:
        return (wanted.customer,)
    if not wanted.object_ids:
        return None
    stored = {object_id: _stored_id(object_id) for object_id in wanted.object_ids}
    customers = await owners.of_ids(connection, account_id, set(stored.values()))
    subjects = set()
    for object_id, stored_id in stored.items():
        if object_id.startswith(_WITHOUT_CUSTOMER):
            subjects.add(object_id)
        elif stored_id in customers:
            subjects.add(customers[stored_id])
        else:
            return None
    return tuple(sorted(subjects))


def _stored_id(object_id: str) -> str:
    """A payment intent lives in its invoice and shares the suffix of its id."""
    return f"in_{object_id.removeprefix('pi_')}" if object_id.startswith("pi_") else object_id
