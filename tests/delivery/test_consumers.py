"""Durable consumers: delivered until acknowledged, in order per customer, shared by connections, parked, moved."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from billing.v1.account_service_pb2 import RevokeApiKeyRequest
from billing.v1.consumer_model_pb2 import CONSUMER_START_BEGINNING, CONSUMER_START_HEAD, CONSUMER_START_POSITION
from billing.v1.event_service_pb2 import (
    ConsumeOpening,
    ConsumeRequest,
    CreateConsumerRequest,
    DeadlineExtension,
    DeleteConsumerRequest,
    DropParkedEventsRequest,
    ListConsumersRequest,
    RetryParkedEventsRequest,
    SeekConsumerRequest,
    UpdateConsumerRequest,
)
from billing_server.bootstrap import Server
from billing_server.delivery import consuming as connections
from billing_server.domain import consumption
from billing_server.domain.consumer import CONSUMERS_MAX, SHARDS, shard_of
from billing_server.store import consumer as stored_consumers
from tests.delivery.clock import ConnectionsClock
from tests.delivery.consuming import (
    Stream,
    consumer_of,
    consuming,
    eventually,
    parked_of,
    positions,
    until_settled,
    write_log,
)
from tests.serving import Caller, hurry, new_caller, refused, serving

A, B = "cus_a", "cus_b"
PATIENT = CreateConsumerRequest(ack_timeout_seconds=3_600)


@pytest.fixture(autouse=True)
def frequent_meetings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections meet more often than they need, so that tests see sooner what they agree on."""
    monkeypatch.setattr(connections, "MEETING_SECONDS", 0.5)


async def log(caller: Caller, *subjects: str, event_type: str = "made.up") -> None:
    """Events of these customers, in this order."""
    await write_log(caller.server.engine, caller.account_id, subjects, event_type)


def in_shards(count: int, per_shard: int = 1) -> list[str]:
    """Customers of so many different shards, some of each."""
    found: dict[int, list[str]] = {}
    for number in range(10_000):
        customer = f"cus_{number}"
        of_shard = found.setdefault(shard_of(customer), [])
        if len(of_shard) < per_shard:
            of_shard.append(customer)
    return [customer for shard in sorted(found)[:count] for customer in found[shard]]


# --- delivering


async def test_events_are_delivered_in_order_and_the_position_is_kept(caller: Caller) -> None:
    await log(caller, A, B, A, B)
    async with consuming(caller) as stream:
        assert stream.consumer.name == "crm"
        assert positions(await stream.events(4)) == [1, 2, 3, 4]
        await stream.acknowledge(1, 2)
        await stream.acknowledge(through_position=3)
        await stream.finish()
    async with consuming(caller) as stream:
        assert positions(await stream.events(1)) == [4]
        assert stream.tries == {4: 0}
        await stream.acknowledge(ids=[f"evt_{caller.account_id[-10:]}{4:012d}"])
        await log(caller, A)
        assert positions(await stream.events(1)) == [5]
        await stream.acknowledge(5)
        await stream.finish()
    progress = (await consumer_of(caller)).progress
    assert (progress.floor_position, progress.lag, progress.unacknowledged, progress.connections) == (5, 0, 0, 0)
    assert (progress.delivered_total, progress.redelivered_total, progress.acknowledged_total) == (6, 1, 5)


async def test_filters_pass_over_what_is_not_wanted(caller: Caller) -> None:
    await log(caller, A, B, event_type="invoice.paid")
    await log(caller, A, event_type="invoice.voided")
    await log(caller, A, B, event_type="customer.created")
    for name, wanted, expected in (
        ("types", {"types": ["invoice.*"]}, [1, 2, 3]),
        ("exact", {"types": ["invoice.paid", "customer.created"]}, [1, 2, 4, 5]),
        ("customer", {"customer": A}, [1, 3, 4]),
        ("both", {"customer": A, "types": ["invoice.*"]}, [1, 3]),
    ):
        async with consuming(caller, name, create=CreateConsumerRequest(**wanted)) as stream:
            assert positions(await stream.until_caught_up()) == expected
            await stream.acknowledge(*expected)
            await stream.finish()
        progress = (await consumer_of(caller, name)).progress
        assert (progress.floor_position, progress.lag) == (5, 0)


