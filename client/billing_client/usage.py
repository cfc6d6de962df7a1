"""Reporting usage: any number of meter events in streams of batches, safely repeated when a connection breaks."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from itertools import islice

import grpc

from billing.v1.meter_model_pb2 import MeterEvent
from billing.v1.meter_service_pb2 import ReportMeterEventsRequest, ReportMeterEventsResponse
from billing.v1.meter_service_pb2_grpc import MeterServiceStub
from billing_client.errors import BillingError, from_rpc_error
from billing_client.retry import RetryPolicy, is_broken_stream

BATCH_EVENTS = 500
"""Events in a message by default."""

STREAM_EVENTS = 50_000
"""Events in one stream: what has to be sent again when its connection breaks."""


async def report(
    stub: MeterServiceStub,
    retry: RetryPolicy,
    events: Iterable[MeterEvent] | AsyncIterable[MeterEvent],
    batch_events: int = BATCH_EVENTS,
) -> ReportMeterEventsResponse:
    """Report events and sum up what became of them; see `BillingClient.report_usage`."""
    summary = ReportMeterEventsResponse()
    seen = 0
    async for part in _parts(events, STREAM_EVENTS):
        for event in part:
            event.identifier = event.identifier or str(uuid.uuid4())
        answer = await _send(stub, retry, part, batch_events)
        for refusal in answer.refusals:
            refusal.index += seen
        summary.accepted += answer.accepted
        summary.duplicates += answer.duplicates
        summary.refused += answer.refused
        summary.refusals.extend(answer.refusals)
        seen += len(part)
    return summary


async def _send(
    stub: MeterServiceStub, retry: RetryPolicy, events: list[MeterEvent], batch_events: int
) -> ReportMeterEventsResponse:
    """Send one stream until the server has all of it; identifiers keep what it has from counting twice."""
    failures = 0
    while True:
        try:
            return await stub.ReportMeterEvents(_messages(events, batch_events))
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
        except BillingError as refused:
            error = refused
        failures += 1
        if failures >= retry.attempts_max or not is_broken_stream(error):
            raise error
        await asyncio.sleep(max(error.retry_after_seconds or 0.0, retry.backoff_seconds(failures)))


async def _messages(events: list[MeterEvent], batch_events: int) -> AsyncIterator[ReportMeterEventsRequest]:
    for start in range(0, len(events), batch_events):
        yield ReportMeterEventsRequest(events=events[start : start + batch_events])


async def _parts(
    events: Iterable[MeterEvent] | AsyncIterable[MeterEvent], size: int
) -> AsyncIterator[list[MeterEvent]]:
    """The events in lists of so many."""
    if not isinstance(events, AsyncIterable):
        iterator = iter(events)
        while part := list(islice(iterator, size)):
            yield part
        return
    part = []
    async for event in events:
        part.append(event)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
