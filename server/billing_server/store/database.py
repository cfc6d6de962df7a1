"""The connections: how they are opened, whom they act for, and the transactions run on them.

Each connection becomes the role that owns nothing and bypasses nothing; each transaction names its one
account before anything else.

Every query of the store goes by keys, so plans are made once per statement and never hash, merge or scan whole
tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from billing_server.store.errors import CommitUnknown, StoreUnavailable, translated
from billing_server.store.rows import decode_jsonb, encode_jsonb
from billing_server.store.statistics import Statistics

Connection: TypeAlias = asyncpg.Connection | PoolConnectionProxy
"""A connection, of the pool or not."""

ROLE: Final = "billing_app"

_SETTINGS: Final = {
    "application_name": "billing-server",
    "role": ROLE,
    "search_path": "public",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # A process that hangs must not hold its customers' locks for ever.
    "idle_in_transaction_session_timeout": "60000",
}
_STATEMENTS_CACHED: Final = 500
_ACCOUNT_ID: Final = re.compile(r"[a-z0-9_]{1,64}")


class _PooledConnection(asyncpg.Connection):
    """A connection that is given back as it is: transactions leave nothing behind that needs a reset."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


def check_account_id(account_id: str) -> str:
    """The id, if it may stand in SQL text. Raises ValueError otherwise: it would be a bug, never input."""
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise ValueError(f"not an account id: {account_id!r}")
    return account_id


async def prepare_connection(connection: Connection) -> None:
    """Teach a new connection how jsonb is passed through."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=encode_jsonb, decoder=decode_jsonb, format="binary"
    )


class Database:
    """A pool of connections to one PostgreSQL."""

    def __init__(self, pool: asyncpg.Pool, dsn: str, acquire_seconds_max: float) -> None:
        self._pool = pool
        self.dsn = dsn
        self._acquire_seconds_max = acquire_seconds_max
        self._statistics = Statistics(dsn)

    @classmethod
    async def open(
        cls, dsn: str, *, min_connections: int, max_connections: int, acquire_seconds_max: float
    ) -> Database:
        """Connect. Raises StoreUnavailable."""
        with translated():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=min_connections,
                max_size=max_connections,
                connection_class=_PooledConnection,
                init=prepare_connection,
                server_settings=_SETTINGS,
                statement_cache_size=_STATEMENTS_CACHED,
                max_cached_statement_lifetime=0,
                max_inactive_connection_lifetime=0,
                timeout=acquire_seconds_max,
            )
        return cls(pool, dsn, acquire_seconds_max)

    async def close(self) -> None:
        """Close all connections; those in use when their work is done."""
        await self._statistics.close()
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool. Raises StoreUnavailable when none is free or reachable in time."""
        with translated():
            acquired = await self._pool.acquire(timeout=self._acquire_seconds_max)
        try:
            yield acquired
        finally:
            await self._give_back(acquired)

    async def _give_back(self, acquired: Any) -> None:
        """Give a connection back; one that is gone or still in a transaction is dropped instead."""
        if acquired.is_closed() or acquired.is_in_transaction():
            acquired.terminate()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await self._pool.release(acquired)

    @contextlib.asynccontextmanager
    async def transaction(
        self, settings: str, *, read_only: bool = False, timeout_seconds: float | None = None
    ) -> AsyncIterator[Transaction]:
        """A transaction with its own settings (`SET LOCAL …` statements); commits when the block ends well.

        Raises the errors of `store.errors`; `CommitUnknown` when the connection broke while committing.
        """
        if timeout_seconds is not None:
            milliseconds = max(1, round(timeout_seconds * 1000))
            settings += f"; SET LOCAL statement_timeout = {milliseconds}"
        begin = "BEGIN READ ONLY" if read_only else "BEGIN"
        async with self.connection() as connection:
            with translated():
                await connection.execute(f"{begin}; {settings}")
            transaction = Transaction(connection)
            try:
                with translated():
                    yield transaction
            except BaseException:
                await _roll_back(connection)
                raise
            await _commit(transaction)
            self._statistics.note(transaction.inserted)


class Transaction:
    """A connection within a transaction.

    `number` is the transaction's own id once it is known; `inserted` counts new rows by table.
    """

    __slots__ = ("connection", "inserted", "number")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.number: int | None = None
        self.inserted: Counter[str] = Counter()


async def _roll_back(connection: Connection) -> None:
    """End a transaction that failed; where even that fails, dropping the connection has the same effect."""
    try:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
    except asyncio.CancelledError:
        connection.terminate()
        raise


async def _commit(transaction: Transaction) -> None:
    connection = transaction.connection
    try:
        with translated():
            status = await connection.execute("COMMIT")
    except StoreUnavailable as error:
        raise CommitUnknown(transaction.number) from error
    except BaseException:
        if connection.is_in_transaction():
            connection.terminate()
        raise
    if status != "COMMIT":
        raise AssertionError(f"a failed transaction was committed: {status}")


def account_setting(account_id: str) -> str:
    """The statement that names the account of a transaction."""
    return f"SET LOCAL app.account = '{check_account_id(account_id)}'"