async def test_a_consumer_begins_where_it_is_told(caller: Caller) -> None:
    await log(caller, A, A, A)
    for start, after in ((CONSUMER_START_BEGINNING, 0), (CONSUMER_START_HEAD, 0), (CONSUMER_START_POSITION, 2)):
        request = CreateConsumerRequest(name=f"start-{start}", start=start, after_position=after)
        await caller.events.CreateConsumer(request, metadata=caller.login)
    await log(caller, A)
    for start, expected in (
        (CONSUMER_START_BEGINNING, [1, 2, 3, 4]),
        (CONSUMER_START_HEAD, [4]),
        (CONSUMER_START_POSITION, [3, 4]),
    ):
        async with consuming(caller, f"start-{start}") as stream:
            assert positions(await stream.until_caught_up()) == expected


async def test_consumers_are_not_without_number(caller: Caller) -> None:
    """However many are created at once. One that is deleted makes room."""

    async def create(number: int) -> str:
        request = CreateConsumerRequest(name=f"c{number}")
        return (await caller.events.CreateConsumer(request, metadata=caller.login)).name

    for number in range(CONSUMERS_MAX - 2):
        await create(number)
    made = await asyncio.gather(*(create(number) for number in range(200, 206)), return_exceptions=True)
    kept = [name for name in made if isinstance(name, str)]
    assert len(kept) == 2
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "ACCOUNT_MAX_CONSUMERS"):
        await create(300)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "ACCOUNT_MAX_CONSUMERS"):
        async with consuming(caller, "another"):
            pass
    await caller.events.DeleteConsumer(DeleteConsumerRequest(name=kept[0]), metadata=caller.login)
    assert await create(300) == "c300"


async def test_flow_is_limited_by_what_is_unacknowledged(caller: Caller) -> None:
    await log(caller, *[A, B] * 10)
    async with consuming(caller, unacknowledged_max=5, heartbeat_seconds=1) as stream:
        assert positions(await stream.events(5)) == [1, 2, 3, 4, 5]
        assert await stream.batch() == []
        await stream.acknowledge(2, 3)
        assert positions(await stream.events(2)) == [6, 7]
        assert await stream.batch() == []


async def test_what_is_declined_comes_again_and_takes_the_customers_later_events_with_it(
    caller: Caller, clock: ConnectionsClock
) -> None:
    await log(caller, A, B, A, B, A)
    async with consuming(caller, create=PATIENT) as stream:
        assert positions(await stream.events(5)) == [1, 2, 3, 4, 5]
        await stream.decline(3, reason="not now", delay_seconds=600)
        await eventually(lambda: in_flight(caller) == 3)
        await log(caller, A, B)
        assert positions(await stream.events(1)) == [7]
        clock.set_forward(caller.server.consumers, 600)
        assert positions(await stream.events(3)) == [3, 5, 6]
        assert stream.tries == {3: 1, 5: 0, 6: 0}
        await stream.acknowledge(1, 2, 3, 4, 5, 6, 7)
        await stream.finish()
    assert (await consumer_of(caller)).progress.lag == 0


def in_flight(caller: Caller) -> int:
    """How many events are delivered by the shared server and not yet acknowledged."""
    return sum(hand.in_flight for hand in hands(caller))


async def test_an_event_acknowledged_while_it_waits_does_not_come_again(
    caller: Caller, clock: ConnectionsClock
) -> None:
    await log(caller, A, A, A)
    async with consuming(caller, create=PATIENT) as stream:
        await stream.events(3)
        await stream.decline(1, delay_seconds=600)
        await stream.acknowledge(2)
        await eventually(lambda: [hand.held for hand in hands(caller)] == [2])
        clock.set_forward(caller.server.consumers, 600)
        assert positions(await stream.events(2)) == [1, 3]


async def test_what_is_not_acknowledged_in_time_comes_again(caller: Caller, clock: ConnectionsClock) -> None:
    await log(caller, A, A, B)
    async with consuming(caller, create=CreateConsumerRequest(ack_timeout_seconds=600)) as stream:
        await stream.events(3)
        clock.set_forward(caller.server.consumers, 400)
        await stream.acknowledge(3)
        await eventually(lambda: in_flight(caller) == 2)
        clock.set_forward(caller.server.consumers, 400)
        assert positions(await stream.events(2)) == [1, 2]
        assert stream.tries == {1: 1, 2: 0}


