"""Creating any number of subscriptions by streams that are taken up again when their connection breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from itertools import islice

import grpc

from billing.v1.errors_pb2 import ErrorReason
from billing.v1.subscription_service_pb2 import (
    CreateSubscriptionRefusal,
    CreateSubscriptionResult,
    CreateSubscriptionsRequest,
    SubscriptionToCreate,
)
from billing.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from billing_client.calls import idempotency_key
from billing_client.errors import BillingError, ConnectionFailed, Refusal, from_rpc_error
from billing_client.retry import RetryPolicy, is_broken_stream

MESSAGE_SUBSCRIPTIONS = 100
"""Subscriptions in a message: as many as the contract allows."""

_ENDED_EARLY = "the server ended the stream before it had answered all of it"


async def create(
    stub: SubscriptionServiceStub, retry: RetryPolicy, wanted: Iterable[SubscriptionToCreate]
) -> AsyncGenerator[tuple[SubscriptionToCreate, CreateSubscriptionResult], None]:
    """What became of each, in order; see `BillingClient.create_subscriptions`."""
    messages = _Messages(wanted)
    failures = 0
    while True:
        call = stub.CreateSubscriptions(messages.to_send())
        try:
            async for response in call:
                failures = 0
                for one, result in zip(messages.answered(), response.results, strict=True):
                    yield one, await _final(stub, one, result)
            if not messages.unanswered:
                return
            error: BillingError = ConnectionFailed(Refusal(code=grpc.StatusCode.UNAVAILABLE, message=_ENDED_EARLY))
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
        except BillingError as refused:
            error = refused
        finally:
            call.cancel()
        failures += 1
        if failures >= retry.attempts_max or not is_broken_stream(error):
            raise error
        await asyncio.sleep(max(error.retry_after_seconds or 0.0, retry.backoff_seconds(failures)))


async def _final(
    stub: SubscriptionServiceStub, one: SubscriptionToCreate, result: CreateSubscriptionResult
) -> CreateSubscriptionResult:
    """The result, asked for again by itself where waiting helps: an earlier stream may still be at work on it."""
    if not result.refusal.HasField("retry_after"):
        return result
    try:
        made = await stub.CreateSubscription(one.request, metadata=idempotency_key(one.idempotency_key))
    except BillingError as error:
        if not error.reason:
            return result
        reason = ErrorReason.Value(f"ERROR_REASON_{error.reason}")
        return CreateSubscriptionResult(refusal=CreateSubscriptionRefusal(reason=reason, message=error.message))
    return CreateSubscriptionResult(subscription=made)


class _Messages:
    """The messages of an import: those that are not answered yet are sent again by the next stream."""

    def __init__(self, wanted: Iterable[SubscriptionToCreate]) -> None:
        self._rest = _parts(iter(wanted))
        self.unanswered: deque[CreateSubscriptionsRequest] = deque()

    async def to_send(self) -> AsyncIterator[CreateSubscriptionsRequest]:
        """All that is still to be answered."""
        for message in list(self.unanswered):
            yield message
        for message in self._rest:
            self.unanswered.append(message)
            yield message

    def answered(self) -> Iterable[SubscriptionToCreate]:
        """The subscriptions of the message that the next answer is for."""
        return self.unanswered.popleft().subscriptions


def _parts(wanted: Iterator[SubscriptionToCreate]) -> Iterator[CreateSubscriptionsRequest]:
    while part := list(islice(wanted, MESSAGE_SUBSCRIPTIONS)):
        yield CreateSubscriptionsRequest(subscriptions=part)
