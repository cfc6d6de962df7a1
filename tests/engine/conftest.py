"""A world of its own for each test, on the database that all tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from billing_server.engine.engine import Engine
from tests.engine.world import World


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A world without processes."""
    made = World(database_url)
    yield made
    await made.close()


@pytest.fixture
async def engine(world: World) -> Engine:
    """A first process of the world, which has opened the account."""
    process = await world.process()
    await world.open_account(process)
    return process
