"""What every call passes, outermost first: context, errors, limits, authentication, scope, deadline.

The layers are composed here instead of as interceptors of grpc: they see the method's options, and cost one
coroutine instead of one for each layer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol, cast

import grpc
from google.rpc.status_pb2 import Status

from billing_server.api.call import AUTHORIZATION_KEY, REQUEST_ID_KEY, RUNNING, Call
from billing_server.api.endpoints import Conversing, Edge, Gathering, Streaming, Unary
from billing_server.api.failures import status_told
from billing_server.api.limits import Limits
from billing_server.api.open_streams import OpenStreams
from billing_server.api.refusals import CODES, DETAILS_KEY, ScopeMissing, Unavailable
from billing_server.wire.codec import parse
from billing_server.wire.contract import Method

LOGGER = logging.getLogger(__name__)

WRITE_SECONDS_MAX: Final = 30.0
"""How long a stream waits for its reader to take a message before it gives the reader up."""

_SLOW_SECONDS: Final = 5.0


class Observer(Protocol):
    """Learns of each call that has ended."""

    def ended(self, method: str, code: str, seconds: float) -> None:
        """A call of this method ended with the code of this name after so long."""


Context = grpc.aio.ServicerContext[Any, Any]


class Chain:
    """Makes handlers of methods out of endpoints."""

    def __init__(
        self,
        edge: Edge,
        limits: Limits,
        streams: OpenStreams,
        observer: Observer,
        *,
        deadline_seconds_max: float,
        write_seconds_max: float = WRITE_SECONDS_MAX,
    ) -> None:
        self._edge = edge
        self._limits = limits
        self._streams = streams
        self._observer = observer
        self._deadline_seconds_max = deadline_seconds_max
        self.write_seconds_max = write_seconds_max

    def unary(self, method: Method, endpoint: Unary) -> Callable[[bytes, Context], Any]:
        """The handler of a method with one response."""

        async def handle(request: bytes, context: Context) -> bytes:
            call = self._begin(method, context)
            started = time.monotonic()
            code = "OK"
            try:
                with self._limits.call():
                    await self._admit(call)
                    async with asyncio.timeout(self._seconds(context)):
                        return await endpoint(self._edge, call, parse(method.request_type, request))
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                status = status_told(call, error)
                code = CODES[status.code].name
                await _abort(context, call, status)
                raise AssertionError("a call went on after its end") from error
            finally:
                self._end(call, code, started)

        return handle

    def streaming(self, method: Method, endpoint: Streaming) -> Callable[[bytes, Context], Any]:
        """The handler of a method with a stream of responses."""

        async def handle(request: bytes, context: Context) -> None:
            await self._stream(
                method, context, lambda call: endpoint(self._edge, call, parse(method.request_type, request))
            )

        return handle

    def gathering(self, method: Method, endpoint: Gathering) -> Callable[[AsyncIterator[bytes], Context], Any]:
        """The handler of a method that is asked by a stream and answers once."""

        async def handle(requests: AsyncIterator[bytes], context: Context) -> bytes:
            call = self._begin(method, context)
            started = time.monotonic()
            code = "OK"
            answers: list[bytes] = []

            async def gather() -> None:
                messages = (parse(method.request_type, request) async for request in requests)
                answers.append(await endpoint(self._edge, call, messages))

            try:
                await self._admit(call)
                with self._limits.stream(call.identity.key_id):
                    await self._streams.run(call.identity, gather())
                return answers[0]
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:
                status = status_told(call, error)
                code = CODES[status.code].name
                await _abort(context, call, status)
                raise AssertionError("a call went on after its end") from error
            finally:
                self._end(call, code, started)

        return handle

    def conversing(self, method: Method, endpoint: Conversing) -> Callable[[AsyncIterator[bytes], Context], Any]:
        """The handler of a method that is asked by a stream and answers by one, each at its own pace."""

        async def handle(_requests: AsyncIterator[bytes], context: Context) -> None:
            await self._stream(method, context, lambda call: endpoint(self._edge, call, _asked(method, context)))

        return handle

    # --- the layers

    async def _stream(self, method: Method, context: Context, answers: Callable[[Call], AsyncIterator[bytes]]) -> None:
        """Answer a call by a stream; `answers` begins it once the call is admitted."""
        call = self._begin(method, context)
        started = time.monotonic()
        code = "OK"
        try:
            await self._admit(call)
            with self._limits.stream(call.identity.key_id):
                messages = answers(call)
                # Before anybody may end the stream from outside: a refusal told while these are on their way would
                # send them once more, which grpc refuses, and the reader would never hear of it.
                await context.send_initial_metadata(((REQUEST_ID_KEY, call.request_id),))
                await self._streams.run(call.identity, self._pump(context, messages))
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001  # the outermost layer tells every failure, and nothing of it
            status = status_told(call, error)
            code = CODES[status.code].name
            await _abort(context, call, status)
        finally:
            self._end(call, code, started)

    def _begin(self, method: Method, context: Context) -> Call:
        call = Call(method, context.invocation_metadata() or ())
        RUNNING.set(call)
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        return call

    async def _admit(self, call: Call) -> None:
        """Authenticate the call and check that its key may make it."""
        call.identity = await self._edge.key_ring.identify(call.metadata.get(AUTHORIZATION_KEY))
        if not call.method.scope or not call.identity.may(call.method.scope):
            raise ScopeMissing(call.method.scope)
        call.take_idempotency_key()

    def _seconds(self, context: Context) -> float:
        """How long the call may take: its own deadline, at most the server's."""
        remaining = cast("float | None", context.time_remaining())
        return self._deadline_seconds_max if remaining is None else min(remaining, self._deadline_seconds_max)

    async def _pump(self, context: Context, messages: AsyncIterator[bytes]) -> None:
        """Write what comes; a reader that takes nothing for too long is given up."""
        try:
            async for message in messages:
                await self._write(context, message)
        finally:
            close = getattr(messages, "aclose", None)
            if close is not None:
                await close()

    async def _write(self, context: Context, message: bytes) -> None:
        """Write one message. A frozen client passes keepalive and would hold the stream for ever (trap 4)."""
        try:
            async with asyncio.timeout(self.write_seconds_max):
                await context.write(message)
        except TimeoutError:
            LOGGER.info("a reader that takes nothing is given up")
            raise Unavailable(f"the reader took nothing for {self.write_seconds_max:g} seconds") from None

    def _end(self, call: Call, code: str, started: float) -> None:
        seconds = time.monotonic() - started
        self._observer.ended(call.name, code, seconds)
        level = (
            logging.INFO
            if seconds > _SLOW_SECONDS and not (call.method.streams or call.method.gathers)
            else logging.DEBUG
        )
        if LOGGER.isEnabledFor(level):
            LOGGER.log(level, "%s %s in %.1f ms", call.name, code, seconds * 1000, extra={"code": code})


async def _asked(method: Method, context: Context) -> AsyncIterator[Any]:
    """The requests of a stream. Read one by one: grpc's own iterator is not closed when its reader stops early."""
    while (request := await context.read()) is not grpc.aio.EOF:
        yield parse(method.request_type, request)


async def _abort(context: Context, call: Call, status: Status) -> None:
    """End the call with a status and its details. Raises grpc's own AbortError."""
    trailing = ((REQUEST_ID_KEY, call.request_id), (DETAILS_KEY, status.SerializeToString()))
    await context.abort(CODES[status.code], status.message, trailing)
