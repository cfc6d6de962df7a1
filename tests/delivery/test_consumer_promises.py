"""Durable consumers under random acknowledgements, refusals, silence and broken connections, on two servers.

The referee must catch planted faults before its silence counts.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from billing.v1.event_service_pb2 import CreateConsumerRequest
from billing_server.api.call import RUNNING
from billing_server.delivery import consuming as connections
from billing_server.delivery.consuming import Connection
from billing_server.domain import consumption
from billing_server.domain.consumer import SHARDS
from billing_server.domain.consumption import Entry, Hand
from tests.delivery.consuming import Stream, consuming, parked_of, until_settled, write_log
from tests.delivery.referee import Referee
from tests.serving import Caller, lost_while_sending, new_caller, serving

EVENTS = 3_000
CUSTOMERS = 40
CONNECTIONS = 3
ACK_SECONDS = 3
DECLINED = "by chance"
CREATE = CreateConsumerRequest(ack_timeout_seconds=ACK_SECONDS, tries_max=3, batch_max=50)


@pytest.fixture
async def elsewhere(database_url: str, tmp_path: Path, caller: Caller) -> AsyncIterator[Caller]:
    """The same account at another server."""
    async with serving(database_url, tmp_path) as server:
        made = await new_caller(server, account_id=caller.account_id)
        yield made
        await made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MEETING_SECONDS", 0.3)
    monkeypatch.setattr(consumption, "DECLINE_SECONDS", 0.05)


class Servers:
    """What servers have done before those who consume hear of it: what they sent, took back, and when they ended
    connections, by their names. Moments are of the monotonic clock.
    """

    def __init__(self) -> None:
        self.sent: dict[tuple[str, int], float] = {}
        self._taken_back: dict[tuple[str, int], float] = {}
        self._ended: dict[str, float] = {}

    def let_go(self, name: str, position: int, given_at: float, now: float) -> bool:
        """Whether a connection that was given an event had lost it, rightly, by a moment."""
        taken_back = self._taken_back.get((name, position), math.inf)
        return self._ended.get(name, math.inf) <= now or given_at <= taken_back <= now

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Note what all servers of this process do."""
        launch, fail, leave = Hand._launch, Hand.fail, Connection.leave

        def noted_launch(hand: Hand, entry: Entry, lane: Any, now: float) -> None:
            self.sent[RUNNING.get().request_id, entry.position] = now
            launch(hand, entry, lane, now)

        def noted_fail(hand: Hand, entry: Entry, delay: float, reason: str, now: float) -> None:
            name = RUNNING.get().request_id
            flying = list(hand._lanes[entry.lane].in_flight) if entry.flying else []
            rightly = reason == DECLINED or now - self.sent[name, entry.position] >= ACK_SECONDS
            fail(hand, entry, delay, reason, now)
            if rightly:
                self._taken_back |= {(name, position): now for position in flying if position not in hand._flying}

        async def noted_leave(connection: Connection, *, blame: bool) -> None:
            self._ended[RUNNING.get().request_id] = time.monotonic()
            await leave(connection, blame=blame)

        monkeypatch.setattr(Hand, "_launch", noted_launch)
        monkeypatch.setattr(Hand, "fail", noted_fail)
        monkeypatch.setattr(Connection, "leave", noted_leave)


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> Servers:
    """All servers of this process, which are held to what they do, however late a worker hears of it."""
    watched = Servers()
    watched.watch(monkeypatch)
    return watched


class Worker:
    """A consumer that does everything wrong now and then, over one connection after another."""

    def __init__(self, callers: list[Caller], referee: Referee, servers: Servers, seed: str) -> None:
        self._callers = callers
        self._servers = servers
        self._referee = referee
        self._random = random.Random(seed)
        self._connections = 0
        self._seed = seed

    async def run(self) -> None:
        """Consume until canceled."""
        while True:
            self._connections += 1
            name = f"{self._seed}.{self._connections}"
            stream = Stream(self._random.choice(self._callers), name, consumer="crm", create=CREATE)
            try:
                await stream.open()
                await self._consume(name, stream, lifetime=self._random.randint(1, 25))
            except grpc.aio.AioRpcError as error:
                ended = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)
                assert ended or lost_while_sending(error), error
            finally:
                self._referee.gone(name)
                stream.kill()

    async def _consume(self, name: str, stream: Stream, lifetime: int) -> None:
        slow: list[int] = []
        for _ in range(lifetime):
            batch = await stream.batch()
            for event in batch:
                self._referee.delivered(name, event.position, self._servers.sent[name, event.position])
            for position in slow:
                await self._acknowledge(name, stream, position)
            slow = []
            for event in batch:
                await self._handle(name, stream, event.position, slow)
        if self._random.random() < 0.3:
            self._referee.gone(name)
            await stream.finish()

    async def _handle(self, name: str, stream: Stream, position: int, slow: list[int]) -> None:
        fate = self._random.random()
        if fate < 0.7:
            await self._acknowledge(name, stream, position)
        elif fate < 0.93:
            slow.append(position)
        elif fate < 0.98:
            self._referee.give_back(name, position)
            await stream.decline(position, reason=DECLINED)

    async def _acknowledge(self, name: str, stream: Stream, position: int) -> None:
        self._referee.acknowledge(name, position)
        await stream.acknowledge(position)


