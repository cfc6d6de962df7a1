"""The shared tail says what the log says, reads once for all, and never hides a gap."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from billing.v1.customer_service_pb2 import CreateCustomerRequest
from billing_server.bootstrap import Server
from billing_server.delivery import tail as tail_module
from billing_server.delivery.tail import Tail
from billing_server.store.event import Appended, EventFilter, EventRow
from billing_server.store.store import Store
from billing_server.store.view import View
from billing_server.wire.codec import framed
from tests.api.world import World, build
from tests.serving import Caller, new_caller


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[Caller]:
    made = await new_caller(server)
    yield made
    await made.close()


async def write(caller: Caller, count: int) -> None:
    for number in range(count):
        await caller.customers.CreateCustomer(CreateCustomerRequest(name=str(number)), metadata=caller.login)


def filters(world: World) -> list[EventFilter]:
    """Each combination of types, customer and objects."""
    types = [(), ("invoice.paid",), ("invoice.*", "price.created"), ("*",), ("none",)]
    customers = [None, world["customer"], "cus_none"]
    objects = [(), (world["subscription"],), (world["payment_intent"], world["product"]), ("in_none",)]
    return [
        EventFilter(types=type_names, customer=customer, object_ids=object_ids)
        for type_names, customer, object_ids in itertools.product(types, customers, objects)
    ]


async def test_it_says_what_the_log_says(server: Server, caller: Caller) -> None:
    store = server.engine.store
    tail = Tail(store, caller.account_id)
    await tail.refresh()
    assert (tail.low, tail.high) == (0, 0)
    world = await build(caller)
    await tail.refresh()
    async with store.view(caller.account_id) as view:
        head = await view.head()
        for wanted, after, limit in itertools.product(filters(world), (0, 5, head - 1, head), (1, 3, 1000)):
            page = await view.read_events(after=after, limit=limit, wanted=wanted)
            assert tail.take(after, limit, wanted) == page, (wanted, after, limit)


async def test_it_begins_at_the_head_and_knows_nothing_before(server: Server, caller: Caller) -> None:
    await write(caller, 3)
    tail = Tail(server.engine.store, caller.account_id)
    assert tail.take(3, 10, EventFilter()) is None
    await tail.refresh()
    assert tail.take(2, 10, EventFilter()) is None
    page = tail.take(3, 10, EventFilter())
    assert page is not None
    assert (page.events, page.scanned_to, page.head) == ([], 3, 3)


async def test_it_forgets_the_oldest_first(server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "EVENTS_MAX", 4)
    monkeypatch.setattr(tail_module, "_READ_AT_ONCE", 3)
    tail = Tail(server.engine.store, caller.account_id)
    await tail.refresh()
    await write(caller, 10)
    await tail.refresh()
    assert (tail.low, tail.high) == (6, 10)
    page = tail.take(6, 100, EventFilter())
    assert page is not None
    assert [event.position for event in page.events] == [7, 8, 9, 10]
    monkeypatch.setattr(tail_module, "BYTES_MAX", 0)
    await write(caller, 1)
    await tail.refresh()
    assert (tail.low, tail.high) == (11, 11)


async def test_events_dropped_unread_leave_no_hidden_gap(server: Server, caller: Caller) -> None:
    tail = Tail(server.engine.store, caller.account_id)
    await tail.refresh()
    await write(caller, 2)
    await tail.refresh()
    await write(caller, 3)
    await server.engine.store.purge_events(caller.account_id, 2**40)
    await write(caller, 1)
    await tail.refresh()
    assert (tail.low, tail.high) == (6, 6)
    assert tail.take(2, 10, EventFilter()) is None


async def test_many_refreshes_are_few_readings(server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    store = server.engine.store
    readings = 0
    view = store.view

    def counted(account_id: str) -> contextlib.AbstractAsyncContextManager[View]:
        nonlocal readings
        readings += 1
        return view(account_id)

    tail = Tail(store, caller.account_id)
    monkeypatch.setattr(store, "view", counted)
    first = asyncio.create_task(tail.refresh())
    await asyncio.sleep(0)
    others = [asyncio.create_task(tail.refresh()) for _ in range(100)]
    others[0].cancel()
    await asyncio.gather(first, *others[1:])
    assert readings <= 2


async def test_a_refresh_sees_what_was_committed_before_it(server: Server, caller: Caller) -> None:
    tail = Tail(server.engine.store, caller.account_id)
    await tail.refresh()
    for number in range(1, 30):
        under_way = asyncio.create_task(tail.refresh())
        await asyncio.sleep(0)
        await write(caller, 1)
        await tail.refresh()
        assert tail.high == number
        await under_way


# --- what is handed to it


async def append(store: Store, account_id: str, count: int) -> Appended:
    """Some events, committed but told to nobody."""
    async with store.transaction(account_id) as unit:
        now = (await unit.open()).now
        rows = [
            EventRow("customer.created", f"cus_{n}", f"cus_{n}", now, b"\x1a\x01%d" % (n % 10)) for n in range(count)
        ]
        await unit.save((), rows)
    assert unit.appended is not None
    return unit.appended


async def says_what_the_log_says(tail: Tail, store: Store, account_id: str, after: int) -> None:
    async with store.view(account_id) as view:
        page = await view.read_events(after=after, limit=10_000)
    assert tail.take(after, 10_000, EventFilter()) == page
    passage = tail.passage(after, EventFilter())
    assert passage is not None
    assert passage.events == framed(account_id, after + 1, [event.payload for event in page.events])
    assert (passage.scanned_to, passage.head) == (page.scanned_to, page.head)


@pytest.fixture
def unread(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the log was read."""
    readings: list[int] = []
    view = server.engine.store.view

    def counted(account_id: str) -> contextlib.AbstractAsyncContextManager[View]:
        readings.append(1)
        return view(account_id)

    monkeypatch.setattr(server.engine.store, "view", counted)
    return readings


