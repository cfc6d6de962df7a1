"""A store on the tests' database, and an account for each test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from billing_server.store.store import Store
from tests.gateways.samples import CountingMemory


@pytest.fixture(scope="session")
async def store(database_url: str) -> AsyncIterator[Store]:
    """A store, as the first process has it."""
    opened = await Store.open(database_url, min_connections=1, max_connections=4)
    yield opened
    await opened.close()


@pytest.fixture
def memory(store: Store) -> CountingMemory:
    """The store, counting."""
    return CountingMemory(store)


@pytest.fixture
def account_id() -> str:
    """The id of an account that nobody else uses."""
    return f"acct_{uuid.uuid4().hex}"
