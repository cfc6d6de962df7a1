"""Streams that are ended from outside: their readers are told why, at whatever moment it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest

from billing.v1.event_service_pb2 import StreamEventsRequest
from billing_server.api import open_streams
from billing_server.api.call import Identity
from billing_server.api.open_streams import OpenStreams
from tests.serving import Caller, refused


@pytest.mark.parametrize("turns", range(4))
async def test_a_stream_that_ends_as_it_begins_tells_its_reader_why(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, turns: int
) -> None:
    """So many turns of the loop after its beginning, the server drains, or the key is revoked."""
    run = OpenStreams.run

    async def end_after(streams: OpenStreams, before: set[Any], left: int) -> None:
        for _ in range(left):
            await asyncio.sleep(0)
        streams._end([task for task in streams._running if task not in before], open_streams._draining())

    async def ended_soon(streams: OpenStreams, identity: Identity, work: Coroutine[Any, Any, None]) -> None:
        ending = asyncio.create_task(end_after(streams, set(streams._running), turns + 1))
        try:
            await run(streams, identity, work)
        finally:
            await ending

    monkeypatch.setattr(OpenStreams, "run", ended_soon)
    for _ in range(5):
        stream: Any = caller.events.StreamEvents(StreamEventsRequest(), metadata=caller.login, timeout=60)
        with refused(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"):
            while True:
                assert await stream.read() is not grpc.aio.EOF
    assert [record.getMessage() for record in caplog.records if record.name.startswith("grpc")] == []
