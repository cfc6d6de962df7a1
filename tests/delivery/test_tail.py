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
from billing_server.store.event import EventFilter
from billing_server.store.view import View
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
