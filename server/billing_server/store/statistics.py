"""Keeping PostgreSQL's statistics in step with a young database.

Plans are made once per statement and kept. Made while a table was all but empty, a plan may read an account's
whole share of it for each row that it looks for, which is nothing then and ruinous some thousand rows later.
New statistics make all sessions plan anew; autovacuum gathers them within a minute or so, which is too late
for an import that begins with an empty database. So a process asks for them itself, when it has written its
first rows to a table. One that was sampled at such a size, and has not doubled since, is left to autovacuum; or each
process that starts would have all large tables sampled again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Final

import asyncpg

from billing_server.store.errors import DRIVER_ERRORS

LOGGER = logging.getLogger(__name__)

_MARKS: Final = (20, 500, 10_000)
"""Rows at which a table is analyzed: enough to prefer its keys, to see which columns tell rows apart, and then well."""

_SAMPLED: Final = """
SELECT c.reltuples >= $2 AND pg_relation_size(c.oid) <= 2 * c.relpages * current_setting('block_size')::bigint
FROM pg_class AS c
WHERE c.oid = $1::text::regclass AND EXISTS (
    SELECT FROM pg_stats AS s WHERE s.schemaname = 'public' AND s.tablename = $1
)
"""
"""Whether a table was sampled when it had so many rows, and has not more than doubled since."""

_SECONDS_MAX: Final = 30.0


class Statistics:
    """Counts what this process writes, and has young tables analyzed.

    ANALYZE is only for a table's owner. Where the server connects as somebody else, autovacuum has to do.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._written: Counter[str] = Counter()
        self._waiting: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def note(self, inserted: Mapping[str, int]) -> None:
        """Tell how many rows a committed transaction has added to each table."""
        for table, rows in inserted.items():
            before = self._written[table]
            self._written[table] = after = before + rows
            if any(before < mark <= after for mark in _MARKS):
                self._waiting.add(table)
        if self._waiting and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._analyze(), name="store-statistics")

    async def close(self) -> None:
        """Stop; what was not analyzed is left to autovacuum."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _analyze(self) -> None:
        try:
            connection = await asyncpg.connect(self._dsn, timeout=_SECONDS_MAX, statement_cache_size=0)
            try:
                await connection.execute("SET client_min_messages = error")
                while self._waiting:
                    table = self._waiting.pop()
                    rows = float(self._written[table])
                    if not await connection.fetchval(_SAMPLED, table, rows, timeout=_SECONDS_MAX):
                        await connection.execute(f"ANALYZE {table}", timeout=_SECONDS_MAX)
            finally:
                connection.terminate()
        except DRIVER_ERRORS as error:
            self._waiting.clear()
            LOGGER.warning("statistics of new tables could not be gathered: %r", error)
