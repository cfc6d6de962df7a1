"""A served engine for the scenarios, and a client with an account of its own for each."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from billing_client import BillingClient
from billing_server.bootstrap import Server
from tests.serving import new_caller, serving


@pytest.fixture(scope="session")
async def server(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The server that the scenarios share."""
    async with serving(database_url, tmp_path_factory.mktemp("scenarios")) as served:
        yield served


@pytest.fixture
async def client(server: Server) -> AsyncIterator[BillingClient]:
    """A client of a fresh account."""
    caller = await new_caller(server)
    await caller.close()
    async with BillingClient(str(server.address), caller.secret) as made:
        yield made
