"""TestClockService: clocks of their own for groups of customers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from google.protobuf.empty_pb2 import Empty

from billing.v1.test_clock_service_pb2 import AdvanceTestClockProgress
from billing_server.api.call import Call
from billing_server.api.endpoints import Edge, Endpoint, caller_of, get, listing, path_of, required, response_of
from billing_server.domain.test_clock import TestClock
from billing_server.engine.test_clocks import Progress
from billing_server.store.test_clock import TestClockFilter
from billing_server.wire.codec import check, encode


def _encode(clock: msgspec.Struct, _now: int | None) -> bytes:
    return encode(clock).SerializeToString()


def _encode_nothing(_clock: msgspec.Struct, _now: int | None) -> bytes:
    return Empty().SerializeToString()


async def _create(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    frozen_time = request.frozen_time.seconds if request.HasField("frozen_time") else int(time.time())
    caller = caller_of(call, request, _encode)
    answer = await edge.engine.create_test_clock(call.account_id, request.name or None, frozen_time, caller)
    return response_of(answer, _encode)


async def _delete(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "id")
    caller = caller_of(call, request, _encode_nothing)
    return response_of(await edge.engine.delete_test_clock(call.account_id, request.id, caller), _encode_nothing)


async def _advance(edge: Edge, call: Call, request: Any) -> AsyncIterator[bytes]:
    check(request)
    required(request, "id", "frozen_time")
    caller = caller_of(call, request, _encode)
    moves = edge.engine.clocks.advance(call.account_id, request.id, request.frozen_time.seconds, caller)
    async for progress in moves:
        yield _progress(progress).SerializeToString()


def _progress(progress: Progress) -> AdvanceTestClockProgress:
    clock = encode(progress.clock)
    message = AdvanceTestClockProgress(
        frozen_time=clock.frozen_time,
        status=clock.status,
        books_advanced=progress.books,
        done=progress.done,
        failure=clock.failure,
    )
    target = progress.clock.target_frozen_time
    message.target_frozen_time.seconds = progress.clock.frozen_time if target is None else target
    return message


def _clocks(_request: Any) -> TestClockFilter:
    return TestClockFilter()


ENDPOINTS: Final = (
    Endpoint(path_of("TestClockService/CreateTestClock"), unary=_create),
    get("TestClockService/GetTestClock", TestClock, "test_clock"),
    listing("TestClockService/ListTestClocks", "test_clocks", _clocks),
    Endpoint(path_of("TestClockService/DeleteTestClock"), unary=_delete),
    Endpoint(path_of("TestClockService/AdvanceTestClock"), streaming=_advance),
)
