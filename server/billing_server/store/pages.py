"""An account's pages as they are loaded: all of them, or what changed after a version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from billing_server.domain.automation import Automation
from billing_server.domain.catalog import Price, Product
from billing_server.domain.meter import Meter
from billing_server.store.account import ACCOUNTS, ChangedPages
from billing_server.store.automation import AUTOMATIONS
from billing_server.store.catalog import PRICES, PRODUCTS
from billing_server.store.database import Connection
from billing_server.store.meter import METERS
from billing_server.store.rows import Rows


async def load_changed(
    connection: Connection, account_id: str, account: asyncpg.Record, since_version: int
) -> ChangedPages:
    """The account, out of a row that begins with the pages' version, and what changed after another version."""
    return ChangedPages(
        ACCOUNTS.decode([account], skip=1)[0],
        await _changed(connection, account_id, PRODUCTS, since_version),
        await _changed(connection, account_id, PRICES, since_version),
        await _changed(connection, account_id, METERS, since_version),
        await _changed(connection, account_id, AUTOMATIONS, since_version),
        account[0],
    )


async def _changed(connection: Connection, account_id: str, rows: Rows[Any], since_version: int) -> list[Any]:
    return rows.decode(await connection.fetch(rows.queries["load_changed"], account_id, since_version))


async def save(
    connection: Connection,
    account_id: str,
    version: int,
    products: Sequence[Product],
    prices: Sequence[Price],
    meters: Sequence[Meter],
    automations: Sequence[Automation],
) -> None:
    """Write new and changed pages at a version."""
    pages: list[tuple[Rows[Any], Sequence[msgspec.Struct]]] = [
        (PRODUCTS, products),
        (PRICES, prices),
        (METERS, meters),
        (AUTOMATIONS, automations),
    ]
    for rows, changed in pages:
        if changed:
            await connection.execute(rows.queries["save"], account_id, rows.encode(changed), version)
