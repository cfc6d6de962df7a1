"""The database that all tests share: one per run, migrated once; a test makes an account of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

# The launcher forks to start PostgreSQL as another user; gRPC's fork handlers would write into that child's output.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

import asyncpg
import hypothesis
import pytest

from billing_server.embedded_postgres import EmbeddedPostgres
from billing_server.embedded_postgres.leftovers import postgres_process_ids
from billing_server.store.migrate import migrate

# How long an example takes, and how long it takes to think of one, says nothing on a machine that pauses.
hypothesis.settings.register_profile(
    "billing", hypothesis.settings.default, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("billing")

# Tests kill processes, never the power: what the kernel has in its cache survives them, so waiting for the
# disk would prove nothing. Commits stay synchronous, because losing those is what tests must notice.
POSTGRES_SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "128MB"}

END_SECONDS_MAX = 120.0


@contextmanager
def temporary_data_directory() -> Iterator[Path]:
    """A data directory that an unprivileged PostgreSQL can reach (pytest's own are closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="billing-test-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        for parent in (directory, directory / ".data"):
            # Where even the temporary folder is closed to others, the data lies elsewhere, behind a link.
            home = (parent / "postgres").resolve()
            _wait_until_nobody_writes(home / "cluster")
            shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(directory)


def _wait_until_nobody_writes(cluster: Path) -> None:
    """The PostgreSQL of a server that was killed ends by itself; until then there are new files in its folder."""
    give_up_at = time.monotonic() + END_SECONDS_MAX
    while running := postgres_process_ids(cluster):
        assert time.monotonic() < give_up_at, f"PostgreSQL outlives its server in {cluster}: {sorted(running)}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
async def database_url() -> AsyncIterator[str]:
    """URL of a migrated PostgreSQL: BILLING_TEST_DATABASE_URL, or an embedded one that ends with the run."""
    given = os.environ.get("BILLING_TEST_DATABASE_URL")
    if given:
        await migrate(given)
        yield given
        return
    with (
        temporary_data_directory() as directory,
        EmbeddedPostgres(directory, settings=POSTGRES_SETTINGS) as postgres,
    ):
        await migrate(postgres.database_url)
        yield postgres.database_url


@pytest.fixture
async def empty_database_url(database_url: str) -> AsyncIterator[str]:
    """URL of a database of its own without any table, on the server of `database_url`."""
    async with temporary_database(database_url) as url:
        yield url


@asynccontextmanager
async def temporary_database(server_url: str) -> AsyncIterator[str]:
    """URL of a new database without any table beside that of the given URL; dropped at the end."""
    name = f"test_{uuid.uuid4().hex}"
    await _administer(server_url, f"CREATE DATABASE {name}")
    server, _, parameters = server_url.partition("?")
    yield f"{server.rpartition('/')[0]}/{name}?{parameters}"
    await _administer(server_url, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement, timeout=120)
    finally:
        await connection.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start processes go first: before gRPC's threads run in this one, which forking would upset."""
    items.sort(key=lambda item: "/tests/start/" not in item.path.as_posix())
