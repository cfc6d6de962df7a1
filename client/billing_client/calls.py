"""What is done to every call on its way out: key, idempotency key, deadline, retries, and errors of the tree.

Interceptors of the channel, so that the generated stubs can be used as they are, types and all.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, cast

import grpc
from grpc.aio import ClientCallDetails, Metadata

from billing_client.errors import from_rpc_error
from billing_client.methods import READING_METHODS
from billing_client.retry import RetryPolicy

IDEMPOTENCY_KEY = "idempotency-key"
IDEMPOTENCY_KEY_LENGTH_MAX = 255


def idempotency_key(key: str) -> tuple[tuple[str, str], ...]:
    """Call metadata with an idempotency key of one's own: `metadata=idempotency_key("order-17")`.

    A call with the same key and the same request, within 24 hours at least, is answered by the first response
    instead of being carried out again, whichever process makes it.

    Raises ValueError when the key is empty, longer than 255 characters, or not printable ASCII.
    """
    if not 0 < len(key) <= IDEMPOTENCY_KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        raise ValueError(
            f"an idempotency key has 1 to {IDEMPOTENCY_KEY_LENGTH_MAX} printable ASCII characters, not {key!r}"
        )
    return ((IDEMPOTENCY_KEY, key),)


class UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends the key, gives changes an idempotency key, sets a deadline for each attempt, and tries again."""

    def __init__(self, authorization: str, timeout_seconds: float, retry: RetryPolicy) -> None:
        self._authorization = authorization
        self._timeout_seconds = timeout_seconds
        self._retry = retry

    async def intercept_unary_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make the call; all attempts of it carry the same idempotency key. Raises BillingError."""
        details = self._complete(client_call_details)
        attempts = 0
        while True:
            attempts += 1
            try:
                call = await continuation(details, request)
                await call
                return call
            except grpc.aio.AioRpcError as rpc_error:
                error = from_rpc_error(rpc_error)
                delay_seconds = self._retry.delay_seconds(error, attempts)
                if delay_seconds is None:
                    raise error from rpc_error
            await asyncio.sleep(delay_seconds)

    def _complete(self, details: ClientCallDetails) -> ClientCallDetails:
        metadata = with_authorization(details.metadata, self._authorization)
        if method_path(details) not in READING_METHODS and metadata.get(IDEMPOTENCY_KEY) is None:
            metadata.add(IDEMPOTENCY_KEY, str(uuid.uuid4()))
        timeout = self._timeout_seconds if details.timeout is None else details.timeout
        return ClientCallDetails(details.method, timeout, metadata, details.credentials, details.wait_for_ready)


class StreamCalls(grpc.aio.UnaryStreamClientInterceptor):
    """Sends the key with streams. Taking up a broken stream is the business of who reads it."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    async def intercept_unary_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: ClientCallDetails,
        request: Any,
    ) -> Any:
        """Open the stream with the key in its metadata."""
        return await continuation(_authorized(client_call_details, self._authorization), request)


class GatheringCalls(grpc.aio.StreamUnaryClientInterceptor):
    """Sends the key with streams of requests. Repeating a broken one is the business of who has the requests."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    async def intercept_stream_unary(
        self,
        continuation: Callable[..., Any],
        client_call_details: ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        """Open the stream with the key in its metadata."""
        return await continuation(_authorized(client_call_details, self._authorization), request_iterator)


class ConversingCalls(grpc.aio.StreamStreamClientInterceptor):
    """Sends the key with streams in both directions. Taking up a broken one is the business of who reads it."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    async def intercept_stream_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: ClientCallDetails,
        request_iterator: Any,
    ) -> Any:
        """Open the stream with the key in its metadata."""
        return await continuation(_authorized(client_call_details, self._authorization), request_iterator)


def _authorized(details: ClientCallDetails, authorization: str) -> ClientCallDetails:
    """The call with the key in its metadata."""
    return ClientCallDetails(
        details.method,
        details.timeout,
        with_authorization(details.metadata, authorization),
        details.credentials,
        details.wait_for_ready,
    )


def method_path(details: ClientCallDetails) -> str:
    """The path of a call's method, which gRPC hands out as bytes or as text."""
    method = cast("str | bytes", details.method)
    return method.decode() if isinstance(method, bytes) else method


def with_authorization(metadata: Metadata | None, authorization: str) -> Metadata:
    """A copy of the metadata with the API key, unless it names one itself."""
    completed = Metadata(*(metadata or ()))
    if completed.get("authorization") is None:
        completed.add("authorization", authorization)
    return completed
