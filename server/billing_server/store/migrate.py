"""Brings a database to the schema of this program, by the numbered files of migrations/.

    MigrationError
    |- MigrationFilesInvalid   the folder's names or numbers are wrong (a mistake in the program)
    |- MigrationChanged        a file that was applied has been edited since
    |- DatabaseNewer           the database no longer has what this program works with
    |- OlderServersRun         a file would take away what servers that run still work with
    |- MigrationFailed         a file's SQL failed; its transaction was rolled back
    `- MigrationLockTimeout    another process has been migrating for too long

A program may be older than its database. Each file says in its first lines which programs can go on after it, that is
recorded beside its name, and so an older program knows whether what it does not know about concerns it. Servers that
run announce what they know (`announce`), so that nothing is taken away from them.

What a file may contain, and how schema changes go without downtime, is said in migrations/README.md.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

LOGGER = logging.getLogger(__name__)

OLDEST_POSTGRES: Final = 15
"""The oldest major version of PostgreSQL whose SQL has all that the engine uses."""

# Two processes that start at once must not both migrate. `pg_advisory_lock` would wait inside a query, whose
# snapshot CREATE INDEX CONCURRENTLY waits for in turn: a deadlock. So the lock is polled for.
_LOCK_KEY = 0x62696C6C
_LOCK_POLL_SECONDS = 0.1
_LOCK_SECONDS_MAX = 600.0

# Servers hold a shared lock of this class, whose key is the number of the newest migration that they know.
_SERVERS_LOCK_CLASS = 0x62696C73

# A statement waiting for its table's lock makes every later query of that table wait behind it. Give up
# early and try again instead.
_TABLE_LOCK_TIMEOUT_MS = 3_000
_TABLE_LOCK_TRIES_MAX = 20
_TABLE_LOCK_PAUSE_SECONDS = 1.0

_FILE_NAME = re.compile(r"(?P<number>\d{4})_[a-z0-9_]+\.sql")
_DIRECTIVE: Final = "-- billing: "
_WITHOUT_TRANSACTION: Final = "without transaction"
_EXPANDS: Final = "expands"
_NEEDS = re.compile(r"needs programs from (\d{4}) on")
_DIRECTIVES_TELL: Final = (
    f'"{_DIRECTIVE}" is followed by "{_EXPANDS}", "needs programs from NNNN on" or "{_WITHOUT_TRANSACTION}"'
)

_CREATE_RECORD = """
CREATE TABLE schema_migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    needs integer
)
"""
# Databases from before programs could be older than theirs.
_ADD_NEEDS = "ALTER TABLE schema_migrations ADD COLUMN needs integer"
_RECORD_COLUMNS = """
SELECT attname::text AS name FROM pg_attribute
WHERE attrelid = to_regclass('schema_migrations') AND attnum > 0 AND NOT attisdropped
"""
_OLDER_SERVERS = """
SELECT DISTINCT objid::bigint AS known FROM pg_locks
WHERE locktype = 'advisory' AND classid::bigint = $1 AND objsubid = 2 AND objid::bigint < $2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY known
"""
_INVALID_INDEXES = """
SELECT relname::text AS name, indexrelid::regclass::text AS qualified
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace
"""


_LOST: Final = (OSError, asyncpg.PostgresConnectionError, asyncpg.OperatorInterventionError, asyncpg.InterfaceError)
_REFUSALS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


class MigrationError(Exception):
    """The database was not brought to this program's schema; the message says why and what to do."""


class MigrationFilesInvalid(MigrationError):
    """The folder of migrations is missing, or its files are not numbered 0001, 0002 and so on."""


class MigrationChanged(MigrationError):
    """A migration was edited after it had been applied."""


class DatabaseNewer(MigrationError):
    """The database carries migrations that this program does not know, and cannot work with."""


class OlderServersRun(MigrationError):
    """A migration takes away what servers of an older release, which are connected, work with."""


class MigrationFailed(MigrationError):
    """PostgreSQL refused a migration."""


