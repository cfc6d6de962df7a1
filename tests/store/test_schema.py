"""The migrations make the schema that is written down, and the schema is the one that the structs dictate."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from billing_server.store import book, idempotency, test_gateway, view
from billing_server.store.account import ACCOUNTS
from billing_server.store.migrate import migrate
from billing_server.store.rows import Rows
from tests.store.schema_dump import dump

EXPECTED = Path(__file__).parent / "expected_schema.txt"

ALL_ROWS: list[Rows[Any]] = [
    *(rows for rows in view._ROWS.values()),
    ACCOUNTS,
    book.BOOK_ROWS,
    idempotency.IDEMPOTENCY,
    test_gateway.GATEWAY_ROWS,
]
DERIVED = {"subscriptions": {"wake_at": "bigint"}, "invoices": {"wake_at": "bigint"}}
SMALL = {("books", "holds"): "smallint"}


async def test_the_migrations_make_the_schema_that_is_written_down(empty_database_url: str) -> None:
    await migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    try:
        found = await dump(connection)
    finally:
        await connection.close()

    assert found.splitlines() == EXPECTED.read_text(encoding="utf-8").splitlines(), "see schema_dump.py"


def wanted_columns(rows: Rows[Any]) -> dict[str, str]:
    """The columns that a struct dictates, with their types."""
    columns = {name: SMALL.get((rows.table, name), sql_type) for name, sql_type in rows.sql_types.items()}
    return columns | DERIVED.get(rows.table, {})


async def found_columns(administrator: asyncpg.Connection, relation: str) -> dict[str, str]:
    """The columns of a table or row type, in order, with their types."""
    records = await administrator.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        relation,
    )
    return {record[0]: record[1] for record in records}


@pytest.mark.parametrize("rows", ALL_ROWS, ids=lambda rows: rows.table)
async def test_tables_and_row_types_have_the_columns_of_their_structs(
    administrator: asyncpg.Connection, rows: Rows[Any]
) -> None:
    wanted = wanted_columns(rows)
    row_type = await found_columns(administrator, str(rows.placeholders["row"]))
    table = await found_columns(administrator, rows.table)

    assert list(row_type.items()) == list(wanted.items()), "a row type lists the fields in the struct's order"
    assert wanted.items() <= table.items()


@pytest.mark.parametrize("rows", ALL_ROWS, ids=lambda rows: rows.table)
async def test_a_column_is_nullable_as_its_field_is_optional(
    administrator: asyncpg.Connection, rows: Rows[Any]
) -> None:
    hints = typing.get_type_hints(rows.struct)
    optional = {name for name in rows.fields if type(None) in typing.get_args(hints[name])}
    records = await administrator.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND NOT attnotnull AND attnum > 0",
        rows.table,
    )

    assert {record[0] for record in records} == optional | DERIVED.get(rows.table, {}).keys()


@pytest.mark.parametrize("rows", ALL_ROWS, ids=lambda rows: rows.table)
async def test_checks_list_the_words_of_their_fields(administrator: asyncpg.Connection, rows: Rows[Any]) -> None:
    definitions = await administrator.fetch(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::text::regclass AND contype = 'c'",
        rows.table,
    )
    hints = typing.get_type_hints(rows.struct)
    for name in rows.fields:
        words = literals(hints[name])
        if words:
            listed = ", ".join(f"'{word}'::text" for word in words)
            written = [record[0].replace('"', "") for record in definitions]
            assert any(f"({name} = ANY (ARRAY[{listed}]))" in check for check in written), name


def literals(hint: Any) -> tuple[str, ...]:
    """The words of a Literal, also of an optional one."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return next((typing.get_args(a) for a in typing.get_args(hint) if typing.get_origin(a) is typing.Literal), ())