async def test_what_is_handed_over_need_not_be_read(server: Server, caller: Caller, unread: list[int]) -> None:
    store = server.engine.store
    tail = Tail(store, caller.account_id)
    await tail.catch_up(3_600)
    assert len(unread) == 1
    for count in (1, 3, 2):
        tail.receive(await append(store, caller.account_id, count))
        await tail.catch_up(3_600)
    assert (tail.low, tail.high, len(unread)) == (0, 6, 1)
    await says_what_the_log_says(tail, store, caller.account_id, 0)
    await says_what_the_log_says(tail, store, caller.account_id, 4)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_the_order_in_which_it_is_handed_over_does_not_matter(
    server: Server, caller: Caller, order: tuple[int, ...]
) -> None:
    store = server.engine.store
    tail = Tail(store, caller.account_id)
    await tail.refresh()
    committed = [await append(store, caller.account_id, 2) for _ in range(3)]
    for number in order:
        tail.receive(committed[number])
        await tail.catch_up(3_600)
    assert tail.high == 6
    await says_what_the_log_says(tail, store, caller.account_id, 0)


async def test_what_others_commit_is_read(server: Server, caller: Caller, unread: list[int]) -> None:
    store = server.engine.store
    tail = Tail(store, caller.account_id)
    await tail.catch_up(3_600)
    await append(store, caller.account_id, 2)
    await tail.catch_up(3_600)
    assert tail.high == 0
    tail.receive(None)
    await tail.catch_up(3_600)
    assert (tail.high, len(unread)) == (2, 2)
    await append(store, caller.account_id, 2)
    tail.expect(4)
    await tail.catch_up(3_600)
    assert (tail.high, len(unread)) == (4, 3)
    tail.expect(4)
    await tail.catch_up(3_600)
    assert len(unread) == 3
    await tail.catch_up(0)
    assert len(unread) == 4
    assert tail.high == 4
    await says_what_the_log_says(tail, store, caller.account_id, 0)


async def test_what_is_handed_over_during_a_reading_is_kept_once(server: Server, caller: Caller) -> None:
    store = server.engine.store
    tail = Tail(store, caller.account_id)
    await tail.refresh()
    high = 0
    for _ in range(20):
        others = await append(store, caller.account_id, 2)
        tail.receive(None)
        reading = asyncio.create_task(tail.catch_up(3_600))
        await asyncio.sleep(0)
        own = await append(store, caller.account_id, 3)
        tail.receive(others)
        tail.receive(own)
        await reading
        await tail.catch_up(3_600)
        high += 5
        assert tail.high == high
    await says_what_the_log_says(tail, store, caller.account_id, 0)


async def test_a_reading_that_fails_is_made_again(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = server.engine.store
    tail = Tail(store, caller.account_id)
    await tail.refresh()
    await append(store, caller.account_id, 1)
    tail.receive(None)
    with monkeypatch.context() as broken:
        broken.setattr(store, "view", lambda _: contextlib.AsyncExitStack())
        with pytest.raises(AttributeError):
            await tail.catch_up(3_600)
    await tail.catch_up(3_600)
    assert tail.high == 1
