"""The event iterator: it resumes by itself, and neither repeats nor skips."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from billing.v1.event_model_pb2 import Event, EventBatch
from billing.v1.event_service_pb2 import ListEventsRequest, ListEventsResponse, StreamEventsRequest
from billing_client import BillingClient, ConnectionFailed, EventStream, PositionOutOfRange, ServerFailed
from tests.client.fake_server import Context, FakeServer, refuse


def event(position: int, kind: str = "invoice.paid") -> Event:
    return Event(id=f"evt_{position:012d}", position=position, type=kind)


class Log:
    """A log of events whose stream breaks in the ways that a test plans, one for each connection."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.batch_size = 2
        self.faults: list[str] = []
        self.requests: list[StreamEventsRequest] = []
        self.connections: asyncio.Queue[StreamEventsRequest] = asyncio.Queue()

    async def stream(self, request: StreamEventsRequest, context: Context) -> AsyncIterator[EventBatch]:
        self.requests.append(request)
        self.connections.put_nowait(request)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "refuse":
            await refuse(context, grpc.StatusCode.UNAVAILABLE, "draining", "UNAVAILABLE", retry_after_seconds=0.01)
        if fault == "out of range":
            await refuse(context, grpc.StatusCode.OUT_OF_RANGE, "gone", "POSITION_OUT_OF_RANGE")
        position = request.after_position
        batches = 0
        while position < self.head:
            last = min(position + self.batch_size, self.head)
            events = [event(number) for number in range(position + 1, last + 1)]
            if fault == "repeat":
                events = [event(position), *events]
            if fault == "gap":
                events = events[1:]
            yield EventBatch(events=events, head_position=self.head, caught_up=last == self.head)
            position = last
            batches += 1
            if fault == "break" and batches == 1:
                await refuse(context, grpc.StatusCode.UNAVAILABLE, "going away")
            if fault == "reset" and batches == 1:
                await context.abort(grpc.StatusCode.INTERNAL, "RST_STREAM")
            if fault == "end" and batches == 1:
                return
        yield EventBatch(head_position=self.head, caught_up=True)
        await asyncio.sleep(30)

    async def list(self, request: ListEventsRequest, context: Context) -> ListEventsResponse:
        return ListEventsResponse(events=[event(self.head)] if self.head else [])


@pytest.fixture
async def log(fake: FakeServer) -> Log:
    served = Log(head=7)
    fake.streaming("StreamEvents", served.stream)
    fake.unary("ListEvents", served.list)
    return served


async def positions(stream: EventStream) -> list[int]:
    return [item.position async for item in stream]


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["break", "break", "break"],
        ["end", "reset", "refuse", "break"],
        ["repeat", "end", "repeat"],
        ["gap", "gap"],
    ],
)
async def test_each_event_comes_once_and_in_order(
    fake: FakeServer, client: BillingClient, log: Log, faults: list[str]
) -> None:
    log.faults = faults
    await fake.start()
    assert await positions(client.events(0, stop_when_caught_up=True)) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_gap_that_stays_is_raised_rather_than_skipped(
    fake: FakeServer, client: BillingClient, log: Log
) -> None:
    log.faults = ["gap"] * 20
    await fake.start()
    with pytest.raises(ServerFailed, match="gap after position 0"):
        await positions(client.events(0, stop_when_caught_up=True))


async def test_it_resumes_after_the_event_last_handed_out(fake: FakeServer, client: BillingClient, log: Log) -> None:
    log.faults = ["break"]
    await fake.start()
    async with client.events(3) as stream:
        seen = [(await anext(stream)).position for _ in range(4)]
        assert stream.caught_up
        assert stream.head_position == 7
    assert seen == [4, 5, 6, 7]
    assert [request.after_position for request in log.requests] == [3, 5]


async def test_with_a_filter_it_resumes_from_the_head_once_caught_up(
    fake: FakeServer, client: BillingClient, log: Log
) -> None:
    await fake.start()
    stream = client.events(7, types=["invoice.*"], stop_when_caught_up=True)
    log.head = 9
    log.batch_size = 1
    assert await positions(stream) == [8, 9]
    assert stream.position == 9
    assert list(log.requests[0].types) == ["invoice.*"]


async def test_without_a_position_only_what_happens_from_now_on(
    fake: FakeServer, client: BillingClient, log: Log
) -> None:
    await fake.start()
    stream = client.events()
    waiting = asyncio.ensure_future(anext(stream))
    assert (await log.connections.get()).after_position == 7
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    log.head = 8
    assert (await anext(stream)).position == 8
    await stream.aclose()


async def test_it_survives_a_restart_of_the_server(fake: FakeServer, client: BillingClient, log: Log) -> None:
    await fake.start()
    stream = client.events(0)
    first = [(await anext(stream)).position for _ in range(7)]
    following = asyncio.ensure_future(anext(stream))
    await fake.stop()
    log.head = 9
    await fake.start()
    second = [(await following).position, (await anext(stream)).position]
    assert first + second == list(range(1, 10))
    await stream.aclose()


async def test_a_position_that_is_gone_is_raised(fake: FakeServer, client: BillingClient, log: Log) -> None:
    log.faults = ["out of range"]
    await fake.start()
    stream = client.events(1)
    with pytest.raises(PositionOutOfRange):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_server_that_never_was_there_is_told(client: BillingClient) -> None:
    with pytest.raises(ConnectionFailed):
        await anext(client.events(0))


async def test_silence_counts_as_a_lost_connection(
    fake: FakeServer, client: BillingClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing_client.events._SILENCE_HEARTBEATS", 0.2)
    await fake.start()
    stream = client.events(0, heartbeat_seconds=1)
    for _ in range(7):
        await anext(stream)
    following = asyncio.ensure_future(anext(stream))
    await log.connections.get()
    await log.connections.get()
    log.head = 8
    assert (await following).position == 8
    await stream.aclose()
