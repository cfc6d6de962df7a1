"""The database that is harmed: an embedded PostgreSQL that is shot, and ways to it that are cut or slow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import asyncpg

from billing_server.embedded_postgres import EmbeddedPostgres
from tests.conftest import POSTGRES_SETTINGS, temporary_data_directory
from tests.proxy import Proxy, proxy_to

DIE_SECONDS_MAX: Final = 60.0

# A commit that was not waited for is lost for certain when PostgreSQL is shot, not only perhaps.
_SETTINGS: Final = {**POSTGRES_SETTINGS, "wal_writer_delay": "10000ms", "wal_writer_flush_after": "1GB"}


class Database:
    """A database as the harness sees it: as its owner, past everything."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        """A statement; its rows by their columns."""
        connection = await asyncpg.connect(self.url)
        try:
            return [dict(row) for row in await connection.fetch(statement, *parameters)]
        finally:
            await connection.close()


class HarmedDatabase(Database):
    """One PostgreSQL. Servers reach it by `ways`, each of which can be harmed alone."""

    def __init__(self, postgres: EmbeddedPostgres, ways: list[Proxy]) -> None:
        super().__init__(postgres.database_url)
        self._postgres = postgres
        self.ways = ways

    async def shoot(self) -> None:
        """What `pg_ctl stop -m immediate` does, and a start: PostgreSQL recovers from its log."""
        process_id = self._postgres.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGQUIT)
        give_up_at = time.monotonic() + DIE_SECONDS_MAX
        while self._postgres.process_id is not None and time.monotonic() < give_up_at:  # noqa: ASYNC110  # no event comes from another process
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self._postgres.stop)
        await asyncio.to_thread(self._postgres.start)


@contextlib.asynccontextmanager
async def harmed_database(number_of_ways: int) -> AsyncIterator[tuple[HarmedDatabase, Path]]:
    """A new database, and the folder for everything else of the run."""
    with temporary_data_directory() as folder, EmbeddedPostgres(folder, settings=_SETTINGS) as postgres:
        async with contextlib.AsyncExitStack() as stack:
            ways = [await stack.enter_async_context(proxy_to(postgres.database_url)) for _ in range(number_of_ways)]
            yield HarmedDatabase(postgres, ways), folder