class DatabaseUnusable(MigrationError):
    """PostgreSQL cannot be reached, does not let this role in or work, or is too old."""


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
    def directives(self) -> list[str]:
        """What the file's first lines tell the runner."""
        found = []
        for line in self.sql.splitlines():
            if not line.startswith(_DIRECTIVE):
                break
            found.append(line.removeprefix(_DIRECTIVE).strip())
        return found

    @property
    def without_transaction(self) -> bool:
        """Whether the file asks to run outside a transaction, as CREATE INDEX CONCURRENTLY must."""
        return _WITHOUT_TRANSACTION in self.directives

    @property
    def needs(self) -> int | None:
        """The number of the migration that a program must know to work after this one: 0 when this one only adds.

        None where the file does not say: then only programs that know the file itself.
        """
        for directive in self.directives:
            if directive == _EXPANDS:
                return 0
            if match := _NEEDS.fullmatch(directive):
                return int(match[1])
        return None


class _Applied(NamedTuple):
    """What is recorded of a migration beside its name."""

    checksum: str
    needs: int | None


async def migrate(database_url: str, folder: Path | None = None) -> list[str]:
    """Apply the migrations that the database lacks, in order, and return their names.

    Safe to call from many processes at once: one applies, the others wait and find nothing to do. A database that
    has more than these migrations is left alone, if it still serves a program that knows no more. The
    connecting role must own the schema. Raises MigrationError.
    """
    migrations = read_migrations(folder or migrations_folder())
    connection = await _connect(database_url)
    try:
        # The role's own limits are for the engine's short transactions, not for building an index.
        await connection.execute("SET statement_timeout = 0; SET client_min_messages = warning")
        await _take_lock(connection)
        try:
            return await _apply_missing(connection, migrations)
        finally:
            await connection.execute(f"SELECT pg_advisory_unlock({_LOCK_KEY})")
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseUnusable(
            f"The role of BILLING_DATABASE_URL may not change the database's schema: {error}. Make it the owner of the "
            "database, or of the schema that its search_path begins with."
        ) from error
    except _LOST as error:
        raise DatabaseUnusable(f"The database went away while it was migrated: {error}. Start again.") from error
    finally:
        await connection.close(timeout=10)


async def _connect(database_url: str) -> asyncpg.Connection:
    try:
        connection = await asyncpg.connect(database_url, timeout=30, statement_cache_size=0)
    except _REFUSALS as error:
        raise DatabaseUnusable(
            f"No connection to the database: {str(error) or 'it does not answer'}. See whether PostgreSQL runs there, "
            "and whether BILLING_DATABASE_URL names the host, database, user and password that it knows."
        ) from error
    version = connection.get_server_version().major
    if version < OLDEST_POSTGRES:
        await connection.close(timeout=10)
        raise DatabaseUnusable(
            f"The database is PostgreSQL {version}; it has to be {OLDEST_POSTGRES} or newer. Upgrade it, or name "
            "another one in BILLING_DATABASE_URL."
        )
    return connection


async def announce(connection: asyncpg.Connection) -> None:
    """Let runners of migrations know that a server of this release is there, for as long as the connection lives."""
    await connection.execute("SELECT pg_advisory_lock_shared($1, $2)", _SERVERS_LOCK_CLASS, newest_known())


@functools.cache
def newest_known() -> int:
    """The number of the newest migration that this program knows."""
    return len(read_migrations(migrations_folder()))


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
    migrations = [Migration(path.name, path.read_text(encoding="utf-8")) for path in paths]
    for number, migration in enumerate(migrations, start=1):
        _refuse_unclear(migration, number)
    return migrations


def _refuse_unclear(migration: Migration, number: int) -> None:
    for directive in migration.directives:
        if directive not in (_EXPANDS, _WITHOUT_TRANSACTION) and _NEEDS.fullmatch(directive) is None:
            raise MigrationFilesInvalid(f"{migration.name} begins with {directive!r}: {_DIRECTIVES_TELL}.")
    if migration.needs is not None and migration.needs >= number:
        raise MigrationFilesInvalid(
            f"{migration.name} needs programs that know {migration.needs:04}: name one before it, whose release was "
            "the first to do without what this file takes away."
        )


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
    applied = await _read_record(connection)
    _refuse_unknown(applied, migrations)
    _refuse_changed(applied, migrations)
    missing = [migration for migration in migrations if migration.name not in applied]
    for migration in missing:
        await _refuse_to_break(connection, migration)
        await _apply_with_patience(connection, migration)
        LOGGER.info("applied migration %s", migration.name)
    return [migration.name for migration in missing]


