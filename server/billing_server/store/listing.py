"""Lists: typed filters, and pages that begin after the last object of the page before.

Pages go by (created, id), newest first, so an object that is added or removed meanwhile neither repeats nor
hides another. Only the conditions that a caller asked for get into the statement, so that each combination
has a plan of its own.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from billing_server.store.database import Connection
from billing_server.store.queries import Queries
from billing_server.store.rows import Rows

T = TypeVar("T", bound=msgspec.Struct)

Cursor = tuple[int, str]
"""`created` and `id` of the last object of a page."""


class Filter(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Conditions on objects of one noun. A field that is None narrows nothing.

    Each field is named as a filter in the noun's SQL file.
    """


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some objects, and where the next page begins (None: there is none)."""

    items: list[T]
    next: Cursor | None


async def fetch_page(
    connection: Connection,
    rows: Rows[T],
    account_id: str,
    wanted: Filter[T],
    *,
    limit: int,
    after: Cursor | None,
) -> Page[T]:
    """The page of `limit` objects that follows the cursor."""
    parameters: list[object] = [account_id, limit + 1]
    conditions = narrow(rows.queries, wanted, parameters)
    if after is not None:
        parameters += after
        conditions += f" AND (created, id) < (${len(parameters) - 1}, ${len(parameters)})"
    statement = rows.queries["list"].replace("{filters}", conditions)
    found = rows.decode(await connection.fetch(statement, *parameters))
    if len(found) <= limit:
        return Page(found, None)
    last = found[limit - 1]
    return Page(found[:limit], (last.created, last.id))  # type: ignore[attr-defined]  # every noun has both


def narrow(queries: Queries, wanted: msgspec.Struct, parameters: list[object]) -> str:
    """The conditions for the fields that are set, their values appended to the parameters."""
    conditions = ""
    for name in wanted.__struct_fields__:
        value = getattr(wanted, name)
        if value is None:
            continue
        parameters.append(list(value) if isinstance(value, tuple) else value)
        condition = queries.filter(name).replace("?", f"${len(parameters)}")
        conditions += f" AND ({condition})"
    return conditions
