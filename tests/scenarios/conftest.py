"""A served engine for the scenarios, and a client with an account of its own for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from billing_client import BillingClient
from billing_server.bootstrap import Server
from tests.serving import new_caller, serving


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its files."""
    return tmp_path_factory.mktemp("scenarios")


@pytest.fixture(scope="session")
async def server(database_url: str, data_directory: Path) -> AsyncIterator[Server]:
    """The server that the scenarios share."""
    async with serving(database_url, data_directory) as served:
        yield served


@pytest.fixture
async def client(server: Server) -> AsyncIterator[BillingClient]:
    """A client of a fresh account."""
    caller = await new_caller(server)
    await caller.close()
    async with BillingClient(str(server.address), caller.secret) as made:
        yield made
