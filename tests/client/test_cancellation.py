"""Who is canceled while waiting for a message ends, also when one arrives in the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from billing.v1.event_model_pb2 import Event, EventBatch
from billing.v1.test_clock_service_pb2 import AdvanceTestClockProgress, AdvanceTestClockRequest
from billing_client import RetryPolicy
from billing_client.clocks import advance
from billing_client.events import EventStream


class Call:
    """A call with one message, which comes when the test says so."""

    def __init__(self) -> None:
        self.message: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def read(self) -> Any:
        message, self.message = self.message, asyncio.get_running_loop().create_future()
        return await message

    def cancel(self) -> None:
        """Nothing is under way."""


class Stub:
    """Answers every call by the same one."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def __getattr__(self, _name: str) -> Callable[..., Call]:
        return lambda *_, **__: self._call


def _events(stub: Any) -> AsyncIterator[Any]:
    return EventStream(stub, RetryPolicy(), after_position=0)


def _progress(stub: Any) -> AsyncIterator[Any]:
    return advance(stub, RetryPolicy(), AdvanceTestClockRequest(id="clock_1"), ())


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (_events, EventBatch(events=[Event(position=1)], head_position=1)),
        (_progress, AdvanceTestClockProgress()),
    ],
    ids=["events", "a clock"],
)
async def test_a_message_in_the_moment_of_the_end_does_not_prevent_it(
    begin: Callable[[Any], AsyncIterator[Any]], message: Any
) -> None:
    call = Call()
    coming = call.message
    stream = begin(Stub(call))

    async def read_on() -> None:
        async for _ in stream:
            pass

    reading = asyncio.create_task(read_on())
    for _ in range(5):
        await asyncio.sleep(0)
    coming.set_result(message)
    # As in a loop that has slept for a while: it hears of the message and of the end in the same turn.
    asyncio.get_running_loop().call_soon(reading.cancel)
    await asyncio.wait({reading}, timeout=20)
    assert reading.cancelled()
