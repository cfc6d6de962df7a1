"""Event streams: from any position, without gap or repeat; filters, heartbeats, slow readers, revoked keys."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest

from billing.v1.account_service_pb2 import RevokeApiKeyRequest
from billing.v1.customer_service_pb2 import CreateCustomerRequest, UpdateCustomerRequest
from billing.v1.event_model_pb2 import Event, EventBatch
from billing.v1.event_service_pb2 import CreateConsumerRequest, ListEventsRequest, StreamEventsRequest
from billing_server.api.call import Identity
from billing_server.bootstrap import Server
from billing_server.delivery import passages, streams
from billing_server.domain.errors import OutOfRange
from billing_server.engine import bell
from billing_server.engine.api_keys import hash_of
from billing_server.store.errors import StoreUnavailable
from billing_server.store.event import EventPage
from billing_server.store.view import View
from tests.api.world import build
from tests.serving import Caller, detail_of, hurry, info_of, new_caller, refused, serving


async def follow(caller: Caller, **wanted: Any) -> AsyncGenerator[EventBatch, None]:
    """The batches of a stream, which is canceled when the generator is closed."""
    stream: Any = caller.events.StreamEvents(StreamEventsRequest(**wanted), metadata=caller.login, timeout=120)
    try:
        async for batch in stream:
            yield batch
    finally:
        stream.cancel()


async def until_caught_up(caller: Caller, **wanted: Any) -> tuple[list[Event], int]:
    """All events that there are, and the head to resume from."""
    events: list[Event] = []
    async with contextlib.aclosing(follow(caller, **wanted)) as batches:
        async for batch in batches:
            events += batch.events
            if batch.caught_up:
                return events, batch.head_position
    raise AssertionError("the stream ended")


async def write(caller: Caller, count: int) -> None:
    """Make so many events, one after the other."""
    for number in range(count):
        request = CreateCustomerRequest(name=f"customer {number}")
        await caller.customers.CreateCustomer(request, metadata=caller.login)


async def test_a_stream_replays_from_any_position(caller: Caller) -> None:
    await build(caller)
    everything, head = await until_caught_up(caller)
    assert [event.position for event in everything] == list(range(1, head + 1))
    assert all(event.account == caller.account_id for event in everything)
    for position in (0, 1, head // 2, head - 1, head):
        rest, seen_head = await until_caught_up(caller, after_position=position, batch_max=3)
        assert (rest, seen_head) == (everything[position:], head)


async def test_a_stream_and_a_list_show_the_same_events(caller: Caller) -> None:
    await build(caller)
    streamed, _ = await until_caught_up(caller)
    listed = await caller.events.ListEvents(ListEventsRequest(page_size=1000), metadata=caller.login)
    assert list(reversed(listed.events)) == streamed


async def test_nothing_is_missed_or_repeated_between_replay_and_live(server: Server, caller: Caller) -> None:
    await write(caller, 20)
    total = 20 + 8 * 25

    async def read(batch_max: int) -> list[int]:
        positions: list[int] = []
        async for batch in follow(caller, batch_max=batch_max):
            positions += [event.position for event in batch.events]
            if len(positions) >= total:
                return positions
        return positions

    readers = [asyncio.create_task(read(size)) for size in (1, 7, 100, 1000)]
    await asyncio.gather(*(write(caller, 25) for _ in range(8)))
    for reader in readers:
        assert await reader == list(range(1, total + 1))


async def test_a_reader_of_another_process_is_woken(
    database_url: str, tmp_path: Path, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the bell: it would not look for itself within this test, nor have a heartbeat."""
    monkeypatch.setattr(bell, "_TELL_SECONDS_MAX", 60)
    async with serving(database_url, tmp_path) as other:
        other.event_streams.poll_seconds = 3_600
        reader = await new_caller(other, account_id=caller.account_id)
        batches = follow(reader, heartbeat_seconds=300)
        assert (await anext(batches)).caught_up
        await write(caller, 1)
        async with asyncio.timeout(60):
            assert [event.type for event in (await anext(batches)).events] == ["customer.created"]
        await reader.close()


