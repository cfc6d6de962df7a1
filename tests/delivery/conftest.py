"""The served engine and the callers of the tests of the edge, and a clock for the connections of consumers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from billing_server.delivery import consuming
from tests.api.conftest import caller, server
from tests.delivery.clock import ConnectionsClock

__all__ = ["caller", "clock", "server"]


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConnectionsClock]:
    """The clock of all connections that are opened from now on."""
    made = ConnectionsClock()
    monkeypatch.setattr(consuming, "time", made)
    ticking = asyncio.create_task(made.tick())
    yield made
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
