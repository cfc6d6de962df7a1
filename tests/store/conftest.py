"""A store on the shared database, and an account of its own for each test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from billing_server.store.migrate import migrate
from billing_server.store.store import Store
from tests.conftest import temporary_database
from tests.store import samples


@pytest.fixture(scope="session")
async def database_url(database_url: str) -> AsyncIterator[str]:
    """URL of a database for these tests alone: servers that other tests leave running would bill what is due here,
    and send what is to be sent.
    """
    async with temporary_database(database_url) as url:
        await migrate(url)
        yield url


@contextlib.asynccontextmanager
async def opened_store(database_url: str, **limits: Any) -> AsyncIterator[Store]:
    """A store that is closed at the end, and does not wait without an end for connections that a test keeps."""
    opened = await Store.open(database_url, acquire_seconds_max=60, **limits)
    yield opened
    try:
        async with asyncio.timeout(60):
            await opened.close()
    except TimeoutError:
        raise AssertionError("a minute after its tests, connections of the store are still in use") from None


@pytest.fixture(scope="session")
async def store(database_url: str) -> AsyncIterator[Store]:
    """A store with room for a dozen concurrent transactions."""
    async with opened_store(database_url, max_connections=12) as opened:
        yield opened


@pytest.fixture
async def account_id(store: Store) -> str:
    """The id of a new account."""
    account = samples.account()
    assert await store.create_account(account)
    return account.id


@pytest.fixture
async def administrator(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the owner of the database, past row-level security where it is a superuser."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()