async def test_what_this_process_commits_reaches_its_readers_without_being_read(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither those who follow everything nor those who follow some of it ask the database."""
    customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
    readers = [
        follow(caller, after_position=1, **wanted) for wanted in ({}, {"customer": customer.id}, {"types": ["x"]})
    ]
    for reader in readers:
        assert (await anext(reader)).caught_up
    readings: list[str] = []
    read = View.read_events

    async def counted(view: View, **wanted: Any) -> EventPage:
        readings.append(view.account_id)
        return await read(view, **wanted)

    monkeypatch.setattr(View, "read_events", counted)
    for number in range(20):
        request = UpdateCustomerRequest(id=customer.id, name=str(number))
        await caller.customers.UpdateCustomer(request, metadata=caller.login)
        for reader in readers[:2]:
            (event,) = (await anext(reader)).events
            assert event.customer_object.name == str(number)
    # One reading may be the look that is taken every few seconds; without the hand-over there are twenty.
    assert readings.count(caller.account_id) <= 10


async def test_a_lost_ring_costs_a_moment_only(server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.engine.bell, "_wake", lambda _: None)
    monkeypatch.setattr(server.event_streams, "poll_seconds", 0.2)
    batches = follow(caller)
    await anext(batches)
    await write(caller, 1)
    async with asyncio.timeout(60):
        assert len((await anext(batches)).events) == 1


async def test_an_empty_log_is_caught_up_with_at_once(caller: Caller) -> None:
    first = await anext(follow(caller))
    assert (len(first.events), first.head_position, first.caught_up) == (0, 0, True)


async def test_silence_is_filled_with_heartbeats(caller: Caller) -> None:
    await write(caller, 2)
    # Counted from before the stream begins: the server's silence does, and who reads may hear late of all of them.
    started = time.monotonic()
    batches = follow(caller, after_position=2, heartbeat_seconds=1)
    assert (await anext(batches)).caught_up
    for _ in range(2):
        beat = await anext(batches)
        assert (len(beat.events), beat.head_position, beat.caught_up) == (0, 2, True)
    assert 2 <= time.monotonic() - started < 15


async def test_filters_let_pass_what_they_name(caller: Caller) -> None:
    world = await build(caller)
    other = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Bo"), metadata=caller.login)
    everything, head = await until_caught_up(caller)
    cases: list[tuple[dict[str, Any], list[Event]]] = [
        ({"types": ["invoice.paid"]}, [event for event in everything if event.type == "invoice.paid"]),
        (
            {"types": ["invoice.*", "price.created"]},
            [event for event in everything if event.type.startswith("invoice.") or event.type == "price.created"],
        ),
        ({"customer": other.id}, [event for event in everything if event.customer == other.id]),
        (
            {"object_ids": [world["subscription"], world["product"]]},
            [event for event in everything if event.object_id in (world["subscription"], world["product"])],
        ),
        (
            {"customer": world["customer"], "types": ["payment_intent.*"]},
            [event for event in everything if event.type.startswith("payment_intent.")],
        ),
        ({"types": ["no.such"]}, []),
        ({"object_ids": ["sub_none"]}, []),
    ]
    for wanted, expected in cases:
        assert await until_caught_up(caller, batch_max=2, **wanted) == (expected, head)


@pytest.mark.parametrize("name", ["inv*", "invoice.*.paid", "Invoice.Paid", "invoice.paid "])
async def test_a_filter_that_is_no_type_is_refused_and_not_silent(caller: Caller, name: str) -> None:
    for refuse in (
        lambda: anext(follow(caller, types=["customer.*", name])),
        lambda: caller.events.ListEvents(ListEventsRequest(types=["customer.*", name]), metadata=caller.login),
        lambda: caller.events.CreateConsumer(
            CreateConsumerRequest(name="crm", types=["customer.*", name]), metadata=caller.login
        ),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_INVALID") as caught:
            await refuse()
        (violation,) = detail_of(caught[0], BadRequest).field_violations
        assert violation.field == "types[1]"
        assert "invoice.*" in violation.description


async def test_filtered_streams_go_on_live(caller: Caller) -> None:
    customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
    batches = follow(caller, object_ids=[customer.id], types=["customer.updated"])
    assert (await anext(batches)).caught_up
    await write(caller, 3)
    await caller.customers.UpdateCustomer(UpdateCustomerRequest(id=customer.id, name="Bo"), metadata=caller.login)
    batch = await anext(batches)
    assert [(event.type, event.object_id) for event in batch.events] == [("customer.updated", customer.id)]


async def test_a_position_ahead_of_the_log_is_refused(caller: Caller) -> None:
    await write(caller, 2)
    for position in (3, 2**63 - 1):
        with refused(grpc.StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE") as caught:
            await anext(follow(caller, after_position=position))
        assert dict(info_of(caught[0]).metadata) == {"oldest_position": "1", "newest_position": "2"}
        assert caught[0].details() == (
            f"after_position: {position} is ahead of the log, whose newest event is at 2; "
            "send the position of the last one handled"
        )


async def test_a_position_below_what_is_kept_is_refused(server: Server, caller: Caller) -> None:
    await write(caller, 5)
    await server.engine.store.purge_events(caller.account_id, 2**40)
    with refused(grpc.StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE"):
        await anext(follow(caller, after_position=3))
    assert await until_caught_up(caller, after_position=5) == ([], 5)
    assert await until_caught_up(caller) == ([], 5)
    await write(caller, 1)
    events, _ = await until_caught_up(caller)
    assert [event.position for event in events] == [6]
    with refused(grpc.StatusCode.OUT_OF_RANGE, "POSITION_OUT_OF_RANGE") as caught:
        await anext(follow(caller, after_position=4, types=["customer.created"]))
    assert dict(info_of(caught[0]).metadata) == {"oldest_position": "6", "newest_position": "6"}


async def test_events_purged_under_a_reader_are_never_skipped_silently(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "FIRST_READ", 2)
    monkeypatch.setattr(streams, "FIRST_READ", 2)
    monkeypatch.setattr(passages, "READS", (2, 1))
    await write(caller, 6)
    for wanted in ({}, {"types": ["customer.*"]}):
        request = StreamEventsRequest(batch_max=2, **wanted)  # type: ignore[arg-type]  # filters of any field
        batches = server.event_streams.follow(caller.account_id, request)
        seen = EventBatch.FromString(await anext(batches)).events[-1].position
        await server.engine.store.purge_events(caller.account_id, 2**40)
        with pytest.raises(OutOfRange):  # at the latest after what had been read ahead
            while True:
                for event in EventBatch.FromString(await anext(batches)).events:
                    assert event.position == seen + 1
                    seen = event.position
        await write(caller, 6)


async def test_large_batches_are_sent_in_parts(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(caller, 10)
    monkeypatch.setattr(streams, "BATCH_BYTES_MAX", 600)
    batches = []
    async for batch in follow(caller, batch_max=1000):
        batches.append(batch)
        if batch.caught_up:
            break
    assert len(batches) > 1
    assert [event.position for batch in batches for event in batch.events] == list(range(1, 11))
    assert [batch.caught_up for batch in batches[:-1]] == [False] * (len(batches) - 1)


async def test_a_revoked_key_ends_its_streams_and_calls_at_once(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because the server knows of it, not because it looks the keys of streams up now and then."""
    reader = await new_caller(server, ["events:read"], caller.account_id)
    batches = follow(reader)
    await anext(batches)
    look_up = server._key_ring.look_up

    async def unaware(secret_hash: bytes) -> Identity | None:
        if secret_hash == hash_of(reader.secret):
            raise StoreUnavailable("not now")
        return await look_up(secret_hash)

    with monkeypatch.context() as blind:
        blind.setattr(server._key_ring, "look_up", unaware)
        await caller.accounts.RevokeApiKey(RevokeApiKeyRequest(id=reader.key_id), metadata=caller.login)
        with refused(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
            await asyncio.wait_for(anext(batches), 60)
    with refused(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
        await reader.events.ListEvents(ListEventsRequest(), metadata=reader.login)
    await reader.close()


async def test_a_key_revoked_elsewhere_ends_its_streams_within_seconds(
    database_url: str, tmp_path: Path, caller: Caller
) -> None:
    async with serving(database_url, tmp_path) as other:
        other._open_streams._recheck_seconds = 0.3
        reader = await new_caller(other, ["events:read"], caller.account_id)
        batches = follow(reader)
        await anext(batches)
        await caller.accounts.RevokeApiKey(RevokeApiKeyRequest(id=reader.key_id), metadata=caller.login)
        with refused(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
            await asyncio.wait_for(anext(batches), 60)
        with refused(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
            await reader.events.ListEvents(ListEventsRequest(), metadata=reader.login)
        await reader.close()


async def test_a_frozen_reader_is_given_up_and_delays_nobody(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
    large = {f"key{number}": "x" * 490 for number in range(49)}
    for number in range(20):
        request = UpdateCustomerRequest(id=customer.id, metadata={**large, "key0": str(number)})
        await caller.customers.UpdateCustomer(request, metadata=caller.login)
    narrow = (("grpc.http2.lookahead_bytes", 16_384), ("grpc.http2.bdp_probe", 0))
    reader = await new_caller(server, account_id=caller.account_id, options=narrow)
    hurry(reader, monkeypatch, seconds=1.0)
    frozen = reader.events.StreamEvents(StreamEventsRequest(batch_max=5), metadata=reader.login)
    await frozen.wait_for_connection()
    events, _ = await asyncio.wait_for(until_caught_up(caller), 60)
    assert len(events) == 21
    await asyncio.wait_for(server.limits.idle(), 60)
    with refused(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"):
        while await frozen.read() is not grpc.aio.EOF:
            pass
    await reader.close()


async def test_readers_that_go_away_leave_nothing_behind(server: Server, caller: Caller) -> None:
    for _ in range(5):
        batches = [follow(caller) for _ in range(10)]
        await asyncio.gather(*(anext(batch) for batch in batches))
        for batch in batches:
            await batch.aclose()
    await asyncio.wait_for(server.limits.idle(), 60)
    assert caller.account_id not in server.engine.bell._waiting


async def test_billing_runs_let_the_loop_turn_only_while_somebody_is_there(server: Server, caller: Caller) -> None:
    reader = follow(caller)
    await anext(reader)
    assert server.engine.door.turns_wanted()
    await reader.aclose()
    await asyncio.wait_for(server.limits.idle(), 5)
    assert not server.engine.door.turns_wanted()


async def test_streams_have_limits_of_their_own(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, name in ((1, "streams_of_key_max"), (server.limits.streams + 1, "streams_max")):
        monkeypatch.setattr(server.limits, name, limit)
        first = follow(caller)
        await anext(first)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMIT"):
            await anext(follow(caller))
        await write(caller, 1)
        await first.aclose()
        await asyncio.wait_for(server.limits.idle(), 60)
        monkeypatch.undo()
