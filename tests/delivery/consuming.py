"""A log full of events, and connections that consume it, for tests of durable consumers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc

from billing.v1.consumer_model_pb2 import Consumer, ParkedEvent
from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import (
    Acknowledgement,
    ConsumeOpening,
    ConsumeRequest,
    ConsumeResponse,
    CreateConsumerRequest,
    GetConsumerRequest,
    ListParkedEventsRequest,
    NegativeAcknowledgement,
)
from billing_server.engine.engine import Engine
from billing_server.store.event import EventRow
from tests.serving import Caller

_AT_ONCE = 5_000
_LOOK_SECONDS = 0.05
_MESSAGE_SECONDS_MAX = 60
"""There are heartbeats well within."""


async def write_log(engine: Engine, account_id: str, subjects: Sequence[str], event_type: str = "made.up") -> int:
    """Append an event for each of these customers, in order; return the position before the first."""
    store = engine.store
    async with store.view(account_id) as view:
        before = await view.head()
    for start in range(0, len(subjects), _AT_ONCE):
        rows = [
            EventRow(
                type=event_type,
                customer=subject,
                object_id=subject,
                created=1_700_000_000,
                payload=Event(type=event_type, customer=subject, account=account_id).SerializeToString(),
            )
            for subject in subjects[start : start + _AT_ONCE]
        ]
        async with store.transaction(account_id) as unit:
            await unit.open()
            await unit.save((), rows)
        engine.bell.ring(account_id)
    return before


class Stream:
    """One connection to Consume; the server knows it by its name, if it has one, as the id of the request."""

    def __init__(self, caller: Caller, name: str | None = None, **opening: Any) -> None:
        metadata = caller.login if name is None else caller.metadata(x_request_id=name)
        self._call: Any = caller.events.Consume(metadata=metadata)
        self._opening = ConsumeOpening(**opening)
        self.consumer = Consumer()
        self.tries: dict[int, int] = {}
        self.caught_up = False

    async def open(self) -> Stream:
        """Send the opening and wait for the consumer."""
        await self.write(ConsumeRequest(opening=self._opening))
        self.consumer = (await self._message()).consumer
        return self

    async def _message(self) -> ConsumeResponse:
        async with asyncio.timeout(_MESSAGE_SECONDS_MAX):
            message = await self._call.read()
        if message is grpc.aio.EOF:
            raise await self._end()
        assert isinstance(message, ConsumeResponse)
        return message

    async def _end(self) -> Exception:
        """What a stream that has ended raises."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            return StopAsyncIteration()
        return grpc.aio.AioRpcError(
            code,
            await self._call.initial_metadata(),
            await self._call.trailing_metadata(),
            await self._call.details(),
        )

    async def batch(self) -> list[Event]:
        """The next message's events; none when it is a heartbeat."""
        message = await self._message()
        self.tries.update((told.position, told.tries) for told in message.redeliveries)
        self.caught_up = message.caught_up
        return list(message.events)

    async def events(self, count: int) -> list[Event]:
        """At least so many events."""
        found: list[Event] = []
        while len(found) < count:
            found += await self.batch()
        return found

    async def until_caught_up(self) -> list[Event]:
        """Everything until the server says that there is no more for now."""
        found = await self.batch()
        while not self.caught_up:
            found += await self.batch()
        return found

    async def acknowledge(self, *positions: int, **more: Any) -> None:
        """Say that events are done."""
        await self.write(ConsumeRequest(acknowledge=Acknowledgement(positions=positions, **more)))

    async def decline(self, *positions: int, **more: Any) -> None:
        """Say that events could not be handled."""
        await self.write(ConsumeRequest(decline=[NegativeAcknowledgement(positions=positions, **more)]))

    async def write(self, request: ConsumeRequest) -> None:
        """Say anything. Raises what reading would when the server has ended the stream meanwhile."""
        try:
            await self._call.write(request)
        except asyncio.InvalidStateError as ended:
            raise await self._end() from ended

    async def finish(self) -> None:
        """Say no more, and wait until all is stored."""
        await self._call.done_writing()
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await self._message()

    def kill(self) -> None:
        """Break off."""
        self._call.cancel()


@contextlib.asynccontextmanager
async def consuming(caller: Caller, consumer: str = "crm", **opening: Any) -> AsyncIterator[Stream]:
    """An open stream of a consumer, which is created from the beginning unless it is there; broken off at the end."""
    opening.setdefault("create", CreateConsumerRequest())
    stream = await Stream(caller, consumer=consumer, **opening).open()
    try:
        yield stream
    finally:
        stream.kill()


def positions(events: Sequence[Event]) -> list[int]:
    """Where events stand in the log."""
    return [event.position for event in events]


async def consumer_of(caller: Caller, name: str = "crm") -> Consumer:
    """The consumer with its progress."""
    return await caller.events.GetConsumer(GetConsumerRequest(name=name), metadata=caller.login)


async def parked_of(caller: Caller, name: str = "crm") -> list[ParkedEvent]:
    """All parked events of a consumer, the latest in the log first."""
    found: list[ParkedEvent] = []
    token = ""
    while True:
        page = await caller.events.ListParkedEvents(
            ListParkedEventsRequest(consumer=name, page_size=1000, page_token=token), metadata=caller.login
        )
        found += page.parked_events
        token = page.next_page_token
        if not token:
            return found


async def eventually(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 60) -> None:
    """Wait until something is so."""
    for _ in range(round(seconds / _LOOK_SECONDS)):
        found = condition()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(_LOOK_SECONDS)
    raise AssertionError(f"did not come about within {seconds:g} seconds")


async def until_settled(caller: Caller, name: str = "crm", seconds: float = 60) -> None:
    """Wait until a consumer has nothing left to do."""

    async def settled() -> bool:
        progress = (await consumer_of(caller, name)).progress
        return not progress.lag and not progress.unacknowledged

    await eventually(settled, seconds)
