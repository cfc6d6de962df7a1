"""The account's events as one endless iterator: it takes itself up again where it was, whatever breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from types import TracebackType

import grpc

from billing.v1.event_model_pb2 import Event, EventBatch
from billing.v1.event_service_pb2 import ListEventsRequest, StreamEventsRequest
from billing.v1.event_service_pb2_grpc import EventServiceStub
from billing_client.errors import BillingError, Refusal, from_refusal, from_rpc_error
from billing_client.retry import RetryPolicy, is_broken_stream

_SILENCE_HEARTBEATS = 3
_REREADS_MAX = 5


class EventStream:
    """Iterates over events in the order of their positions, each exactly once. Made by `BillingClient.events`.

    position: where a new stream would have to begin to see what this one has not yielded yet; None until a
        stream of live events is connected. Store it after an event was handled.
    head_position: highest position in the account's log that the server told of.
    caught_up: whether all events there were, as of the server's last word, have been yielded.

    Once it has been connected, a server that goes away, restarts or falls silent is looked for until it is
    back; every other refusal is raised as BillingError, PositionOutOfRange among them. It can be closed by
    `aclose`, or used by `async with`.
    """

    def __init__(
        self,
        stub: EventServiceStub,
        retry: RetryPolicy,
        *,
        after_position: int | None = None,
        types: Iterable[str] = (),
        object_ids: Iterable[str] = (),
        customer: str = "",
        batch_max: int = 100,
        heartbeat_seconds: int = 15,
        stop_when_caught_up: bool = False,
    ) -> None:
        self._stub = stub
        self._retry = retry
        self._request = StreamEventsRequest(
            types=types,
            object_ids=object_ids,
            customer=customer,
            batch_max=batch_max,
            heartbeat_seconds=heartbeat_seconds,
        )
        self._filtered = bool(self._request.types or self._request.object_ids or customer)
        self._silence_seconds = heartbeat_seconds * _SILENCE_HEARTBEATS
        self._stop_when_caught_up = stop_when_caught_up
        self._call: grpc.aio.UnaryStreamCall[StreamEventsRequest, EventBatch] | None = None
        self._waiting: deque[Event] = deque()
        self._batch_end: EventBatch | None = None
        self._failures = 0
        self._gaps = 0
        self._connected = False
        self._closed = False
        self.position = after_position
        self.head_position = 0
        self.caught_up = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._batch_end is not None:
                self._finish_batch(self._batch_end)
            if self._closed or (self.caught_up and self._stop_when_caught_up):
                await self.aclose()
                raise StopAsyncIteration
            await self._receive()
        event = self._waiting.popleft()
        self.position = event.position
        self.caught_up = not self._waiting and self._batch_end is not None and self._batch_end.caught_up
        return event

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream. Iterating over it ends as well."""
        self._closed = True
        self._disconnect()

    def _finish_batch(self, batch: EventBatch) -> None:
        """All events of the batch were handled; what a filter held back up to its head need not be read again."""
        self._batch_end = None
        self.caught_up = batch.caught_up
        if batch.caught_up and self._filtered:
            self.position = max(self.position or 0, batch.head_position)

    async def _receive(self) -> None:
        """Wait for the next batch; on a failure that will pass, wait and leave the rest to the next call."""
        try:
            batch = await self._read()
        except grpc.aio.AioRpcError as rpc_error:
            await self._recover(from_rpc_error(rpc_error), rpc_error)
        except BillingError as error:
            await self._recover(error, error)
        except TimeoutError as silence:
            lost = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="the event stream fell silent")
            await self._recover(from_refusal(lost), silence)
        else:
            if batch is None:
                ended = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="the server ended the event stream")
                await self._recover(from_refusal(ended), None)
            else:
                await self._take(batch)

    async def _read(self) -> EventBatch | None:
        """The next batch of the stream that is open, or of a new one; None when the server ended it."""
        if self._call is None:
            if self.position is None:
                self.position = await self._head()
            self._request.after_position = self.position
            self._call = self._stub.StreamEvents(self._request)
        try:
            # Not wait_for: when a message comes just as this task is canceled, it would swallow that.
            async with asyncio.timeout(self._silence_seconds):
                batch = await self._call.read()
        except asyncio.CancelledError:
            # gRPC cancels a call whose reading is cancelled; a later reader must open another one.
            self._disconnect()
            raise
        return batch if isinstance(batch, EventBatch) else None

    async def _head(self) -> int:
        newest = await self._stub.ListEvents(ListEventsRequest(page_size=1))
        return newest.events[0].position if newest.events else 0

    async def _take(self, batch: EventBatch) -> None:
        self._failures = 0
        self._connected = True
        self.head_position = max(self.head_position, batch.head_position)
        position = self.position or 0
        fresh = [event for event in batch.events if event.position > position]
        if not self._filtered and self._has_gap(fresh, position):
            await self._reread(position, fresh[0].position)
            return
        self._gaps = 0
        self._waiting.extend(fresh)
        self._batch_end = batch

    @staticmethod
    def _has_gap(events: list[Event], position: int) -> bool:
        return any(event.position != position + index for index, event in enumerate(events, 1))

    async def _reread(self, position: int, found: int) -> None:
        """An event is missing in between: read on from before it rather than skip it."""
        self._gaps += 1
        self._disconnect()
        gap = Refusal(
            code=grpc.StatusCode.DATA_LOSS,
            message=f"the event stream left a gap after position {position}; the next one sent was {found}",
        )
        if self._gaps > _REREADS_MAX:
            self._closed = True
            raise from_refusal(gap)
        await asyncio.sleep(self._retry.backoff_seconds(self._gaps))

    async def _recover(self, error: BillingError, cause: BaseException | None) -> None:
        self._disconnect()
        self.caught_up = False
        self._failures += 1
        hopeless = not self._connected and self._failures >= self._retry.attempts_max
        if hopeless or not is_broken_stream(error):
            self._closed = True
            raise error from (cause if cause is not error else None)
        await asyncio.sleep(max(error.retry_after_seconds or 0.0, self._retry.backoff_seconds(self._failures)))

    def _disconnect(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
