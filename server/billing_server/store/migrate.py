"""Brings a database to the schema of this program, by the numbered files of migrations/.

    MigrationError
    |- MigrationFilesInvalid   the folder's names or numbers are wrong (a mistake in the program)
    |- MigrationChanged        a file that was applied has been edited since
    |- DatabaseNewer           the database knows migrations that this program does not
    |- MigrationFailed         a file's SQL failed; its transaction was rolled back
    `- MigrationLockTimeout    another process has been migrating for too long

What a file may contain, and how schema changes go without downtime, is said in migrations/README.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import asyncpg

LOGGER = logging.getLogger(__name__)

# Two processes that start at once must not both migrate. `pg_advisory_lock` would wait inside a query, whose
# snapshot CREATE INDEX CONCURRENTLY waits for in turn: a deadlock. So the lock is polled for.
_LOCK_KEY = 0x62696C6C
_LOCK_POLL_SECONDS = 0.1
_LOCK_SECONDS_MAX = 600.0

# A statement waiting for its table's lock makes every later query of that table wait behind it. Give up
# early and try again instead.
_TABLE_LOCK_TIMEOUT_MS = 3_000
_TABLE_LOCK_TRIES_MAX = 20
_TABLE_LOCK_PAUSE_SECONDS = 1.0

_FILE_NAME = re.compile(r"(?P<number>\d{4})_[a-z0-9_]+\.sql")
_WITHOUT_TRANSACTION = "-- billing: without transaction"

_CREATE_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(Exception):
    """The database was not brought to this program's schema; the message says why and what to do."""


class MigrationFilesInvalid(MigrationError):
    """The folder of migrations is missing, or its files are not numbered 0001, 0002 and so on."""


class MigrationChanged(MigrationError):
    """A migration was edited after it had been applied."""


class DatabaseNewer(MigrationError):
    """The database carries migrations that this program does not know."""


class MigrationFailed(MigrationError):
    """PostgreSQL refused a migration."""


class MigrationLockTimeout(MigrationError):
    """Another process kept migrating this database for longer than anyone should wait."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of migrations/: its name, its SQL, and the digest that shows later edits."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, the same on systems that end lines differently."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def without_transaction(self) -> bool:
        """Whether the file asks to run outside a transaction, as CREATE INDEX CONCURRENTLY must."""
        return self.sql.startswith(_WITHOUT_TRANSACTION)


async def migrate(database_url: str, folder: Path | None = None) -> list[str]:
    """Apply the migrations that the database lacks, in order, and return their names.

    Safe to call from many processes at once: one applies, the others wait and find nothing to do. The
    connecting role must own the schema. Raises MigrationError and, where the database cannot be reached,
    whatever asyncpg raises.
    """
    migrations = read_migrations(folder or migrations_folder())
    connection = await asyncpg.connect(database_url, timeout=30, statement_cache_size=0)
    try:
        # The role's own limits are for the engine's short transactions, not for building an index.
        await connection.execute("SET statement_timeout = 0; SET client_min_messages = warning")
        await _take_lock(connection)
        try:
            return await _apply_missing(connection, migrations)
        finally:
            await connection.execute(f"SELECT pg_advisory_unlock({_LOCK_KEY})")
    finally:
        await connection.close(timeout=10)


def migrations_folder() -> Path:
    """Folder of the numbered files: inside the package when installed, beside server/ in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "migrations"


def read_migrations(folder: Path) -> list[Migration]:
    """Read the folder's SQL files in order. Raises MigrationFilesInvalid on wrong names, gaps or doubles."""
    if not folder.is_dir():
        raise MigrationFilesInvalid(f"There is no folder of migrations at {folder}. Reinstall the server.")
    paths = sorted(folder.glob("*.sql"))
    for expected_number, path in enumerate(paths, start=1):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None or int(match["number"]) != expected_number:
            raise MigrationFilesInvalid(
                f"{path.name} should be migration {expected_number:04}: files are named "
                "NNNN_what_it_does.sql and numbered from 0001 without a gap or a double."
            )
    return [Migration(path.name, path.read_text(encoding="utf-8")) for path in paths]


async def _take_lock(connection: asyncpg.Connection) -> None:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _LOCK_SECONDS_MAX
    while not await connection.fetchval(f"SELECT pg_try_advisory_lock({_LOCK_KEY})"):
        if loop.time() > give_up_at:
            raise MigrationLockTimeout(
                f"Another process has been migrating this database for {_LOCK_SECONDS_MAX:.0f} seconds. See "
                "in pg_stat_activity what it does, and start this server when it is done."
            )
        await asyncio.sleep(_LOCK_POLL_SECONDS)


async def _apply_missing(connection: asyncpg.Connection, migrations: list[Migration]) -> list[str]:
    await connection.execute(_CREATE_RECORD)
    rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
    applied: dict[str, str] = {row["name"]: row["checksum"] for row in rows}
    _refuse_unknown(applied, migrations)
    _refuse_changed(applied, migrations)
    missing = [migration for migration in migrations if migration.name not in applied]
    for migration in missing:
        await _apply_with_patience(connection, migration)
        LOGGER.info("applied migration %s", migration.name)
    return [migration.name for migration in missing]


def _refuse_unknown(applied: dict[str, str], migrations: list[Migration]) -> None:
    unknown = sorted(applied.keys() - {migration.name for migration in migrations})
    if unknown:
        raise DatabaseNewer(
            f"The database has migrations that this program does not know ({', '.join(unknown)}): a newer "
            "release has used it. Run that release or a newer one, or restore a backup from before it."
        )


def _refuse_changed(applied: dict[str, str], migrations: list[Migration]) -> None:
    for migration in migrations:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationChanged(
                f"{migration.name} was edited after it had been applied to this database. Restore its text "
                "(git log shows it) and put the change into a new migration."
            )


async def _apply_with_patience(connection: asyncpg.Connection, migration: Migration) -> None:
    for tries_left in reversed(range(_TABLE_LOCK_TRIES_MAX)):
        try:
            await _apply(connection, migration)
            return
        except asyncpg.LockNotAvailableError as error:
            if not tries_left:
                raise MigrationFailed(
                    f"{migration.name} could not lock its tables: other transactions hold them. End the long "
                    "ones that pg_stat_activity shows, and start again."
                ) from error
            LOGGER.warning("migration %s waits for tables in use; trying again", migration.name)
            await asyncio.sleep(_TABLE_LOCK_PAUSE_SECONDS)
        except asyncpg.PostgresError as error:
            raise MigrationFailed(f"{migration.name} failed: {error}") from error


async def _apply(connection: asyncpg.Connection, migration: Migration) -> None:
    if migration.without_transaction:
        await connection.execute(migration.sql)
        await _record(connection, migration)
        return
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {_TABLE_LOCK_TIMEOUT_MS}")
        await connection.execute(migration.sql)
        # A file may leave a role or a search path behind that must not reach the next statement.
        await connection.execute("RESET ROLE; RESET search_path")
        await _record(connection, migration)


async def _record(connection: asyncpg.Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)", migration.name, migration.checksum
    )