async def _read_record(connection: asyncpg.Connection) -> dict[str, _Applied]:
    columns = {row["name"] for row in await connection.fetch(_RECORD_COLUMNS)}
    if "needs" not in columns:
        await connection.execute(_ADD_NEEDS if columns else _CREATE_RECORD)
    rows = await connection.fetch("SELECT name, checksum, needs FROM schema_migrations")
    return {row["name"]: _Applied(row["checksum"], row["needs"]) for row in rows}


def _refuse_unknown(applied: Mapping[str, _Applied], migrations: Sequence[Migration]) -> None:
    """A database may know more than this program, as long as it only got more."""
    unknown = sorted(applied.keys() - {migration.name for migration in migrations})
    known = len(migrations)
    beyond = [name for name in unknown if not _serves(applied[name], known) or int(name[:4]) <= known]
    if beyond:
        raise DatabaseNewer(
            f"The database has migrations after which this program cannot work ({', '.join(beyond)}): a newer "
            "release has used it. Run that release or a newer one, or restore a backup from before it."
        )
    if unknown:
        LOGGER.warning("a newer release has added to the database (%s); this one works on", ", ".join(unknown))


def _serves(applied: _Applied, known: int) -> bool:
    return applied.needs is not None and applied.needs <= known


def _refuse_changed(applied: Mapping[str, _Applied], migrations: Sequence[Migration]) -> None:
    for migration in migrations:
        known = applied.get(migration.name)
        if known is not None and known.checksum != migration.checksum:
            raise MigrationChanged(
                f"{migration.name} was edited after it had been applied to this database. Restore its text "
                "(git log shows it) and put the change into a new migration."
            )


async def _refuse_to_break(connection: asyncpg.Connection, migration: Migration) -> None:
    """Take nothing away from servers that are connected and still work with it."""
    if not migration.needs:
        return
    older = await connection.fetch(_OLDER_SERVERS, _SERVERS_LOCK_CLASS, migration.needs)
    if older:
        known = ", ".join(f"{row['known']:04}" for row in older)
        raise OlderServersRun(
            f"{migration.name} needs programs that know migration {migration.needs:04}, but servers are running that "
            f"know {known} at most. Upgrade them to a release in between first, or stop them, and start again."
        )


async def _apply_with_patience(connection: asyncpg.Connection, migration: Migration) -> None:
    for tries_left in reversed(range(_TABLE_LOCK_TRIES_MAX)):
        try:
            await _apply(connection, migration)
            return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
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
        await _drop_unfinished(connection, migration)
        await connection.execute(migration.sql)
        await _record(connection, migration)
        return
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {_TABLE_LOCK_TIMEOUT_MS}")
        await connection.execute(migration.sql)
        # A file may leave a role or a search path behind that must not reach the next statement.
        await connection.execute("RESET ROLE; RESET search_path")
        await _record(connection, migration)


async def _drop_unfinished(connection: asyncpg.Connection, migration: Migration) -> None:
    """Make room for the file's index: an interrupted build leaves one behind that is never used.

    Its name is taken, so IF NOT EXISTS would pass over it and leave the database without the index for good.
    """
    for row in await connection.fetch(_INVALID_INDEXES):
        if re.search(rf"\b{re.escape(row['name'])}\b", migration.sql):
            LOGGER.warning("building %s was interrupted; it is built anew", row["name"])
            await connection.execute(f"DROP INDEX CONCURRENTLY {row['qualified']}")


async def _record(connection: asyncpg.Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO schema_migrations (name, checksum, needs) VALUES ($1, $2, $3)",
        migration.name,
        migration.checksum,
        migration.needs,
    )
