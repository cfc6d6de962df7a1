"""The migration runner: order, exactly-once, refusals, and patience with tables in use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from billing_server.store import migrate as runner
from billing_server.store.migrate import (
    DatabaseNewer,
    MigrationChanged,
    MigrationFailed,
    MigrationFilesInvalid,
    MigrationLockTimeout,
    migrate,
    migrations_folder,
    read_migrations,
)

FIRST = "0001_make_letters.sql"
SECOND = "0002_add_letters.sql"
INDEX = "0003_index_letters.sql"

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


def test_the_projects_own_files_are_well_numbered() -> None:
    assert read_migrations(migrations_folder())
