"""A store with an account of its own for each test, and a mail server that can be told to misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from billing_server.store.migrate import migrate
from billing_server.store.store import Store
from tests.conftest import temporary_database
from tests.mail.post_office import PostOffice
from tests.store import samples


@pytest.fixture(scope="session")
async def mail_database_url(database_url: str) -> AsyncIterator[str]:
    """A database of its own: servers that other tests leave running would deliver these messages, too."""
    async with temporary_database(database_url) as url:
        await migrate(url)
        yield url


@pytest.fixture(scope="session")
async def store(mail_database_url: str) -> AsyncIterator[Store]:
    """A store on that database."""
    opened = await Store.open(mail_database_url, max_connections=8)
    yield opened
    await opened.close()


@pytest.fixture
async def account_id(store: Store) -> str:
    """The id of a new account."""
    account = samples.account()
    assert await store.create_account(account)
    return account.id


@pytest.fixture
async def post_office() -> AsyncIterator[PostOffice]:
    """A mail server that takes everything, until it is told otherwise."""
    office = PostOffice()
    await office.open()
    yield office
    await office.close()


@pytest.fixture
async def administrator(mail_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the owner of the database."""
    connection = await asyncpg.connect(mail_database_url)
    yield connection
    await connection.close()
