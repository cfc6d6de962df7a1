"""Durable consumers: events that the server delivers until they are acknowledged, across broken connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType

import grpc

from billing.v1.consumer_model_pb2 import Consumer
from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import (
    Acknowledgement,
    ConsumeOpening,
    ConsumeRequest,
    ConsumeResponse,
    CreateConsumerRequest,
    DeadlineExtension,
    NegativeAcknowledgement,
)
from billing.v1.event_service_pb2_grpc import EventServiceStub
from billing_client.errors import BillingError, Refusal, from_refusal, from_rpc_error
from billing_client.retry import RetryPolicy, is_broken_stream

LOGGER = logging.getLogger(__name__)

_SILENCE_HEARTBEATS = 3
_GATHER_SECONDS = 0.02
_FINISH_SECONDS_MAX = 30.0
_POSITIONS_MAX = 10_000
_REASON_CHARACTERS_MAX = 500

Handler = Callable[[Event], Awaitable[object]]


class Delivery:
    """An event that waits for a word: `ack`, `decline` or, when it takes longer, `extend`.

    tries: how many earlier tries ended badly, as far as the server knows.
    redelivered: whether it may have been delivered before.
    """

    __slots__ = ("_stream", "event", "extended_at", "redelivered", "tries")

    def __init__(self, stream: ConsumerStream, event: Event, tries: int | None) -> None:
        self._stream = stream
        self.event = event
        self.tries = tries or 0
        self.redelivered = tries is not None
        self.extended_at = time.monotonic()

    def ack(self) -> None:
        """The event is done. It is told to the server shortly, with others; what is lost comes once more."""
        self._stream.say(acknowledge=self.event.position)

    def decline(self, reason: str = "", delay_seconds: int = 0) -> None:
        """The event could not be handled: it comes again soon, or after a delay, until its tries are used up."""
        self._stream.say(
            decline=NegativeAcknowledgement(
                positions=[self.event.position], reason=reason[:_REASON_CHARACTERS_MAX], delay_seconds=delay_seconds
            )
        )

    def extend(self) -> None:
        """Ask for as much time again as there was at first."""
        self._stream.say(extend=self.event.position)


class ConsumerStream:
    """Iterates over the deliveries of a durable consumer. Made by `BillingClient.consume`.

    consumer: the consumer as the server has it; empty until the stream is connected.
    reconnects: how often the stream was taken up again.

    A server that goes away or falls silent is looked for until it is back; what was delivered and not acknowledged
    comes again. Deliveries that wait here for their turn get more time as long as there is progress, so a consumer may
    handle one after the other; a handler that hangs does not keep its events from other connections. `finish` ends
    the stream when all acknowledgements are stored; `aclose`, or the end of `async with`, tries to.
    """

    def __init__(
        self,
        stub: EventServiceStub,
        retry: RetryPolicy,
        name: str,
        *,
        create: CreateConsumerRequest | None = None,
        batch_max: int = 0,
        unacknowledged_max: int = 0,
        heartbeat_seconds: int = 15,
        stop_when_caught_up: bool = False,
    ) -> None:
        self._stub = stub
        self._retry = retry
        self._opening = ConsumeOpening(
            consumer=name,
            create=create,
            batch_max=batch_max,
            unacknowledged_max=unacknowledged_max,
            heartbeat_seconds=heartbeat_seconds,
        )
        self._silence_seconds = heartbeat_seconds * _SILENCE_HEARTBEATS
        self._stop_when_caught_up = stop_when_caught_up
        self._call: grpc.aio.StreamStreamCall[ConsumeRequest, ConsumeResponse] | None = None
        self._waiting: deque[Delivery] = deque()
        self._acknowledged: list[int] = []
        self._declined: list[NegativeAcknowledgement] = []
        self._extended: list[int] = []
        self._something_to_say = asyncio.Event()
        self._teller: asyncio.Task[None] | None = None
        self._failures = 0
        self._connected = False
        self._closed = False
        self._caught_up = False
        self.consumer = Consumer()
        self.reconnects = 0

    def __aiter__(self) -> ConsumerStream:
        return self

    async def __anext__(self) -> Delivery:
        while not self._waiting:
            if self._closed or (self._caught_up and self._stop_when_caught_up):
                raise StopAsyncIteration
            await self._receive()
        delivery = self._waiting.popleft()
        if self._is_old(delivery):
            delivery.extend()
        return delivery

    async def __aenter__(self) -> ConsumerStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def handle(self, handler: Handler) -> None:
        """Have each event handled, one after the other, and acknowledged; one whose handler fails is declined."""
        async for delivery in self:
            try:
                await handler(delivery.event)
            except Exception as error:
                LOGGER.exception("event %s was not handled", delivery.event.id)
                delivery.decline(f"{type(error).__name__}: {error}")
            else:
                delivery.ack()

    async def finish(self) -> None:
        """End the stream when the server has stored all that was acknowledged.

        Raises BillingError when that cannot be known; what was not stored will be delivered again.
        """
        self._closed = True
        self._waiting.clear()
        call = self._call
        if call is None:
            return
        try:
            async with asyncio.timeout(_FINISH_SECONDS_MAX):
                await self._tell(call)
                await call.done_writing()
                while await call.read() is not grpc.aio.EOF:
                    pass
        except grpc.aio.AioRpcError as rpc_error:
            raise from_rpc_error(rpc_error) from rpc_error
        except (TimeoutError, asyncio.InvalidStateError) as error:
            lost = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="the server did not store all acknowledgements")
            raise from_refusal(lost) from error
        finally:
            await self._disconnect()

    async def aclose(self) -> None:
        """End the stream; acknowledgements are stored if the server is there."""
        if not self._closed:
            with contextlib.suppress(BillingError):
                await self.finish()
        await self._disconnect()

    # --- saying

    def say(
        self,
        acknowledge: int | None = None,
        decline: NegativeAcknowledgement | None = None,
        extend: int | None = None,
    ) -> None:
        """Tell the server something about an event, together with what else is said meanwhile."""
        if acknowledge is not None:
            self._acknowledged.append(acknowledge)
        if decline is not None:
            self._declined.append(decline)
        if extend is not None:
            self._extended.append(extend)
        self._something_to_say.set()

    def _is_old(self, delivery: Delivery) -> bool:
        return time.monotonic() - delivery.extended_at > self.consumer.ack_timeout_seconds / 3

    async def _tell_now_and_then(self, call: grpc.aio.StreamStreamCall[ConsumeRequest, ConsumeResponse]) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # Whoever reads finds out that the stream has broken, and why.
            while True:
                await self._something_to_say.wait()
                await asyncio.sleep(_GATHER_SECONDS)
                await self._tell(call)

    async def _tell(self, call: grpc.aio.StreamStreamCall[ConsumeRequest, ConsumeResponse]) -> None:
        """Say all that is to be said. What waits for its turn gets more time, now that there is progress."""
        self._something_to_say.clear()
        if self._waiting and self._is_old(self._waiting[0]):
            now = time.monotonic()
            for delivery in self._waiting:
                delivery.extended_at = now
                self._extended.append(delivery.event.position)
        while self._acknowledged or self._declined or self._extended:
            acknowledged, self._acknowledged = self._acknowledged[:_POSITIONS_MAX], self._acknowledged[_POSITIONS_MAX:]
            declined, self._declined = self._declined, []
            extended, self._extended = self._extended[:_POSITIONS_MAX], self._extended[_POSITIONS_MAX:]
            await call.write(
                ConsumeRequest(
                    acknowledge=Acknowledgement(positions=acknowledged) if acknowledged else None,
                    decline=declined,
                    extend=DeadlineExtension(positions=extended) if extended else None,
                )
            )

    # --- receiving

    async def _receive(self) -> None:
        """Wait for the next message; on a failure that will pass, wait and leave the rest to the next call."""
        try:
            message = await self._read()
        except grpc.aio.AioRpcError as rpc_error:
            await self._recover(from_rpc_error(rpc_error), rpc_error)
        except asyncio.InvalidStateError as ended:
            # A stream that ended while it was written to.
            lost = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="the stream of events broke")
            await self._recover(from_refusal(lost), ended)
        except TimeoutError as silence:
            lost = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="the stream of events fell silent")
            await self._recover(from_refusal(lost), silence)
        else:
            if message is None:
                ended_by_server = Refusal(code=grpc.StatusCode.UNAVAILABLE, message="the server ended the stream")
                await self._recover(from_refusal(ended_by_server), None)
            else:
                self._take(message)

    async def _read(self) -> ConsumeResponse | None:
        """The next message of the stream that is open, or of a new one; None when the server ended it."""
        try:
            async with asyncio.timeout(self._silence_seconds):
                if self._call is None:
                    self._call = self._stub.Consume()
                    await self._call.write(ConsumeRequest(opening=self._opening))
                    self._teller = asyncio.create_task(self._tell_now_and_then(self._call))
                message = await self._call.read()
        except asyncio.CancelledError:
            # gRPC cancels a call whose reading is cancelled; a later reader must open another one.
            await self._disconnect()
            raise
        return message if isinstance(message, ConsumeResponse) else None

    def _take(self, message: ConsumeResponse) -> None:
        self._failures = 0
        if message.HasField("consumer"):
            self.consumer = message.consumer
            self.reconnects += self._connected
            self._connected = True
            self._caught_up = False
            return
        tries = {told.position: told.tries for told in message.redeliveries}
        self._waiting.extend(Delivery(self, event, tries.get(event.position)) for event in message.events)
        self._caught_up = message.caught_up

    async def _recover(self, error: BillingError, cause: BaseException | None) -> None:
        await self._disconnect()
        self._failures += 1
        hopeless = not self._connected and self._failures >= self._retry.attempts_max
        if hopeless or not is_broken_stream(error):
            self._closed = True
            raise error from (cause if cause is not error else None)
        await asyncio.sleep(max(error.retry_after_seconds or 0.0, self._retry.backoff_seconds(self._failures)))

    async def _disconnect(self) -> None:
        """Give up the connection. What waits here comes again; what was said of it since is said over the next one."""
        self._waiting.clear()
        self._extended.clear()
        teller, self._teller = self._teller, None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        if teller is not None:
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)
