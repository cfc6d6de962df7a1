"""A served engine for the whole session, and a caller with a fresh account for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from billing_server.bootstrap import Server
from tests.serving import Caller, new_caller, serving


@pytest.fixture(scope="session")
async def server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The server that the tests of this room share."""
    async with serving(database_url, tmp_path_factory.mktemp("api")) as served:
        yield served


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[Caller]:
    """A caller with an account of its own and a key with every scope."""
    made = await new_caller(server)
    yield made
    await made.close()
