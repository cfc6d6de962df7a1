"""Floors of billing: the very rows that the engine wrote, written again for another account by plain SQL.

They get their rows for nothing: they decide, number and serialize nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
from google.protobuf.json_format import MessageToDict

from billing.v1.event_model_pb2 import Event

ROWS_ONE_BY_ONE = 2_000
EVENTS_AS_JSON = 4_000

_RENEWED = "billing_reason = 'subscription_cycle'"
_TOLD = "type IN ('invoice.created', 'customer.subscription.updated')"
_PAGES = ("products", "prices")
_PAYERS = ("customers", "books", "payment_methods")
_STANDING = (*_PAYERS, "subscriptions")
_PAID = ("payment_attempts", "test_gateway_charges", "messages")


@dataclass(frozen=True)
class Floor:
    """How many renewals a second were written, and how many bytes of the write-ahead log each took."""

    rate: float
    wal_bytes: float


async def renewals_by_sets(connection: asyncpg.Connection, source: str) -> Floor:
    """All rows of all renewals by a statement for each table, in one transaction."""
    target = await _prepare(connection, source, "zz")
    count = await _renewals(connection, source)
    begun, wal = time.perf_counter(), await _wal(connection)
    async with connection.transaction():
        await _copy(connection, "invoices", source, target, _RENEWED)
        await _touch(connection, target, "subscriptions", "books")
        await _copy_events(connection, source, target, _TOLD)
    floor = Floor(count / (time.perf_counter() - begun), (await _wal(connection) - wal) / count)
    await _forget(connection, target)
    return floor


async def cycles_by_sets(connection: asyncpg.Connection, source: str) -> Floor:
    """The rows of renewal, finalization, charge and payment: each row as often as the steps have to write it."""
    target = await _prepare(connection, source, "zz")
    count = await _renewals(connection, source)
    begun, wal = time.perf_counter(), await _wal(connection)
    async with connection.transaction():
        # Renewed.
        await _copy(connection, "invoices", source, target, _RENEWED)
        await _touch(connection, target, "subscriptions", "books")
        # Finalized, with an attempt to charge; the gateway's memory; paid.
        await _touch(connection, target, "invoices", "books")
        await connection.execute("UPDATE customers SET version = version + 1 WHERE account_id = $1", target)
        for table in _PAID:
            await _copy(connection, table, source, target)
        await _touch(connection, target, "invoices", "books")
        await connection.execute("UPDATE payment_attempts SET version = version + 1 WHERE account_id = $1", target)
        await _copy_events(connection, source, target, "true")
    floor = Floor(count / (time.perf_counter() - begun), (await _wal(connection) - wal) / count)
    await _forget(connection, target)
    return floor


async def renewals_by_rows(connection: asyncpg.Connection, source: str) -> float:
    """Renewals a second of one transaction each: an invoice, two events, subscription and book, a statement each."""
    target = await _prepare(connection, source, "yy")
    invoice_columns, event_columns = await _columns(connection, "invoices"), await _columns(connection, "events")
    invoices = await connection.fetch(
        f"SELECT {', '.join(invoice_columns)} FROM invoices WHERE account_id = $1 AND {_RENEWED} LIMIT $2",
        source,
        ROWS_ONE_BY_ONE,
    )
    events = await connection.fetch(
        f"SELECT {', '.join(event_columns)} FROM events WHERE account_id = $1 AND {_TOLD} ORDER BY position LIMIT $2",
        source,
        2 * ROWS_ONE_BY_ONE,
    )
    insert_invoice = await connection.prepare(_insert("invoices", target, invoice_columns))
    insert_event = await connection.prepare(_insert("events", target, event_columns))
    update_subscription = await connection.prepare(
        f"UPDATE subscriptions SET wake_at = wake_at + 1 WHERE account_id = '{target}' AND id = $1"
    )
    update_book = await connection.prepare(
        f"UPDATE books SET wake_at = wake_at + 1 WHERE account_id = '{target}' AND customer = $1"
    )
    begun = time.perf_counter()
    for index, invoice in enumerate(invoices):
        async with connection.transaction():
            await insert_invoice.fetch(*invoice)
            await update_subscription.fetch(invoice["subscription"])
            await update_book.fetch(invoice["customer"])
            await insert_event.fetch(*events[2 * index])
            await insert_event.fetch(*events[2 * index + 1])
    seconds = time.perf_counter() - begun
    await _forget(connection, target)
    return len(invoices) / seconds


async def creations_by_64(
    connection: asyncpg.Connection, source: str, created: Sequence[tuple[str, str, str]], after: int
) -> float:
    """The rows of subscriptions that were created without a charge, those of 64 a transaction; how many a second.

    `created` names subscription, customer and idempotency key of each. Written are the two of them and the events
    after that position, changed are customer and book.
    """
    target = await _prepare(connection, source, "xx", _PAYERS)
    head, _ = await one(connection, "SELECT position, 0 FROM event_heads WHERE account_id = $1", source)
    copies = [
        await connection.prepare(await _copying(connection, table, source, target, where))
        for table, where in (
            ("subscriptions", "id = ANY ($1)"),
            ("idempotency_keys", "key = ANY ($1)"),
            ("events", "position > $1 AND position <= $2"),
        )
    ]
    changes = [
        await connection.prepare(f"UPDATE {table} SET {change} WHERE account_id = '{target}' AND {key} = ANY ($1)")
        for table, change, key in (
            ("customers", "version = version + 1", "id"),
            ("books", "wake_at = coalesce(wake_at, 0) + 1", "customer"),
        )
    ]
    begun = time.perf_counter()
    for start in range(0, len(created), 64):
        subscriptions, customers, keys = map(list, zip(*created[start : start + 64], strict=True))
        told = (head - after) * start // len(created), (head - after) * (start + len(keys)) // len(created)
        async with connection.transaction():
            for change in changes:
                await change.fetch(customers)
            await copies[0].fetch(subscriptions)
            await copies[1].fetch(keys)
            await copies[2].fetch(after + told[0], after + told[1])
    rate = len(created) / (time.perf_counter() - begun)
    await connection.execute("DELETE FROM idempotency_keys WHERE account_id = $1", target)
    await _forget(connection, target)
    return rate


async def json_instead_of_bytes(connection: asyncpg.Connection, source: str) -> float:
    """How many bytes of the log more an event takes whose payload is jsonb, in a table with the same indexes."""
    rows = await connection.fetch(
        f"SELECT position, payload FROM events WHERE account_id = $1 AND {_TOLD} ORDER BY position LIMIT $2",
        source,
        EVENTS_AS_JSON,
    )
    texts = [json.dumps(MessageToDict(Event.FromString(row["payload"]))) for row in rows]
    await connection.execute(
        "DROP TABLE IF EXISTS bench_json, bench_bytes, bench_events_json, bench_events_bytes;"
        "CREATE TABLE bench_json (position bigint, payload jsonb); CREATE TABLE bench_bytes (LIKE events);"
        "CREATE TABLE bench_events_bytes (LIKE events INCLUDING INDEXES);"
        "CREATE TABLE bench_events_json (LIKE events INCLUDING INDEXES);"
        "ALTER TABLE bench_events_json DROP COLUMN payload; ALTER TABLE bench_events_json ADD COLUMN payload jsonb"
    )
    await connection.execute(
        "INSERT INTO bench_json SELECT * FROM unnest($1::bigint[], $2::jsonb[])",
        [row["position"] for row in rows],
        texts,
    )
    columns = [name for name in await _columns(connection, "events") if name != "payload"]
    taken = []
    for table, payload in (("bench_events_bytes", "e.payload"), ("bench_events_json", "j.payload")):
        names = ", ".join(columns)
        values = ", ".join(f"e.{name}" for name in columns)
        await connection.execute("CHECKPOINT")
        wal = await _wal(connection)
        await connection.execute(
            f"INSERT INTO {table} (account_id, {names}, payload) SELECT e.account_id, {values}, {payload} "
            "FROM events AS e JOIN bench_json AS j USING (position) WHERE e.account_id = $1",
            source,
        )
        taken.append(await _wal(connection) - wal)
    return (taken[1] - taken[0]) / len(rows)


# --- SQL


async def _renewals(connection: asyncpg.Connection, account_id: str) -> int:
    query = f"SELECT count(*) FROM invoices WHERE account_id = $1 AND {_RENEWED}"
    return int(await connection.fetchval(query, account_id))


async def _wal(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))


async def _columns(connection: asyncpg.Connection, table: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1 "
        "AND is_generated = 'NEVER' AND column_name <> 'account_id' ORDER BY ordinal_position",
        table,
    )
    return [row[0] for row in rows]


async def _copy(connection: asyncpg.Connection, table: str, source: str, target: str, where: str = "true") -> None:
    await connection.execute(await _copying(connection, table, source, target, where))


async def _copying(connection: asyncpg.Connection, table: str, source: str, target: str, where: str) -> str:
    """The statement that writes rows of one account again for another; `where` may have parameters."""
    names = await _columns(connection, table)
    columns = ", ".join(names)
    # An account's own id is its account's.
    values = ", ".join(f"'{target}'" if table == "accounts" and name == "id" else name for name in names)
    return (
        f"INSERT INTO {table} (account_id, {columns}) SELECT '{target}', {values} FROM {table} "
        f"WHERE account_id = '{source}' AND {where}"
    )


async def _copy_events(connection: asyncpg.Connection, source: str, target: str, where: str) -> None:
    await _copy(connection, "events", source, target, where)
    await connection.execute(
        "UPDATE event_heads SET position = (SELECT position FROM event_heads WHERE account_id = $1) "
        "WHERE account_id = $2",
        source,
        target,
    )


async def _touch(connection: asyncpg.Connection, target: str, *tables: str) -> None:
    for table in tables:
        moved = "automatically_finalizes_at = created" if table == "invoices" else "wake_at = wake_at + 1"
        await connection.execute(f"UPDATE {table} SET {moved} WHERE account_id = $1", target)


async def _prepare(
    connection: asyncpg.Connection, source: str, ending: str, standing: Sequence[str] = _STANDING
) -> str:
    """An account with the same customers and subscriptions, without what became of them; the database at rest."""
    target = f"{source[:-2]}{ending}"
    await _copy(connection, "accounts", source, target)
    await connection.execute("INSERT INTO event_heads (account_id, position) VALUES ($1, 0)", target)
    for table in (*_PAGES, *standing):
        await _copy(connection, table, source, target)
    await connection.execute("ANALYZE")
    await connection.execute("CHECKPOINT")
    return target


def _insert(table: str, account_id: str, columns: list[str]) -> str:
    values = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    return f"INSERT INTO {table} (account_id, {', '.join(columns)}) VALUES ('{account_id}', {values})"


async def _forget(connection: asyncpg.Connection, account_id: str) -> None:
    for table in ("events", *_PAID, "invoices", *reversed(_STANDING), *reversed(_PAGES), "event_heads", "accounts"):
        await connection.execute(f"DELETE FROM {table} WHERE account_id = $1", account_id)


async def one(connection: asyncpg.Connection, query: str, *parameters: Any) -> tuple[Any, ...]:
    """The one row of a query."""
    row = await connection.fetchrow(query, *parameters)
    assert row is not None
    return tuple(row)
