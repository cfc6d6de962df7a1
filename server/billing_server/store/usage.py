"""How meter events and their tallies are written, read by spans of time, and dropped when they are old."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from billing_server.domain.meter import Meter
from billing_server.domain.metering import Reporter, Tallies, reporter
from billing_server.domain.tally import EACH, NOTHING, WINDOW_SECONDS, Tally, merged, pieces
from billing_server.domain.validation.text import ID_LENGTH_MAX, is_storable
from billing_server.store.database import Connection
from billing_server.store.queries import read_queries
from billing_server.store.test_clock import TEST_CLOCKS

QUERIES: Final = read_queries("usage", {"columns": TEST_CLOCKS.placeholders["columns"]})

EventRow = tuple[str, str, bytes, int, int, int]
"""An event as it is stored: customer, meter, digest, timestamp, value, received."""


class WantedSpan(NamedTuple):
    """The usage in [start, end) of a customer by a meter."""

    customer: str
    meter: Meter
    start: int
    end: int


# --- taking events


async def reporters(connection: Connection, account_id: str, customers: Iterable[str]) -> dict[str, Reporter]:
    """The customers that exist, as far as it matters for their events; their test clocks stand until the end."""
    wanted = sorted(customer for customer in customers if len(customer) <= ID_LENGTH_MAX and is_storable(customer))
    found = await connection.fetch(QUERIES["reporters"], account_id, wanted)
    ids = sorted({record[2] for record in found if record[2] is not None})
    locked = await connection.fetch(QUERIES["clocks"], account_id, ids) if ids else []
    clocks = {clock.id: clock for clock in TEST_CLOCKS.decode(locked)}
    return {
        customer: reporter(deleted=deleted, test_clock=clocks.get(clock_id))
        for customer, deleted, clock_id in found
        if clock_id is None or clock_id in clocks
    }


async def microseconds(connection: Connection) -> int:
    """Real time by the database's clock."""
    return int(await connection.fetchval(QUERIES["microseconds"]))


async def insert_events(connection: Connection, account_id: str, rows: Iterable[EventRow]) -> set[int]:
    """Write events, and tell by their moments of receipt which of them were not there yet."""
    in_order = sorted(rows, key=_digest_of)
    return {record[0] for record in await connection.fetch(QUERIES["insert_events"], account_id, in_order)}


def _digest_of(row: EventRow) -> bytes:
    return row[2]


async def save_tallies(
    connection: Connection,
    account_id: str,
    added: Tallies,
    replaced: Tallies,
) -> None:
    """Add to tallies by minute and hour, and replace those of windows; both in the order of their buckets."""
    for query, tallies in (("add_tallies", added), ("replace_tallies", replaced)):
        if tallies:
            rows = [
                (*bucket, tally.sum, tally.count, tally.last, tally.last_at, tally.last_received)
                for bucket, tally in tallies
            ]
            await connection.execute(QUERIES[query], account_id, rows)


# --- reading usage


async def read(connection: Connection, account_id: str, wanted: Sequence[WantedSpan]) -> list[Tally]:
    """The tallies of some spans, in their order: at most three queries, however many there are."""
    asked: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for number, (customer, meter, start, end) in enumerate(wanted):
        if meter.event_time_window is not None:
            width = WINDOW_SECONDS[meter.event_time_window]
            asked["windows"].append((number, customer, meter.id, width, start, end))
            continue
        for width, first, last in pieces(start, end):
            asked["each" if width == EACH else "tallied"].append((number, customer, meter.id, width, first, last))
    found = [NOTHING] * len(wanted)
    for query, parts in asked.items():
        for record in await connection.fetch(QUERIES[query], account_id, *map(list, zip(*parts, strict=True))):
            last_at, last_received, last = record[3]
            tally = Tally(int(record[1]), record[2], last, last_at, last_received)
            found[record[0]] = merged(found[record[0]], tally)
    return found