async def test_more_time_can_be_asked_for(caller: Caller, clock: ConnectionsClock) -> None:
    """Without it, both would come again after ten minutes."""
    await log(caller, A, B, "cus_c", "cus_d")
    create = CreateConsumerRequest(ack_timeout_seconds=600)
    async with consuming(caller, create=create, heartbeat_seconds=1) as stream:
        await stream.events(4)
        await stream.write(ConsumeRequest(extend=DeadlineExtension(all=True, seconds=3_000)))
        await stream.write(ConsumeRequest(extend=DeadlineExtension(positions=[2], seconds=900)))
        await stream.acknowledge(3)
        await eventually(lambda: in_flight(caller) == 3)
        clock.set_forward(caller.server.consumers, 700)
        assert await stream.batch() == []
        # A sign of life now and then is expected of it all the same.
        await stream.acknowledge(4)
        await eventually(lambda: in_flight(caller) == 2)
        clock.set_forward(caller.server.consumers, 300)
        assert positions(await stream.events(1)) == [2]
        assert await stream.batch() == []


async def test_a_silent_connection_is_ended_so_that_others_get_its_events(caller: Caller) -> None:
    await log(caller, A)
    async with consuming(caller, create=CreateConsumerRequest(ack_timeout_seconds=1)) as silent:
        assert positions(await silent.events(1)) == [1]
        with refused(grpc.StatusCode.ABORTED, "CONSUMER_SILENT"):
            while True:
                await silent.batch()
        async with consuming(caller) as other:
            assert positions(await other.events(1)) == [1]
            assert other.tries == {1: 1}


# --- parking


async def test_an_event_that_fails_too_often_is_parked_and_its_customer_goes_on(caller: Caller) -> None:
    await log(caller, A, A)
    async with consuming(caller, create=CreateConsumerRequest(tries_max=2)) as stream:
        await stream.events(2)
        await stream.decline(1, reason="no such contact")
        assert positions(await stream.events(2)) == [1, 2]
        await stream.decline(1, reason="still no such contact")
        await stream.acknowledge(2)
        await until_settled(caller)
        (parked,) = await parked_of(caller)
        assert (parked.position, parked.tries, parked.reason) == (1, 2, "still no such contact")
        assert parked.event.position == 1
        assert parked.event.customer == A
        assert not parked.retrying
        progress = (await consumer_of(caller)).progress
        assert (progress.parked, progress.lag) == (1, 0)

        request = RetryParkedEventsRequest(consumer="crm", positions=[1, 2])
        answer = await caller.events.RetryParkedEvents(request, metadata=caller.login)
        assert (answer.retried, answer.gone) == (1, 0)
        assert positions(await stream.events(1)) == [1]
        assert stream.tries[1] == 0
        assert await parked_of(caller) == []
        assert (await consumer_of(caller)).progress.lag == 2
        await stream.acknowledge(1)
        await until_settled(caller)


async def test_parked_events_wait_for_a_connection_and_can_be_dropped(caller: Caller) -> None:
    await log(caller, A, B, A)
    async with consuming(caller, create=CreateConsumerRequest(tries_max=1)) as stream:
        await stream.events(3)
        await stream.decline(1, 2, 3)
        await stream.finish()
    assert [parked.position for parked in await parked_of(caller)] == [3, 2, 1]
    dropped = await caller.events.DropParkedEvents(
        DropParkedEventsRequest(consumer="crm", positions=[2]), metadata=caller.login
    )
    assert dropped.dropped == 1
    await caller.events.RetryParkedEvents(RetryParkedEventsRequest(consumer="crm", all=True), metadata=caller.login)
    assert [(parked.position, parked.retrying) for parked in await parked_of(caller)] == [(3, True), (1, True)]
    async with consuming(caller) as stream:
        assert sorted(positions(await stream.events(2))) == [1, 3]
        await stream.acknowledge(1, 3)
        await stream.finish()
    assert (await consumer_of(caller)).progress.parked == 0


async def test_without_room_for_parked_events_nothing_is_lost(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_consumers, "PARKED_MAX", 1)
    monkeypatch.setattr(consumption, "PARKING_FULL_SECONDS", 0)
    await log(caller, A, B)
    async with consuming(caller, create=CreateConsumerRequest(tries_max=1)) as stream:
        await stream.events(2)
        await stream.decline(1)
        await eventually(lambda: has_parked(caller))
        await stream.decline(2)
        assert positions(await stream.events(1)) == [2]
        await stream.acknowledge(2)
        await stream.finish()
    assert [parked.position for parked in await parked_of(caller)] == [1]


async def has_parked(caller: Caller) -> bool:
    return bool(await parked_of(caller))


