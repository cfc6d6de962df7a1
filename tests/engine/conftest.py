"""A world of its own for each test, on a database that the tests of the engine share."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from billing_server.engine.engine import Engine
from billing_server.store.database import Database
from billing_server.store.migrate import migrate
from tests.engine.world import CONNECT_SECONDS_MAX, World


@pytest.fixture(scope="session")
async def engine_database_url(database_url: str) -> AsyncIterator[str]:
    """A database for these tests alone: servers of other tests would bill its books, too."""
    name = f"engine_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
        server, _, parameters = database_url.partition("?")
        url = f"{server.rpartition('/')[0]}/{name}?{parameters}"
        await migrate(url)
        yield url
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture(scope="session")
async def database(engine_database_url: str) -> AsyncIterator[Database]:
    """Connections that the processes of all worlds share."""
    opened = await Database.open(
        engine_database_url, min_connections=4, max_connections=24, acquire_seconds_max=CONNECT_SECONDS_MAX
    )
    yield opened
    await opened.close()


@pytest.fixture
async def new_world(engine_database_url: str, database: Database) -> AsyncIterator[Callable[[], World]]:
    """Makes worlds without processes."""
    made: list[World] = []

    def make() -> World:
        made.append(World(engine_database_url, database))
        return made[-1]

    yield make
    for world in made:
        await world.close()


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    """A world without processes."""
    return new_world()


@pytest.fixture
async def engine(world: World) -> Engine:
    """A first process of the world, which has opened the account."""
    process = await world.process()
    await world.open_account(process)
    return process
