"""The embedded PostgreSQL: first start, restarts, crashes of it and of its server, users and places."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from billing_server.embedded_postgres import (
    DataDirectoryHeld,
    DataDirectoryUnusable,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    PostgresNotStarted,
    placement,
)
from billing_server.embedded_postgres import cluster as cluster_module
from billing_server.embedded_postgres.leftovers import postgres_process_ids
from tests.conftest import POSTGRES_SETTINGS, temporary_data_directory

StartServer = Callable[[], tuple[subprocess.Popen[str], int]]

AS_ROOT = os.geteuid() == 0

# A server reduced to its database: starts it, says which process watches over it, and waits for its end.
SERVER = """
import pathlib, signal, sys
from billing_server.embedded_postgres import EmbeddedPostgres
postgres = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
postgres.start()
print(postgres._watcher.pid, flush=True)
signal.signal(signal.SIGTERM, lambda *_: (postgres.stop(), sys.exit(0)))
signal.pause()
"""

# The same, but everything that only root can see is looked at before root is given up.
SERVER_AS_ORDINARY_USER = """
import asyncio, getpass, os, pathlib, pwd, sys
import asyncpg
from billing_server.embedded_postgres import EmbeddedPostgres, placement

directory = pathlib.Path(sys.argv[1])
installation = placement.packaged_installation()
if os.geteuid() == 0:
    account = pwd.getpwnam("nobody")
    user = placement.DatabaseUser(account.pw_name, account.pw_uid, account.pw_gid)
    installation = placement.reachable_installation(installation, user)
    os.chown(directory, account.pw_uid, account.pw_gid)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)

