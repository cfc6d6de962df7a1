"""Moving a test clock, with its progress as an iterator that survives a restart of the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.test_clock_model_pb2 import TestClockStatus
from billing.v1.test_clock_service_pb2 import (
    AdvanceTestClockProgress,
    AdvanceTestClockRequest,
    GetTestClockRequest,
)
from billing.v1.test_clock_service_pb2_grpc import TestClockServiceStub
from billing_client.errors import BillingError, ClockStuck, ConnectionFailed, Refusal, from_rpc_error
from billing_client.retry import RetryPolicy, is_broken_stream

_READY = TestClockStatus.TEST_CLOCK_STATUS_READY
_STUCK = TestClockStatus.TEST_CLOCK_STATUS_INTERNAL_FAILURE

_SILENCE_SECONDS = 60.0
"""After so long without progress the connection counts as lost; the clock goes on either way."""


def timestamp(instant: datetime | int | Timestamp) -> Timestamp:
    """An instant as the contract has it, from Unix seconds or from a datetime that knows its time zone."""
    if isinstance(instant, Timestamp):
        return instant
    if isinstance(instant, int):
        return Timestamp(seconds=instant)
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} names no time zone; use datetime(..., tzinfo=UTC)")
    moment = Timestamp()
    moment.FromDatetime(instant)
    return moment


async def advance(
    stub: TestClockServiceStub,
    retry: RetryPolicy,
    request: AdvanceTestClockRequest,
    metadata: tuple[tuple[str, str], ...],
) -> AsyncGenerator[AdvanceTestClockProgress, None]:
    """Move a clock and tell how far it has come; see `BillingClient.advance_test_clock`."""
    failures = 0
    connected = False
    while True:
        try:
            async with aclosing(_connection(stub, request, metadata, resumed=failures > 0)) as messages:
                async for progress in messages:
                    failures, connected = 0, True
                    yield progress
                    if progress.done:
                        stuck = progress.failure or "the server did not say why"
                        if progress.status == _STUCK:
                            raise _failed(ClockStuck, f"the test clock {request.id} is stuck: {stuck}")
                        return
            error = _failed(ConnectionFailed, "the server ended the progress of the test clock")
        except grpc.aio.AioRpcError as rpc_error:
            error = from_rpc_error(rpc_error)
        except TimeoutError:
            error = _failed(ConnectionFailed, "the progress of the test clock fell silent")
        except BillingError as refused:
            error = refused
        failures += 1
        if not is_broken_stream(error) or (failures >= retry.attempts_max and not connected):
            raise error
        await asyncio.sleep(max(error.retry_after_seconds or 0.0, retry.backoff_seconds(failures)))


async def _connection(
    stub: TestClockServiceStub,
    request: AdvanceTestClockRequest,
    metadata: tuple[tuple[str, str], ...],
    *,
    resumed: bool,
) -> AsyncGenerator[AdvanceTestClockProgress, None]:
    """The messages of one connection. The clock may have arrived while there was none."""
    if resumed:
        clock = await stub.GetTestClock(GetTestClockRequest(id=request.id))
        if clock.status == _READY and clock.frozen_time.seconds >= request.frozen_time.seconds:
            yield AdvanceTestClockProgress(
                frozen_time=clock.frozen_time,
                target_frozen_time=request.frozen_time,
                status=_READY,
                done=True,
            )
            return
    call = stub.AdvanceTestClock(request, metadata=metadata)
    try:
        while True:
            # Not wait_for: when a message comes just as this task is canceled, it would swallow that.
            async with asyncio.timeout(_SILENCE_SECONDS):
                progress = await call.read()
            if not isinstance(progress, AdvanceTestClockProgress):
                return
            yield progress
    finally:
        call.cancel()


def _failed(kind: type[BillingError], message: str) -> BillingError:
    """An error that this side finds; a clock that is stuck is no passing failure."""
    code = grpc.StatusCode.UNAVAILABLE if kind is ConnectionFailed else grpc.StatusCode.FAILED_PRECONDITION
    return kind(Refusal(code=code, message=message))
