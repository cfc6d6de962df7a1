"""A gRPC server in this process whose answers the test writes: for what only the transport can show."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from billing_client.methods import SERVICES

Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Streaming = Callable[[Any, Context], AsyncIterator[Any]]
Conversing = Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]


class FakeServer:
    """Serves the methods that a test gives it on a port that stays the same when it is restarted."""

    def __init__(self) -> None:
        self._unary: dict[str, Unary] = {}
        self._streaming: dict[str, Streaming] = {}
        self._conversing: dict[str, Conversing] = {}
        self._server: grpc.aio.Server | None = None
        # Bound, but not listening: so nobody else is given the port while the server is away.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port: int = self._reserved.getsockname()[1]
        self.calls: list[tuple[str, dict[str, str]]] = []

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    def keys(self, header: str) -> list[str]:
        """The values of one metadata key of all calls so far, "" where it was missing."""
        return [metadata.get(header, "") for _, metadata in self.calls]

    def unary(self, method: str, handler: Unary) -> None:
        """Answer a unary method, given by its name, by a coroutine function (request, context)."""
        self._unary[method] = handler

    def streaming(self, method: str, handler: Streaming) -> None:
        """Answer a server-streaming method by an async generator function (request, context)."""
        self._streaming[method] = handler

    def conversing(self, method: str, handler: Conversing) -> None:
        """Answer a method with streams in both directions by an async generator function (requests, context)."""
        self._conversing[method] = handler

    async def start(self) -> None:
        """Listen; always on the same port."""
        self._server = grpc.aio.server()
        for service in SERVICES:
            handlers = {
                method.name: self._handler(method.name, method.input_type, method.output_type)
                for method in service.methods
                if method.name in {*self._unary, *self._streaming, *self._conversing}
            }
            generic = grpc.method_handlers_generic_handler(service.full_name, handlers)
            self._server.add_generic_rpc_handlers((generic,))
        self._server.add_insecure_port(self.target)
        await self._server.start()

    async def stop(self) -> None:
        """Break all connections at once."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None

    async def close(self) -> None:
        """Stop for good."""
        await self.stop()
        self._reserved.close()

    def _handler(self, name: str, request: Any, response: Any) -> grpc.RpcMethodHandler[Any, Any]:
        def record(context: Context) -> None:
            metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
            self.calls.append((name, metadata))

        async def unary(message: Any, context: Context) -> Any:
            record(context)
            return await self._unary[name](message, context)

        async def streaming(message: Any, context: Context) -> AsyncIterator[Any]:
            record(context)
            async for item in self._streaming[name](message, context):
                yield item

        async def conversing(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
            record(context)
            async for item in self._conversing[name](messages, context):
                yield item

        def serialize(message: Message) -> bytes:
            return message.SerializeToString()

        if name in self._conversing:
            return grpc.stream_stream_rpc_method_handler(
                conversing, request_deserializer=request._concrete_class.FromString, response_serializer=serialize
            )
        if name in self._streaming:
            return grpc.unary_stream_rpc_method_handler(
                streaming, request_deserializer=request._concrete_class.FromString, response_serializer=serialize
            )
        return grpc.unary_unary_rpc_method_handler(
            unary, request_deserializer=request._concrete_class.FromString, response_serializer=serialize
        )


async def refuse(
    context: Context,
    code: grpc.StatusCode,
    message: str,
    reason: str = "",
    *details: Message,
    retry_after_seconds: float | None = None,
    **metadata: str,
) -> None:
    """Refuse a call as the engine does, with google.rpc details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain="billing.v1", metadata=metadata)
        details = (info, *details)
    if retry_after_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after_seconds * 1e9))
        details = (*details, retry)
    for detail in details:
        status.details.add().Pack(detail)
    await context.abort_with_status(rpc_status.to_status(status))