async def count():
    connection = await asyncpg.connect(postgres.database_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS starts (at timestamptz DEFAULT now())")
    await connection.execute("INSERT INTO starts DEFAULT VALUES")
    print(await connection.fetchval("SELECT count(*) FROM starts"))
    await connection.close()

for _ in range(2):
    with EmbeddedPostgres(directory, installation=installation) as postgres:
        asyncio.run(count())
print((directory / "postgres" / "cluster").owner(), (directory / "postgres").is_symlink())
"""


@pytest.fixture
def data_directory() -> Iterator[Path]:
    with temporary_data_directory() as directory:
        yield directory


@pytest.fixture
def start_server(data_directory: Path) -> Iterator[StartServer]:
    """Starts the reduced server and returns it with its watcher's process id; ends what is left running."""
    servers: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-c", SERVER, str(data_directory)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        servers.append(server)
        assert server.stdout is not None
        return server, int(server.stdout.readline())

    yield start
    for server in servers:
        server.terminate()
        server.communicate(timeout=60)


async def execute(database_url: str, *statements: str) -> object:
    """Execute the statements and return the first value of the last one."""
    connection = await asyncpg.connect(database_url)
    try:
        return [await connection.fetchval(statement) for statement in statements][-1]
    finally:
        await connection.close()


def kill_all(process_ids: set[int]) -> None:
    for process_id in sorted(process_ids):
        # The death of one may already have ended another.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def folder_mode(folder: Path) -> int | None:
    """Permission bits of the folder, None when it does not exist."""
    return folder.stat().st_mode & 0o777 if folder.is_dir() else None


def wait_until_nothing_runs(cluster: Path) -> None:
    """Its children, the one that writes the log above all, end a moment after PostgreSQL itself."""
    give_up_at = time.monotonic() + 60
    while postgres_process_ids(cluster):
        assert time.monotonic() < give_up_at, "PostgreSQL outlived its server"
        time.sleep(0.02)


async def test_data_survives_a_stop_and_a_start(data_directory: Path) -> None:
    with EmbeddedPostgres(data_directory) as postgres:
        await execute(postgres.database_url, "CREATE TABLE kept ()", "INSERT INTO kept DEFAULT VALUES")
        assert postgres.process_id in postgres_process_ids(data_directory / "postgres" / "cluster")
    assert postgres.process_id is None
    wait_until_nothing_runs(data_directory / "postgres" / "cluster")
    with EmbeddedPostgres(data_directory) as postgres:
        assert await execute(postgres.database_url, "SELECT count(*) FROM kept") == 1


async def test_is_durable_and_closed_to_others(data_directory: Path) -> None:
    with EmbeddedPostgres(data_directory) as postgres:
        wanted = {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "data_checksums": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
            "timezone": "UTC",
        }
        found = {name: await execute(postgres.database_url, f"SHOW {name}") for name in wanted}
        assert found == wanted
        home = data_directory / "postgres"
        assert folder_mode(home / "cluster") == 0o700
        assert folder_mode(home / "socket") == 0o700


async def test_all_its_processes_may_be_killed(data_directory: Path) -> None:
    """The committed survives, whether the server notices (stop, start) or is restarted itself."""
    with EmbeddedPostgres(data_directory) as postgres:
        await execute(postgres.database_url, "CREATE TABLE kept ()")
        for expected in range(1, 3):
            await execute(postgres.database_url, "INSERT INTO kept DEFAULT VALUES")
            kill_all(postgres_process_ids(data_directory / "postgres" / "cluster"))
            postgres.stop()
            postgres.start()
            assert await execute(postgres.database_url, "SELECT count(*) FROM kept") == expected


async def test_its_postmaster_alone_may_be_killed(data_directory: Path) -> None:
    """Orphaned backends hold the shared memory for a moment; the start waits for them."""
    with EmbeddedPostgres(data_directory) as postgres:
        await execute(postgres.database_url, "CREATE TABLE kept ()")
        for _ in range(3):
            assert postgres.process_id is not None
            os.kill(postgres.process_id, signal.SIGKILL)
            postgres.stop()
            postgres.start()
            assert await execute(postgres.database_url, "SELECT count(*) FROM kept") == 0


def test_stops_while_it_recovers(data_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown that arrives while PostgreSQL replaces its dead processes may hang: then it is forced."""
    monkeypatch.setattr(cluster_module, "_STOP_SECONDS_MAX", 0.5)
    for _ in range(3):
        with EmbeddedPostgres(data_directory) as postgres:
            running = postgres_process_ids(data_directory / "postgres" / "cluster")
            assert postgres.process_id is not None
            kill_all(running - {postgres.process_id})
        wait_until_nothing_runs(data_directory / "postgres" / "cluster")


def test_ends_when_its_server_is_killed(data_directory: Path, start_server: StartServer) -> None:
    server, _ = start_server()
    server.kill()
    server.communicate()
    wait_until_nothing_runs(data_directory / "postgres" / "cluster")


async def test_starts_at_once_after_its_server_was_killed(data_directory: Path, start_server: StartServer) -> None:
    """The old PostgreSQL may be shutting down, or run on because its watcher was killed, too."""
    cluster = data_directory / "postgres" / "cluster"
    for kill_watcher in (False, True, False):
        server, watcher_id = start_server()
        if kill_watcher:
            os.kill(watcher_id, signal.SIGKILL)
        server.kill()
        server.communicate()
        assert bool(postgres_process_ids(cluster)) or not kill_watcher
    with EmbeddedPostgres(data_directory) as postgres:
        assert await execute(postgres.database_url, "SELECT 1") == 1


def test_a_second_server_is_told_who_holds_the_directory(data_directory: Path, start_server: StartServer) -> None:
    server, _ = start_server()
    with pytest.raises(DataDirectoryHeld) as caught:
        EmbeddedPostgres(data_directory).start()
    message = str(caught.value)
    assert f"(process {server.pid})" in message
    assert str(data_directory) in message
    assert "BILLING_DATA_DIR" in message
    server.terminate()
    server.communicate(timeout=60)
    with EmbeddedPostgres(data_directory):
        pass


def test_starts_once_only(data_directory: Path) -> None:
    with EmbeddedPostgres(data_directory) as postgres:
        with pytest.raises(EmbeddedPostgresError, match="started already"):
            postgres.start()
        assert postgres.process_id is not None
    with pytest.raises(EmbeddedPostgresError, match="not started"):
        _ = postgres.database_url
    postgres.stop()


def test_a_lock_file_of_another_life_is_no_obstacle(data_directory: Path) -> None:
    """In a container ids repeat: the old postmaster's may now be this very test's."""
    with EmbeddedPostgres(data_directory):
        lock_file = data_directory / "postgres" / "cluster" / "postmaster.pid"
        text = lock_file.read_text()
    lock_file.write_text(text.replace(text.splitlines()[0], str(os.getpid()), 1))
    with EmbeddedPostgres(data_directory) as postgres:
        assert postgres.process_id is not None


def test_an_interrupted_first_start_is_begun_anew(data_directory: Path) -> None:
    half_made = data_directory / "postgres" / "cluster.new-1234"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(data_directory):
        assert not half_made.exists()


@pytest.mark.parametrize(
    ("name", "socket_stays"),
    [
        pytest.param('it\'s a "strange" \\ place, è', False, id="comma"),
        pytest.param('it\'s a "strange" \\ place: è', True, id="quotes"),
        pytest.param("long" * 30, False, id="longer than the path of a socket may be"),
    ],
)
async def test_works_below_any_path(data_directory: Path, name: str, socket_stays: bool) -> None:
    below = data_directory / name
    with EmbeddedPostgres(below, settings=POSTGRES_SETTINGS) as postgres:
        shown = str(await execute(postgres.database_url, "SHOW unix_socket_directories"))
        socket_folder = Path(shown[1:-1].replace('""', '"'))
        assert (socket_folder == below / "postgres" / "socket") == socket_stays
        assert folder_mode(socket_folder) == 0o700
    assert folder_mode(socket_folder) == (0o700 if socket_stays else None)


def test_another_major_version_is_refused(data_directory: Path) -> None:
    with EmbeddedPostgres(data_directory):
        pass
    (data_directory / "postgres" / "cluster" / "PG_VERSION").write_text("15\n")
    with pytest.raises(DataDirectoryUnusable, match=r"made by PostgreSQL 15.*pg_dump"):
        EmbeddedPostgres(data_directory).start()


def test_a_failing_start_quotes_the_log_and_frees_the_directory(data_directory: Path) -> None:
    with pytest.raises(PostgresNotStarted, match="no_such_setting"):
        EmbeddedPostgres(data_directory, settings={"no_such_setting": "1"}).start()
    with EmbeddedPostgres(data_directory):
        pass


def test_a_data_directory_that_is_a_file_is_refused(data_directory: Path) -> None:
    file = data_directory / "file"
    file.touch()
    with pytest.raises(DataDirectoryUnusable, match="BILLING_DATA_DIR"):
        EmbeddedPostgres(file).start()


def test_works_as_an_ordinary_user(data_directory: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", SERVER_AS_ORDINARY_USER, str(data_directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    user = "nobody" if AS_ROOT else pwd.getpwuid(os.geteuid()).pw_name
    assert finished.stdout == f"1\n2\n{user} False\n", finished.stderr


async def test_below_a_closed_folder_root_keeps_the_data_where_nobody_reaches_it(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout in a closed home folder; an ordinary user's own processes reach theirs where they are."""
    shared_state = data_directory / "shared-state"
    monkeypatch.setattr(placement, "SHARED_STATE", shared_state)
    closed = data_directory / "closed"
    closed.mkdir(mode=0o700)
    home = closed / ".data" / "postgres"
    for expected in range(2):
        with EmbeddedPostgres(closed / ".data") as postgres:
            await execute(postgres.database_url, "CREATE TABLE IF NOT EXISTS starts ()")
            assert await execute(postgres.database_url, "SELECT count(*) FROM starts") == expected
            await execute(postgres.database_url, "INSERT INTO starts DEFAULT VALUES")
        assert home.is_symlink() == AS_ROOT
        assert home.resolve().parent == (shared_state if AS_ROOT else closed / ".data")
    shutil.rmtree(home.resolve())
    if AS_ROOT:
        with pytest.raises(DataDirectoryUnusable, match="does not exist"):
            EmbeddedPostgres(closed / ".data").start()


def test_binaries_in_a_closed_folder_are_copied_for_nobody(
    data_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_state = data_directory / "shared-state"
    monkeypatch.setattr(placement, "SHARED_STATE", shared_state)
    closed = data_directory / "closed"
    closed.mkdir(mode=0o700)
    packaged = placement.packaged_installation()
    for folder in (packaged, packaged.parent.parent / "embedded_postgres.libs"):
        target = closed / folder.relative_to(packaged.parent.parent)
        shutil.copytree(folder, target, ignore=shutil.ignore_patterns("include", "pgxs", "*.a"))
    installation = closed / packaged.relative_to(packaged.parent.parent)
    for _ in range(2):
        with EmbeddedPostgres(data_directory, installation=installation) as postgres:
            assert postgres.process_id is not None
    assert shared_state.exists() == AS_ROOT


def test_data_of_another_user_is_left_alone(data_directory: Path) -> None:
    """Root acts as the owner of the data; anyone else is told whose it is."""
    with EmbeddedPostgres(data_directory):
        pass
    cluster = data_directory / "postgres" / "cluster"
    if AS_ROOT:
        owner = pwd.getpwnam("daemon")
        for path in [cluster, *cluster.rglob("*")]:
            os.chown(path, owner.pw_uid, owner.pw_gid)
        with EmbeddedPostgres(data_directory):
            assert (cluster / "postmaster.pid").owner() == "daemon"
    else:
        assert placement.database_user(cluster).user_id == os.geteuid()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 54321)
        with pytest.raises(DataDirectoryUnusable, match="belongs to user"):
            placement.database_user(cluster)
