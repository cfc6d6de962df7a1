"""A fake server and a client of it, with waits short enough for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from billing_client import BillingClient, RetryPolicy
from tests.client.fake_server import FakeServer

IMPATIENT = RetryPolicy(attempts_max=4, backoff_seconds_first=0.01, backoff_seconds_max=0.05)


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    """A fake server; the test gives it methods, then starts it."""
    server = FakeServer()
    yield server
    async with asyncio.timeout(60):
        await server.close()


@pytest.fixture
async def client(fake: FakeServer) -> AsyncIterator[BillingClient]:
    """A client of the fake server."""
    async with BillingClient(fake.target, "sk_test", retry=IMPATIENT, timeout_seconds=60) as connected:
        yield connected