# --- sharing


async def test_connections_share_the_work_and_each_customer_stays_with_one(caller: Caller) -> None:
    customers = in_shards(SHARDS)
    async with consuming(caller, heartbeat_seconds=1) as first, consuming(caller, heartbeat_seconds=1) as second:
        await eventually(lambda: [len(hand.shards) for hand in hands(caller)] == [SHARDS // 2, SHARDS // 2])
        await log(caller, *customers * 3)
        given: dict[str, set[Stream]] = {customer: set() for customer in customers}
        count = 0
        async with asyncio.timeout(60):
            while count < len(customers) * 3:
                for stream in (first, second):
                    for event in await stream.batch():
                        given[event.customer].add(stream)
                        count += 1
                        await stream.acknowledge(event.position)
        assert all(len(streams) == 1 for streams in given.values())
        shares = [sum(stream in streams for streams in given.values()) for stream in (first, second)]
        assert shares == [SHARDS // 2, SHARDS // 2]


def hands(caller: Caller) -> list[consumption.Hand]:
    """What the connections of the shared server have in hand."""
    return [connection.hand for connection in caller.server.consumers._open[caller.account_id, "crm"]]


async def test_work_is_handed_over_without_repeating_what_is_acknowledged(caller: Caller) -> None:
    customers = in_shards(SHARDS)
    await log(caller, *customers)
    async with consuming(caller, heartbeat_seconds=1) as first:
        events = await first.events(SHARDS)
        async with consuming(caller, heartbeat_seconds=1) as second:
            # The first has everything unacknowledged, so it may not give anything away, and takes no more of it.
            await eventually(lambda: any(s.leaving for hand in hands(caller) for s in hand.shards.values()))
            await log(caller, *customers)
            assert await second.batch() == []
            await first.acknowledge(*positions(events))
            more = await second.events(1)
            seen = positions(more)
            assert set(seen).isdisjoint(positions(events))
            assert second.tries == {}


async def test_who_breaks_off_leaves_its_events_to_the_others_at_once(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are told of it; they would not look for themselves before an hour has passed."""
    monkeypatch.setattr(connections, "MEETING_SECONDS", 3_600)
    monkeypatch.setattr(connections, "LEASE_SECONDS", 7_200)
    await log(caller, A, B, A)
    async with consuming(caller) as first:
        assert positions(await first.events(3)) == [1, 2, 3]
        async with consuming(caller) as second:
            await first.acknowledge(1)
            first.kill()
            got = set[int]()
            async with asyncio.timeout(60):
                while not got >= {2, 3}:
                    got |= set(positions(await second.batch()))


async def test_only_the_event_that_was_had_longest_is_blamed_for_a_broken_connection(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a machine that stands still just then, a broken connection looks for longer like one that has come to its end.
    monkeypatch.setattr(connections, "_GONE_SECONDS", 30)
    await log(caller, A, B, A, B)
    async with consuming(caller) as stream:
        await stream.events(4)
        await stream.acknowledge(1)
        await until_floor(caller, 1)
    async with consuming(caller) as stream:
        assert sorted(positions(await stream.events(3))) == [2, 3, 4]
        assert stream.tries == {2: 1, 3: 0, 4: 0}


async def until_floor(caller: Caller, floor: int) -> None:
    """Wait until acknowledgements are stored."""

    async def reached() -> bool:
        return (await consumer_of(caller)).progress.floor_position >= floor

    await eventually(reached)


async def test_several_servers_share_a_consumer_and_a_drained_one_blames_nobody(
    database_url: str, tmp_path: Path, caller: Caller
) -> None:
    await log(caller, A, B)
    async with consuming(caller) as here:
        async with serving(database_url, tmp_path) as other:
            elsewhere = await new_caller(other, ["events:consume"], caller.account_id)
            assert sorted(positions(await here.events(2))) == [1, 2]
            await here.acknowledge(1, 2)
            there = await Stream(elsewhere, consumer="crm").open()
            customers = in_shards(SHARDS)
            key = (caller.account_id, "crm")
            await eventually(
                lambda: bool(sum(len(opened.hand.shards) for opened in other.consumers._open.get(key, ())))
            )
            await log(caller, *customers)
            had = positions(await there.events(1))
            ending = asyncio.create_task(_ended(there))
            await other.close()
            await ending
            await elsewhere.close()
        again: list[int] = []
        async with asyncio.timeout(60):
            while not set(had) <= set(again):
                again += positions(await here.batch())
    assert all(here.tries.get(position, 0) == 0 for position in had)


async def _ended(stream: Stream) -> None:
    with refused(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"):
        while True:
            await stream.batch()


async def test_a_connection_that_was_taken_for_dead_stores_nothing_any_more(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log(caller, A, A)
    store = caller.server.engine.store
    async with consuming(caller) as first:
        await first.events(2)
        (opened,) = caller.server.consumers._open[caller.account_id, "crm"]
        share = stored_consumers.Share(consumer="crm", connection="con_other")
        async with store.transaction(caller.account_id) as unit:
            # All at once: the first takes its work again as soon as it meets nobody.
            await stored_consumers.lock(unit._connection, caller.account_id, "crm")
            await unit._connection.execute(stored_consumers.CONSUMERS.queries["disband"], caller.account_id, "crm")
            met = await stored_consumers.meet(unit._connection, caller.account_id, share, 3_600)
        assert len(met.taken) == SHARDS
        await first.acknowledge(1, 2)
        await eventually(lambda: not opened.hand.shards)
        assert (await consumer_of(caller)).progress.floor_position == 0
        await store.leave_consumer(caller.account_id, share)
        assert positions(await first.events(2)) == [1, 2]


# --- managing


async def test_consumers_are_listed_changed_moved_and_deleted(caller: Caller) -> None:
    await log(caller, A, A, A)
    login = caller.login
    made = await caller.events.CreateConsumer(
        CreateConsumerRequest(name="crm", types=["made.*"], tries_max=7), metadata=login
    )
    assert (made.tries_max, made.ack_timeout_seconds, made.batch_max, made.unacknowledged_max) == (7, 30, 100, 1000)
    with refused(grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_ALREADY_EXISTS"):
        await caller.events.CreateConsumer(CreateConsumerRequest(name="crm"), metadata=login)
    await caller.events.CreateConsumer(CreateConsumerRequest(name="a-second_1"), metadata=login)
    page = await caller.events.ListConsumers(ListConsumersRequest(page_size=1), metadata=login)
    rest = await caller.events.ListConsumers(
        ListConsumersRequest(page_size=1, page_token=page.next_page_token), metadata=login
    )
    assert {page.consumers[0].name, rest.consumers[0].name} == {"crm", "a-second_1"}
    assert not rest.next_page_token
    assert page.consumers[0].progress.lag == 3

    changed = await caller.events.UpdateConsumer(
        UpdateConsumerRequest(name="crm", batch_max=2, etag=made.etag), metadata=login
    )
    assert (changed.batch_max, changed.tries_max) == (2, 7)
    with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await caller.events.UpdateConsumer(UpdateConsumerRequest(name="crm", etag=made.etag), metadata=login)
    reset = UpdateConsumerRequest(name="crm")
    reset.update_mask.paths.append("tries_max")
    assert (await caller.events.UpdateConsumer(reset, metadata=login)).tries_max == 5

    async with consuming(caller) as stream:
        assert positions(await stream.batch()) == [1, 2]
        await stream.acknowledge(1, 2)
        assert positions(await stream.events(1)) == [3]
        await stream.acknowledge(3)
        await until_settled(caller)
        seek = SeekConsumerRequest(name="crm", start=CONSUMER_START_POSITION, after_position=1)
        assert (await caller.events.SeekConsumer(seek, metadata=login)).progress.floor_position == 1
        assert positions(await stream.events(2)) == [2, 3]
        await caller.events.DeleteConsumer(DeleteConsumerRequest(name="crm"), metadata=login)
        with refused(grpc.StatusCode.NOT_FOUND, "RESOURCE_MISSING"):
            while True:
                await stream.batch()
    with refused(grpc.StatusCode.NOT_FOUND, "RESOURCE_MISSING"):
        await consumer_of(caller)


async def test_what_cannot_be_understood_is_refused(caller: Caller) -> None:
    login = caller.login
    for bad in (
        CreateConsumerRequest(name="Crm"),
        CreateConsumerRequest(name="x" * 65),
        CreateConsumerRequest(name="crm", types=["invoice.paid"] * 101),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_INVALID"):
            await caller.events.CreateConsumer(bad, metadata=login)
    for bad in (
        CreateConsumerRequest(name="crm", ack_timeout_seconds=3601),
        CreateConsumerRequest(name="crm", unacknowledged_max=-1),
        CreateConsumerRequest(name="crm", start=CONSUMER_START_POSITION, after_position=-1),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_INVALID_INTEGER"):
            await caller.events.CreateConsumer(bad, metadata=login)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETERS_EXCLUSIVE"):
        await caller.events.CreateConsumer(CreateConsumerRequest(name="crm", after_position=1), metadata=login)
    with refused(grpc.StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE"):
        request = CreateConsumerRequest(name="crm", start=CONSUMER_START_POSITION, after_position=1)
        await caller.events.CreateConsumer(request, metadata=login)
    with refused(grpc.StatusCode.NOT_FOUND, "RESOURCE_MISSING"):
        await Stream(caller, consumer="crm").open()
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_MISSING"):
        await Stream(caller).open()
    async with consuming(caller) as stream:
        await stream.write(ConsumeRequest(opening=ConsumeOpening(consumer="crm")))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_INVALID"):
            while True:
                await stream.batch()
    async with consuming(caller) as stream:
        await stream.acknowledge(*range(10_001))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_INVALID"):
            while True:
                await stream.batch()


async def test_what_retention_took_is_told_until_the_consumer_is_moved(caller: Caller) -> None:
    await log(caller, A, B, A)
    async with consuming(caller) as stream:
        await stream.events(3)
        await stream.acknowledge(1, 2)
        await stream.finish()
    await caller.server.engine.store.purge_events(caller.account_id, 2**40)
    await log(caller, A)
    with refused(grpc.StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE"):
        async with consuming(caller) as stream:
            await stream.batch()
    seek = SeekConsumerRequest(name="crm", start=CONSUMER_START_BEGINNING)
    await caller.events.SeekConsumer(seek, metadata=caller.login)
    async with consuming(caller) as stream:
        assert positions(await stream.events(1)) == [4]


async def test_parked_events_that_are_gone_stay_until_they_are_dropped(caller: Caller) -> None:
    await log(caller, A)
    async with consuming(caller, create=CreateConsumerRequest(tries_max=1)) as stream:
        await stream.events(1)
        await stream.decline(1)
        await stream.finish()
    await caller.server.engine.store.purge_events(caller.account_id, 2**40)
    request = RetryParkedEventsRequest(consumer="crm", all=True)
    answer = await caller.events.RetryParkedEvents(request, metadata=caller.login)
    assert (answer.retried, answer.gone) == (0, 1)
    (parked,) = await parked_of(caller)
    assert not parked.HasField("event")


# --- the edge


async def test_a_revoked_key_ends_the_stream_and_leaves_the_work_to_others(caller: Caller) -> None:
    await log(caller, A)
    other = await new_caller(caller.server, ["events:consume"], caller.account_id)
    async with consuming(caller) as waiting:
        stream = await Stream(other, consumer="crm").open()
        await caller.accounts.RevokeApiKey(RevokeApiKeyRequest(id=other.key_id), metadata=caller.login)
        with refused(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
            while True:
                await stream.batch()
        assert positions(await waiting.events(1)) == [1]
    await other.close()


async def test_a_frozen_reader_is_given_up_and_delays_nobody(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log(caller, *[f"cus_{'x' * 50}{number:04d}" for number in range(3_000)])
    narrow = (("grpc.http2.lookahead_bytes", 16_384), ("grpc.http2.bdp_probe", 0))
    reader = await new_caller(server, account_id=caller.account_id, options=narrow)
    hurry(reader, monkeypatch, seconds=1.0, after=1)
    frozen = await Stream(reader, consumer="crm", create=CreateConsumerRequest(unacknowledged_max=10_000)).open()
    await asyncio.wait_for(server.limits.idle(), 60)
    assert caller.account_id not in server.engine.bell._waiting
    async with consuming(caller) as stream:
        assert len(await stream.events(100)) >= 100
    with refused(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"):
        while True:
            await frozen.batch()
    await reader.close()


async def test_connections_that_go_away_leave_nothing_behind(server: Server, caller: Caller) -> None:
    await log(caller, *in_shards(8))
    for _ in range(3):
        streams = [await Stream(caller, consumer="crm", create=CreateConsumerRequest()).open() for _ in range(8)]
        random.shuffle(streams)
        for stream in streams:
            stream.kill()
    await asyncio.wait_for(server.limits.idle(), 60)
    await asyncio.gather(*server.consumers._leaving)
    assert server.consumers.connections == 0
    assert caller.account_id not in server.engine.bell._waiting
    assert (await consumer_of(caller)).progress.connections == 0
