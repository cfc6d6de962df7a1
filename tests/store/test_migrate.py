"""The migration runner: order, exactly-once, refusals, and patience with tables in use."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import pytest

from billing_server.store import migrate as runner
from billing_server.store.migrate import (
    DatabaseNewer,
    DatabaseUnusable,
    MigrationChanged,
    MigrationFailed,
    MigrationFilesInvalid,
    MigrationLockTimeout,
    OlderServersRun,
    announce,
    migrate,
    migrations_folder,
    newest_known,
    read_migrations,
)
from tests.conftest import temporary_database

FIRST = "0001_make_letters.sql"
SECOND = "0002_add_letters.sql"
INDEX = "0003_index_letters.sql"
ADDS = "0004_add_number.sql"
DROPS = "0005_drop_letter.sql"

FILES = {
    FIRST: "CREATE TABLE letters (letter text PRIMARY KEY);",
    SECOND: "INSERT INTO letters VALUES ('a'); INSERT INTO letters VALUES ('b');",
    INDEX: (
        "-- billing: without transaction\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS letters_upper ON letters (upper(letter));"
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, sql in FILES.items():
        (tmp_path / name).write_text(sql)
    return tmp_path


def with_role(database_url: str, role: str) -> str:
    """The same database, for another role."""
    parts = urlsplit(database_url)
    login = {"user": role, "password": "made up"}
    query = urlencode(dict(parse_qsl(parts.query)) | login)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


async def fetch_letters(database_url: str) -> list[str]:
    connection = await asyncpg.connect(database_url)
    try:
        return [row["letter"] for row in await connection.fetch("SELECT letter FROM letters ORDER BY letter")]
    finally:
        await connection.close()


async def test_applies_what_is_missing_in_order_and_once(empty_database_url: str, folder: Path) -> None:
    last = folder / INDEX
    held_back = last.read_text()
    last.unlink()
    assert await migrate(empty_database_url, folder) == [FIRST, SECOND]
    last.write_text(held_back)
    assert await migrate(empty_database_url, folder) == [INDEX]
    assert await migrate(empty_database_url, folder) == []
    assert await fetch_letters(empty_database_url) == ["a", "b"]


async def test_of_concurrent_runs_one_applies_and_none_fails(empty_database_url: str, folder: Path) -> None:
    """An index built concurrently waits for every snapshot, so a waiting run must not hold one."""
    runs = await asyncio.wait_for(asyncio.gather(*(migrate(empty_database_url, folder) for _ in range(5))), timeout=60)
    assert sorted(runs) == [[], [], [], [], list(FILES)]
    assert await fetch_letters(empty_database_url) == ["a", "b"]


async def test_a_run_does_not_wait_for_another_for_ever(
    empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_LOCK_SECONDS_MAX", 0.2)
    holder = await asyncpg.connect(empty_database_url)
    await holder.execute(f"SELECT pg_advisory_lock({runner._LOCK_KEY})")
    try:
        with pytest.raises(MigrationLockTimeout, match="pg_stat_activity"):
            await migrate(empty_database_url, folder)
    finally:
        await holder.close()


async def test_refuses_a_file_edited_after_it_was_applied(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, folder)
    (folder / SECOND).write_text("INSERT INTO letters VALUES ('z');")
    with pytest.raises(MigrationChanged, match=SECOND):
        await migrate(empty_database_url, folder)


async def test_other_line_ends_are_no_edit(empty_database_url: str, folder: Path) -> None:
    (folder / FIRST).write_bytes(b"CREATE TABLE letters\n(letter text PRIMARY KEY);")
    await migrate(empty_database_url, folder)
    (folder / FIRST).write_bytes(b"CREATE TABLE letters\r\n(letter text PRIMARY KEY);")
    assert await migrate(empty_database_url, folder) == []


async def test_refuses_a_database_of_a_newer_program(empty_database_url: str, folder: Path) -> None:
    await migrate(empty_database_url, folder)
    (folder / INDEX).unlink()
    with pytest.raises(DatabaseNewer, match=INDEX):
        await migrate(empty_database_url, folder)


async def upgrade(database_url: str, folder: Path, files: Mapping[str, str]) -> None:
    """What a newer release does to the database. The files are gone afterwards, as its program knows them alone."""
    for name, sql in files.items():
        (folder / name).write_text(sql)
    try:
        assert await migrate(database_url, folder) == list(files)
    finally:
        for name in files:
            (folder / name).unlink()


async def test_works_on_with_a_database_that_a_newer_program_has_only_added_to(
    empty_database_url: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(empty_database_url, folder)
    await upgrade(
        empty_database_url, folder, {ADDS: "-- billing: expands\nALTER TABLE letters ADD COLUMN number integer;"}
    )
    assert await migrate(empty_database_url, folder) == []
    assert f"({ADDS}); this one works on" in caplog.text


@pytest.mark.parametrize(
    ("needs", "serves"),
    [
        pytest.param("-- billing: needs programs from 0003 on\n", True, id="what this program knows"),
        pytest.param("-- billing: needs programs from 0004 on\n", False, id="more than this program knows"),
        pytest.param("", False, id="it does not say what"),
    ],
)
async def test_a_contracted_database_is_refused_by_programs_that_are_too_old(
    empty_database_url: str, folder: Path, needs: str, serves: bool
) -> None:
    await migrate(empty_database_url, folder)
    adds = {ADDS: "-- billing: expands\nALTER TABLE letters ADD COLUMN number integer;"}
    await upgrade(empty_database_url, folder, {**adds, DROPS: f"{needs}ALTER TABLE letters DROP COLUMN letter;"})
    if serves:
        assert await migrate(empty_database_url, folder) == []
    else:
        with pytest.raises(DatabaseNewer, match=rf"cannot work \({DROPS}\)"):
            await migrate(empty_database_url, folder)


async def test_a_file_of_another_branch_is_no_newer_release(empty_database_url: str, folder: Path) -> None:
    """It has the number of a file that this program knows under another name."""
    await migrate(empty_database_url, folder)
    await upgrade(empty_database_url, folder, {ADDS: "-- billing: expands\nSELECT 1;"})
    (folder / "0004_of_another_branch.sql").write_text("SELECT 1;")
    with pytest.raises(DatabaseNewer, match=ADDS):
        await migrate(empty_database_url, folder)


async def test_nothing_is_taken_away_from_servers_that_run(empty_database_url: str, folder: Path) -> None:
    """They are told by what they announce; one of another database is none of these."""
    newest = newest_known()
    for number in range(4, newest + 3):
        (folder / f"{number:04}_nothing.sql").write_text("-- billing: expands\nSELECT 1;")
    last = f"{newest + 3:04}_drop_letter.sql"
    (folder / last).write_text(
        f"-- billing: needs programs from {newest + 1:04} on\nALTER TABLE letters DROP COLUMN letter;"
    )
    server = await asyncpg.connect(empty_database_url)
    try:
        await announce(server)
        with pytest.raises(OlderServersRun, match=rf"{last} needs .* know {newest:04} at most"):
            await migrate(empty_database_url, folder)
        assert await fetch_letters(empty_database_url) == ["a", "b"]
        async with temporary_database(empty_database_url) as other_url:
            assert (await migrate(other_url, folder))[-1] == last
    finally:
        await server.close()
    assert await migrate(empty_database_url, folder) == [last]


async def test_servers_that_know_enough_are_in_nobodys_way(empty_database_url: str, folder: Path) -> None:
    newest = newest_known()
    for number in range(4, newest + 1):
        (folder / f"{number:04}_nothing.sql").write_text("-- billing: expands\nSELECT 1;")
    last = f"{newest + 1:04}_drop_letter.sql"
    (folder / last).write_text(
        f"-- billing: needs programs from {newest:04} on\nALTER TABLE letters DROP COLUMN letter;"
    )
    server = await asyncpg.connect(empty_database_url)
    try:
        await announce(server)
        assert (await migrate(empty_database_url, folder))[-1] == last
    finally:
        await server.close()


async def test_knows_databases_from_before_programs_could_be_older(empty_database_url: str, folder: Path) -> None:
    connection = await asyncpg.connect(empty_database_url)
    try:
        await migrate(empty_database_url, folder)
        await connection.execute("ALTER TABLE schema_migrations DROP COLUMN needs")
        (folder / ADDS).write_text("-- billing: expands\nALTER TABLE letters ADD COLUMN number integer;")
        assert await migrate(empty_database_url, folder) == [ADDS]
        rows = await connection.fetch("SELECT needs FROM schema_migrations ORDER BY name")
        assert [row["needs"] for row in rows] == [None, None, None, 0]
    finally:
        await connection.close()


async def test_an_interrupted_index_is_built_anew(empty_database_url: str, folder: Path) -> None:
    """What an interrupted build leaves has the name, and is never used; IF NOT EXISTS would pass over it."""
    held_back = (folder / INDEX).read_text()
    (folder / INDEX).unlink()
    await migrate(empty_database_url, folder)
    connection = await asyncpg.connect(empty_database_url)
    try:
        await connection.execute("CREATE TABLE twins AS SELECT 1 AS a FROM generate_series(1, 2)")
        for name, table, column in (("letters_upper", "letters", "(letter IS NULL)"), ("of_others", "twins", "a")):
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} ({column})")
        (folder / INDEX).write_text(held_back)
        assert await migrate(empty_database_url, folder) == [INDEX]
        rows = await connection.fetch(
            "SELECT indexrelid::regclass::text AS name, indisvalid, indisunique FROM pg_index "
            "WHERE indexrelid::regclass::text IN ('letters_upper', 'of_others') ORDER BY name"
        )
        assert [tuple(row) for row in rows] == [("letters_upper", True, False), ("of_others", False, True)]
    finally:
        await connection.close()


async def test_a_failing_file_leaves_nothing_and_its_predecessors_stay(empty_database_url: str, folder: Path) -> None:
    mended = (folder / SECOND).read_text()
    (folder / SECOND).write_text("INSERT INTO letters VALUES ('q'); SELECT 1 / 0;")
    with pytest.raises(MigrationFailed, match=rf"{SECOND} failed: division by zero"):
        await migrate(empty_database_url, folder)
    assert await fetch_letters(empty_database_url) == []
    (folder / SECOND).write_text(mended)
    assert await migrate(empty_database_url, folder) == [SECOND, INDEX]


async def test_waits_for_a_table_in_use_without_blocking_its_readers(
    empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_TABLE_LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(runner, "_TABLE_LOCK_PAUSE_SECONDS", 0.05)
    await migrate(empty_database_url, folder)
    (folder / "0004_add_number.sql").write_text("ALTER TABLE letters ADD COLUMN number integer;")
    reader = await asyncpg.connect(empty_database_url)
    try:
        transaction = reader.transaction()
        await transaction.start()
        await reader.execute("SELECT FROM letters")
        run = asyncio.create_task(migrate(empty_database_url, folder))
        # Another reader queues behind the waiting ALTER TABLE for one lock timeout at most.
        for _ in range(5):
            assert await fetch_letters(empty_database_url) == ["a", "b"]
        assert not run.done()
        await transaction.commit()
        assert await run == ["0004_add_number.sql"]
    finally:
        await reader.close()


async def test_gives_up_on_a_table_that_stays_in_use(
    empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_TABLE_LOCK_TIMEOUT_MS", 10)
    monkeypatch.setattr(runner, "_TABLE_LOCK_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(runner, "_TABLE_LOCK_TRIES_MAX", 3)
    await migrate(empty_database_url, folder)
    (folder / "0004_add_number.sql").write_text("ALTER TABLE letters ADD COLUMN number integer;")
    reader = await asyncpg.connect(empty_database_url)
    try:
        async with reader.transaction():
            await reader.execute("SELECT FROM letters")
            with pytest.raises(MigrationFailed, match="could not lock its tables"):
                await migrate(empty_database_url, folder)
    finally:
        await reader.close()


async def test_a_deadlock_with_the_engine_is_no_failure(empty_database_url: str, folder: Path) -> None:
    """A transaction that has the second table wants the first, which the migration has: PostgreSQL ends one of them."""
    (folder / ADDS).write_text("CREATE TABLE numbers (number integer);")
    await migrate(empty_database_url, folder)
    (folder / "0005_both.sql").write_text(
        "ALTER TABLE letters ADD COLUMN number integer; ALTER TABLE numbers ADD COLUMN letter text;"
    )
    engine = await asyncpg.connect(empty_database_url)
    try:
        transaction = engine.transaction()
        await transaction.start()
        await engine.execute("SELECT FROM numbers")
        run = asyncio.create_task(migrate(empty_database_url, folder))
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'letters'::regclass"
        while not await engine.fetchval(waiting):  # noqa: ASYNC110  # no event comes from another session
            await asyncio.sleep(0.01)
        # The migration has waited for longer, so it is the one that PostgreSQL ends, unless this machine dreams.
        with contextlib.suppress(asyncpg.DeadlockDetectedError):
            await engine.execute("SELECT FROM letters")
        await transaction.rollback()
        assert await run == ["0005_both.sql"]
    finally:
        await engine.close()


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["0002_second.sql"], id="does not begin with 1"),
        pytest.param(["0001_first.sql", "0003_third.sql"], id="gap"),
        pytest.param(["0001_first.sql", "0001_other.sql"], id="double"),
        pytest.param(["1_first.sql"], id="short number"),
        pytest.param(["0001-first.sql"], id="wrong separator"),
    ],
)
def test_refuses_wrongly_numbered_files(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(MigrationFilesInvalid, match="should be migration"):
        read_migrations(tmp_path)


def test_refuses_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MigrationFilesInvalid, match="no folder of migrations"):
        read_migrations(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("sql", "telling"),
    [
        pytest.param("-- billing: expand\nSELECT 1;", "begins with 'expand'", id="unknown"),
        pytest.param("-- billing: needs programs from 0001 on", "name one before it", id="needs itself"),
    ],
)
def test_refuses_unclear_directives(tmp_path: Path, sql: str, telling: str) -> None:
    (tmp_path / FIRST).write_text(sql)
    with pytest.raises(MigrationFilesInvalid, match=telling):
        read_migrations(tmp_path)


def test_a_file_may_have_several_directives(tmp_path: Path) -> None:
    (tmp_path / FIRST).write_text("-- billing: without transaction\n-- billing: expands\nSELECT 1;")
    (migration,) = read_migrations(tmp_path)
    assert (migration.without_transaction, migration.needs) == (True, 0)


def test_each_file_of_the_project_says_which_programs_go_on_after_it() -> None:
    """Those before 0008 could not say it yet, and are never edited."""
    migrations = read_migrations(migrations_folder())
    assert [migration.name for migration in migrations[7:] if migration.needs is None] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param(
            lambda _: "postgresql://someone:secret@127.0.0.1:1/billing", "Connect call failed", id="no server"
        ),
        pytest.param(
            lambda url: re.sub(r"/\w+\?", "/no_such_one?", url), '"no_such_one" does not exist', id="database"
        ),
        pytest.param(lambda url: with_role(url, "stranger"), '"stranger"', id="role"),
    ],
)
async def test_a_database_that_does_not_let_in_is_told_with_the_way_out(
    empty_database_url: str, change: Callable[[str], str], told: str
) -> None:
    with pytest.raises(DatabaseUnusable, match=f"(?s)^No connection.*{told}.*BILLING_DATABASE_URL") as refused:
        await migrate(change(empty_database_url))
    assert "secret" not in str(refused.value)


async def test_a_role_that_may_not_make_tables_is_told_what_it_needs(empty_database_url: str) -> None:
    owner = await asyncpg.connect(empty_database_url)
    await owner.execute("CREATE ROLE guest LOGIN PASSWORD 'made up'")
    try:
        with pytest.raises(DatabaseUnusable, match=r"permission denied .* Make it the owner"):
            await migrate(with_role(empty_database_url, "guest"))
    finally:
        await owner.execute("DROP ROLE guest")
        await owner.close()


async def test_a_postgresql_that_is_too_old_is_named(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "OLDEST_POSTGRES", 99)
    with pytest.raises(DatabaseUnusable, match=r"PostgreSQL \d\d; it has to be 99 or newer"):
        await migrate(empty_database_url)