async def consume_by_chance(callers: list[Caller], servers: Servers, seed: str, settle_seconds: float = 180) -> Referee:
    """Fill a log, and have some workers consume it until nothing is left; return the referee."""
    chance = random.Random(seed)
    subjects = [f"cus_{chance.randrange(CUSTOMERS)}" for _ in range(EVENTS)]
    first = callers[0]
    before = await write_log(first.server.engine, first.account_id, subjects)
    referee = Referee(dict(enumerate(subjects, before + 1)), held_seconds=ACK_SECONDS, let_go=servers.let_go)
    workers = [Worker(callers, referee, servers, f"{seed}.{number}") for number in range(CONNECTIONS)]
    tasks = [asyncio.create_task(worker.run()) for worker in workers]
    settled = asyncio.create_task(_settled(first, settle_seconds))
    try:
        done, _ = await asyncio.wait({*tasks, settled}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in (*tasks, settled):
            task.cancel()
        await asyncio.gather(*tasks, settled, return_exceptions=True)
    return referee


async def _settled(caller: Caller, seconds: float) -> None:
    while True:
        try:
            await until_settled(caller, seconds=seconds)
            return
        except grpc.aio.AioRpcError as error:
            # The first worker makes the consumer.
            assert error.code() is grpc.StatusCode.NOT_FOUND, error
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("seed", ["1", "2"])
async def test_nothing_is_missed_and_each_customer_is_told_in_order(
    caller: Caller, elsewhere: Caller, servers: Servers, seed: str
) -> None:
    referee = await consume_by_chance([caller, elsewhere], servers, seed)
    parked = [event.position for event in await parked_of(caller)]
    referee.judge(parked)
    assert referee.repeated
    assert len(parked) < EVENTS / 10


async def test_the_referee_sees_acknowledgements_before_delivery(
    caller: Caller, elsewhere: Caller, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Hand.to_store

    def forgetful(hand: Hand, shard: Any, **moments: Any) -> Any:
        shard.entries, entries = {}, shard.entries
        try:
            return honest(hand, shard, **moments)
        finally:
            shard.entries = entries

    monkeypatch.setattr(Hand, "to_store", forgetful)
    referee = await consume_by_chance([caller, elsewhere], servers, "planted")
    with pytest.raises(AssertionError, match="never"):
        referee.judge(event.position for event in await parked_of(caller))


async def hold_while_another_joins(caller: Caller, *, gets_something: bool) -> Referee:
    """One connection is given events and says nothing; when another one joins, the referee sees what that gets.

    It is listened to until it gets something; one that should not, for some heartbeats.
    """
    customers = [f"cus_{number}" for number in range(SHARDS)]
    before = await write_log(caller.server.engine, caller.account_id, customers)
    referee = Referee(dict(enumerate(customers, before + 1)), held_seconds=3_600)
    async with consuming(caller, create=CreateConsumerRequest(ack_timeout_seconds=3_600)) as first:
        for event in await first.events(len(customers)):
            referee.delivered("first", event.position)
        async with consuming(caller, heartbeat_seconds=1) as second:
            heartbeats = 0
            while (heartbeats < 60 and not referee.violations) if gets_something else heartbeats < 3:
                for event in await second.batch():
                    referee.delivered("second", event.position)
                heartbeats += 1
    return referee


async def test_nothing_that_a_connection_holds_goes_to_another(caller: Caller) -> None:
    referee = await hold_while_another_joins(caller, gets_something=False)
    assert not referee.violations


async def test_the_referee_sees_work_given_away_too_early(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Hand, "ready_to_leave", property(lambda hand: [s.number for s in hand.shards.values() if s.leaving])
    )
    referee = await hold_while_another_joins(caller, gets_something=True)
    assert {violation.problem for violation in referee.violations} == {"is with first"}


async def test_the_referee_sees_customers_overtaken(
    caller: Caller, elsewhere: Caller, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Hand.take

    def hasty(hand: Hand, state: Any, subjects: Any, **moments: Any) -> None:
        honest(hand, state, {position: f"{subject} {position}" for position, subject in subjects.items()}, **moments)
        for number, lane in enumerate(lane for lane in hand._lanes.values() if lane.held):
            lane.held[0].due += number % 2 * 0.3

    monkeypatch.setattr(Hand, "take", hasty)
    referee = await consume_by_chance([caller, elsewhere], servers, "planted")
    with pytest.raises(AssertionError, match="the order was broken"):
        referee.judge(event.position for event in await parked_of(caller))
