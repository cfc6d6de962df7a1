"""The connections: how they are opened, whom they act for, and the transactions run on them.

Each connection becomes the role that owns nothing and bypasses nothing; each transaction names its one
account before anything else.

Every query of the store goes by keys, so plans are made once per statement and never hash, merge or scan whole
tables.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import asyncpg

from billing_server.store.errors import DRIVER_ERRORS, CommitUnknown, StoreUnavailable, translated
from billing_server.store.rows import decode_jsonb, encode_jsonb
from billing_server.store.statistics import Statistics
from billing_server.store.transaction_id import TransactionId

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
_RECOVERY: Final = "SELECT stats_reset::text FROM pg_stat_bgwriter"
_BEGIN_TRIES_MAX: Final = 3
_ACCOUNT_ID: Final = re.compile(r"[a-z0-9_]{1,64}")


class _PooledConnection(asyncpg.Connection):
    """A connection that is given back as it is: transactions leave nothing behind that needs a reset.

    `recovery` tells the crashes of PostgreSQL apart; no connection survives one. What PostgreSQL counts about itself
    begins anew with each recovery, and only then (or when somebody resets it), so the moment of that is the mark.
    """

    __slots__ = ("recovery",)

    recovery: str

    def get_reset_query(self) -> str:
        return ""


def check_account_id(account_id: str) -> str:
    """The id, if it may stand in SQL text. Raises ValueError otherwise: it would be a bug, never input."""
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise ValueError(f"not an account id: {account_id!r}")
    return account_id


async def _prepare(connection: asyncpg.Connection) -> None:
    """Teach a new connection how jsonb is passed through, and note after which crash of PostgreSQL it was made."""
    assert isinstance(connection, _PooledConnection)
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", encoder=encode_jsonb, decoder=decode_jsonb, format="binary"
    )
    connection.recovery = await connection.fetchval(_RECOVERY)


class Connection:
    """A connection whose errors are those of `store.errors`. Raises StoreError and its subclasses."""

    __slots__ = ("_raw", "broken")

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.broken = False

    @property
    def raw(self) -> Any:
        """The driver's connection; for giving it back to its pool."""
        return self._raw

    @property
    def recovery(self) -> str:
        """After which crash of PostgreSQL the connection was made; see `TransactionId`."""
        mark: str = self._raw.recovery
        return mark

    async def fetch(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        """All rows of a query."""
        with translated():
            rows: list[asyncpg.Record] = await self._raw.fetch(query, *parameters)
            return rows

    async def fetchrow(self, query: str, *parameters: object) -> asyncpg.Record | None:
        """The first row of a query, if there is one."""
        with translated():
            row: asyncpg.Record | None = await self._raw.fetchrow(query, *parameters)
            return row

    async def fetchval(self, query: str, *parameters: object) -> Any:
        """The first column of the first row, if there is one."""
        with translated():
            return await self._raw.fetchval(query, *parameters)

    async def execute(self, query: str, *parameters: object) -> int:
        """Carry out a statement; return how many rows it touched (0 for those that touch none)."""
        with translated():
            status: str = await self._raw.execute(query, *parameters)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def roll_back(self) -> None:
        """End a transaction that failed; where even that fails, dropping the connection has the same effect."""
        try:
            await self._raw.execute("ROLLBACK")
        except DRIVER_ERRORS:
            self.broken = True

    async def commit(self) -> None:
        """End a transaction well. Raises StoreUnavailable when it is not known whether it has ended so."""
        with translated():
            status: str = await self._raw.execute("COMMIT")
        if status != "COMMIT":
            raise AssertionError(f"a failed transaction was committed: {status}")


class PoolWaits:
    """How often a connection was waited for, for how long in all, and how many wait now."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.waiting = 0


class Database:
    """A pool of connections to one PostgreSQL."""

    def __init__(self, pool: asyncpg.Pool, dsn: str, acquire_seconds_max: float) -> None:
        self._pool = pool
        self.dsn = dsn
        self._acquire_seconds_max = acquire_seconds_max
        self._statistics = Statistics(dsn)
        self.waits = PoolWaits()

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
                init=_prepare,
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
        connection = await self._acquire()
        try:
            yield connection
        finally:
            await self._give_back(connection)

    async def _acquire(self) -> Connection:
        began_at = time.monotonic()
        self.waits.waiting += 1
        try:
            with translated():
                return Connection(await self._pool.acquire(timeout=self._acquire_seconds_max))
        finally:
            self.waits.waiting -= 1
            self.waits.count += 1
            self.waits.seconds += time.monotonic() - began_at

    async def _give_back(self, connection: Connection) -> None:
        """Give a connection back; one that is broken or still in a transaction is dropped instead."""
        # A connection that was lost has left its pool by itself, and cannot even be asked any more.
        with contextlib.suppress(*DRIVER_ERRORS):
            if connection.broken or connection.raw.is_in_transaction():
                connection.raw.terminate()
            await self._pool.release(connection.raw)

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
        connection = await self._begin(f"{'BEGIN READ ONLY' if read_only else 'BEGIN'}; {settings}")
        transaction = Transaction(connection)
        try:
            try:
                yield transaction
            except BaseException:
                await connection.roll_back()
                raise
            await transaction.commit()
        finally:
            await self._give_back(connection)
        self._statistics.note(transaction.inserted)

    async def _begin(self, statements: str) -> Connection:
        """A connection with a transaction begun. After a restart of PostgreSQL the pool is full of dead ones."""
        for attempts_left in reversed(range(_BEGIN_TRIES_MAX)):
            connection = await self._acquire()
            try:
                await connection.execute(statements)
                return connection
            except StoreUnavailable:
                connection.broken = True
                await self._give_back(connection)
                if not attempts_left:
                    raise
            except BaseException:
                await self._give_back(connection)
                raise
        raise AssertionError("the last attempt returns or raises")


class Transaction:
    """A connection within a transaction.

    `id` says which one it is, once that is known; `inserted` counts new rows by table.
    """

    __slots__ = ("connection", "id", "inserted")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.id: TransactionId | None = None
        self.inserted: Counter[str] = Counter()

    def number(self, number: int) -> TransactionId:
        """Keep the number that PostgreSQL gave the transaction, and return what it can be asked for by."""
        self.id = TransactionId(number, self.connection.recovery)
        return self.id

    async def commit(self) -> None:
        """Commit. Raises CommitUnknown when the connection breaks meanwhile."""
        try:
            await self.connection.commit()
        except StoreUnavailable as error:
            raise CommitUnknown(self.id) from error


def account_setting(account_id: str) -> str:
    """The statement that names the account of a transaction."""
    return f"SET LOCAL app.account = '{check_account_id(account_id)}'"
