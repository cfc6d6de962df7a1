"""Advancing a test clock: the progress goes on after a broken connection, and ends when the clock arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import test_clock_model_pb2 as model
from billing.v1.test_clock_service_pb2 import (
    AdvanceTestClockProgress,
    AdvanceTestClockRequest,
    GetTestClockRequest,
)
from billing_client import BillingClient, ClockStuck, InvalidArgument
from tests.client.fake_server import Context, FakeServer, refuse

READY = model.TEST_CLOCK_STATUS_READY
ADVANCING = model.TEST_CLOCK_STATUS_ADVANCING
STUCK = model.TEST_CLOCK_STATUS_INTERNAL_FAILURE


class Clock:
    """A clock that moves 100 seconds with each message, whose connection breaks as a test plans."""

    def __init__(self) -> None:
        self.now = 0
        self.status = READY
        self.breaks_after: list[int] = []
        self.arrives_alone = False

    async def advance(
        self, request: AdvanceTestClockRequest, context: Context
    ) -> AsyncIterator[AdvanceTestClockProgress]:
        target = request.frozen_time.seconds
        if target <= self.now:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "backwards", "TEST_CLOCK_BACKWARDS")
        left = self.breaks_after.pop(0) if self.breaks_after else -1
        while self.now < target:
            if left == 0:
                if self.arrives_alone:
                    self.now = target
                await refuse(context, grpc.StatusCode.UNAVAILABLE, "going away")
            left -= 1
            self.now += 100
            done = self.now >= target
            yield AdvanceTestClockProgress(
                frozen_time=Timestamp(seconds=self.now),
                target_frozen_time=request.frozen_time,
                status=self.status if done else ADVANCING,
                done=done,
                failure="cus_1 is broken" if done and self.status == STUCK else "",
            )

    async def get(self, request: GetTestClockRequest, context: Context) -> model.TestClock:
        return model.TestClock(id=request.id, frozen_time=Timestamp(seconds=self.now), status=READY)


@pytest.fixture
def clock(fake: FakeServer) -> Clock:
    served = Clock()
    fake.streaming("AdvanceTestClock", served.advance)
    fake.unary("GetTestClock", served.get)
    return served


async def seconds(client: BillingClient, to: int) -> list[int]:
    return [item.frozen_time.seconds async for item in client.advance_test_clock("clock_1", to)]


async def test_progress_goes_on_after_broken_connections(fake: FakeServer, client: BillingClient, clock: Clock) -> None:
    clock.breaks_after = [2, 0, 1]
    await fake.start()
    assert await seconds(client, 500) == [100, 200, 300, 400, 500]
    advances = [metadata["idempotency-key"] for name, metadata in fake.calls if name == "AdvanceTestClock"]
    assert len(advances) == 4
    assert len(set(advances)) == 1


async def test_an_arrival_while_disconnected_is_noticed(fake: FakeServer, client: BillingClient, clock: Clock) -> None:
    clock.breaks_after = [1]
    clock.arrives_alone = True
    await fake.start()
    progress = [item async for item in client.advance_test_clock("clock_1", datetime(1970, 1, 1, 0, 8, tzinfo=UTC))]
    assert [(item.frozen_time.seconds, item.done) for item in progress] == [(100, False), (480, True)]


async def test_a_stuck_clock_is_an_error_after_its_last_message(
    fake: FakeServer, client: BillingClient, clock: Clock
) -> None:
    clock.status = STUCK
    await fake.start()
    progress = client.advance_test_clock("clock_1", 200)
    assert not (await anext(progress)).done
    assert (await anext(progress)).done
    with pytest.raises(ClockStuck, match="cus_1 is broken"):
        await anext(progress)


async def test_a_refusal_is_raised(fake: FakeServer, client: BillingClient, clock: Clock) -> None:
    clock.now = 900
    await fake.start()
    with pytest.raises(InvalidArgument, match="backwards"):
        await seconds(client, 500)


def test_a_time_without_a_zone_is_refused(client: BillingClient) -> None:
    with pytest.raises(ValueError, match="time zone"):
        client.advance_test_clock("clock_1", datetime(2025, 1, 1))  # noqa: DTZ001  (the mistake under test)
