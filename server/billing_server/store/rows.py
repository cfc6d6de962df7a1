"""Structs to rows and back: one column per field, in the order of the struct.

Scalars are columns of their own type; nested structs, tuples and dicts are jsonb, written and read by msgspec
(decimals within them as strings). A struct goes to the database as one value of a composite type, and many
structs as one array of it: about as fast as COPY, which PostgreSQL refuses under row-level security, and four
times as fast for our side as an array per column.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import compress
from operator import attrgetter, is_not
from typing import Any, Final, Generic, TypeVar

import asyncpg
import msgspec
from msgspec.structs import astuple

from billing_server.store.queries import Queries, read_queries

T = TypeVar("T", bound=msgspec.Struct)

_SCALARS: Final[Mapping[object, str]] = {
    int: "bigint",
    bool: "boolean",
    str: "text",
    bytes: "bytea",
    Decimal: "numeric",
}
_encode_json: Final = msgspec.json.encode
_JSONB_VERSION: Final = b"\x01"
_DERIVED_TYPE: Final = "bigint"
_UPDATES_MAX: Final = 50
"""How many kinds of change get a statement of their own; each is kept prepared on each connection."""


_QUERIES: Final = read_queries("rows", {name: f"{{{name}}}" for name in ("table", "assignments", "arrays", "columns")})


def encode_jsonb(value: object) -> bytes:
    """A value as PostgreSQL receives jsonb in binary: a version byte, then the text."""
    return _JSONB_VERSION + _encode_json(value)


def decode_jsonb(data: bytes) -> bytes:
    """The JSON text of a received jsonb; `Rows.decode` knows the type to read it as."""
    return data[1:]


class _Columns:
    """A list of columns in a query: `{columns}` bare, `{columns:i}` each with the prefix `i.`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __format__(self, prefix: str) -> str:
        return ", ".join(f"{prefix}.{name}" if prefix else name for name in self._names)


class _Assignments:
    """The `SET` list of an update from rows called `n`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __format__(self, spec: str) -> str:
        return ", ".join(f"{name} = n.{name}" for name in self._names)


class _Excluded:
    """The `SET` list of an upsert."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __format__(self, spec: str) -> str:
        return ", ".join(f"{name} = excluded.{name}" for name in self._names)


class Rows(Generic[T]):
    """How one noun is stored: its columns, its queries, and the way from struct to row and back.

    `derived` names further columns that are computed from the struct on writing and not read back.
    Queries may use `{columns}` (all of the struct's), `{stored}` (those and the derived), `{assignments}`
    (all stored but the keys) and `{row}` (the composite type).
    """

    def __init__(
        self,
        struct: type[T],
        source: str,
        table: str,
        row_type: str,
        *,
        keys: frozenset[str] = frozenset({"id"}),
        derived: Mapping[str, Callable[[T], object]] | None = None,
    ) -> None:
        hints = typing.get_type_hints(struct)
        self.struct = struct
        self.fields: tuple[str, ...] = struct.__struct_fields__
        self.sql_types = {name: _sql_type(hints[name]) for name in self.fields}
        self.table = table
        self._derived = tuple((derived or {}).values())
        self._decode = _reader_of(
            struct,
            {
                name: msgspec.json.Decoder(hints[name]).decode
                for name, sql_type in self.sql_types.items()
                if sql_type == "jsonb"
            },
        )
        stored = (*self.fields, *(derived or {}))
        self.placeholders: dict[str, object] = {
            "columns": _Columns(self.fields),
            "stored": _Columns(stored),
            "assignments": _Assignments([name for name in stored if name not in keys]),
            "excluded": _Excluded([name for name in self.fields if name not in keys]),
            "row": row_type,
            # Filled in when a list is fetched.
            "filters": "{filters}",
        }
        self.queries: Queries = read_queries(source, self.placeholders)
        self._indexes = range(len(self.fields))
        self._derivations = dict(derived or {})
        self._updates: dict[tuple[int, ...], _Update] = {}

    def changed(self, before: T, after: T) -> tuple[int, ...]:
        """Which fields are no longer the same object, by their places in the struct."""
        return tuple(compress(self._indexes, map(is_not, astuple(before), astuple(after))))

    def update_of(self, changed: tuple[int, ...]) -> _Update | None:
        """The statement that writes just some fields, and what is derived; None when there are too many kinds."""
        update = self._updates.get(changed)
        if update is None and changed and len(self._updates) < _UPDATES_MAX:
            names = [self.fields[index] for index in changed]
            update = self._updates[changed] = _Update(self.table, names, self.sql_types, self._derivations)
        return update

    def encode(self, items: Sequence[T]) -> list[tuple[object, ...]]:
        """The rows of some structs, derived columns included, ready to be one array parameter."""
        if not self._derived:
            return list(map(astuple, items))
        return [(*astuple(item), *[derive(item) for derive in self._derived]) for item in items]

    def decode(self, records: Iterable[asyncpg.Record], skip: int = 0) -> list[T]:
        """The structs of some records, whose columns from `skip` on are `{columns}`."""
        return self._decode([record[skip:] for record in records] if skip else records)


class _Update:
    """A statement that writes some columns of many rows, each column an array parameter."""

    __slots__ = ("_derive", "_values", "sql")

    def __init__(
        self,
        table: str,
        names: Sequence[str],
        sql_types: Mapping[str, str],
        derived: Mapping[str, Callable[[Any], object]],
    ) -> None:
        columns = [*names, *derived]
        types = ["text", *(sql_types.get(name, _DERIVED_TYPE) for name in columns)]
        self.sql = _QUERIES["update_columns"].format(
            table=table,
            assignments=_Assignments(columns),
            arrays=", ".join(f"${number}::{sql_type}[]" for number, sql_type in enumerate(types, start=2)),
            columns=_Columns(["id", *columns]),
        )
        self._values = attrgetter("id", *names)
        self._derive = tuple(derived.values())

    def encode(self, items: Sequence[Any]) -> list[Sequence[object]]:
        """The columns of some structs, each ready to be an array parameter."""
        columns: list[Sequence[object]] = list(zip(*map(self._values, items), strict=True))
        columns += [[derive(item) for item in items] for derive in self._derive]
        return columns


def _reader_of(struct: type[T], decoders: Mapping[str, Callable[[bytes], Any]]) -> Callable[[Iterable[Any]], list[T]]:
    """A function that makes structs of records in the order of the struct's fields.

    Its source is put together from our own names when the program starts, as `dataclasses` does it: naming the fields
    spares a dictionary for each record, which is half of the work.
    """
    fields = struct.__struct_fields__
    given = [
        f"{name}=None if _{name} is None else decode_{name}(_{name})" if name in decoders else f"{name}=_{name}"
        for name in fields
    ]
    columns = "".join(f"_{name}, " for name in fields)
    names: dict[str, Any] = {f"decode_{name}": decode for name, decode in decoders.items()} | {"struct": struct}
    source = f"def read(records): return [struct({', '.join(given)}) for ({columns}) in records]"
    exec(source, names)  # noqa: S102  # made of the names of our own fields
    read: Callable[[Iterable[Any]], list[T]] = names["read"]
    return read


def _sql_type(hint: object) -> str:
    """The column type of a field, by its annotation; a nullable field has that of its value."""
    arguments = [argument for argument in typing.get_args(hint) if argument is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return "text"
    if type(None) in typing.get_args(hint) and len(arguments) == 1:
        return _sql_type(arguments[0])
    return _SCALARS.get(hint, "jsonb")
