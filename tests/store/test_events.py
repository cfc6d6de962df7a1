"""The event log: positions without gaps in the order of commits, and reading that misses nothing."""

from __future__ import annotations

import asyncio

import pytest

from billing_server.store import event as event_log
from billing_server.store.event import EventFilter, EventRow, PayloadPage
from billing_server.store.store import Store
from tests.store import samples
from tests.store.samples import NOW


async def append(store: Store, account_id: str, *events: EventRow) -> int | None:
    """Append events in a transaction of their own."""
    async with store.transaction(account_id) as unit:
        await unit.open()
        return await unit.save((), events)


async def test_positions_are_dense_and_in_the_order_of_commits(store: Store, account_id: str) -> None:
    seen: list[int] = []
    finished = asyncio.Event()

    async def write(writer: int) -> None:
        for number in range(12):
            events = [EventRow("t", None, f"o{writer}", number, b"") for _ in range(1 + (writer + number) % 3)]
            await append(store, account_id, *events)

    async def tail() -> None:
        while not (finished.is_set() and len(seen) == await head()):
            async with store.view(account_id) as view:
                page = await view.read_events(after=seen[-1] if seen else 0, limit=7)
            seen.extend(event.position for event in page.events)
            assert page.head >= (seen[-1] if seen else 0)
            await asyncio.sleep(0)

    async def head() -> int:
        async with store.view(account_id) as view:
            return await view.head()

    reader = asyncio.create_task(tail())
    await asyncio.gather(*(write(writer) for writer in range(8)))
    finished.set()
    await asyncio.wait_for(reader, 60)

    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == 8 * 12 * 2


async def test_a_transaction_that_fails_leaves_no_gap(store: Store, account_id: str) -> None:
    await append(store, account_id, samples.event(None))

    with pytest.raises(ZeroDivisionError):
        async with store.transaction(account_id) as unit:
            await unit.open()
            assert await unit.save((), [samples.event(None), samples.event(None)]) == 3
            raise ZeroDivisionError

    assert await append(store, account_id, samples.event(None)) == 2


@pytest.fixture
async def log(store: Store, account_id: str) -> list[str]:
    """Ten events of two customers, a product, and an invoice with its payment intent; their objects by position."""
    one, two = samples.customer(), samples.customer()
    invoice = samples.invoice(one)
    intent = f"pi_{invoice.id.removeprefix('in_')}"
    events = [
        EventRow("product.created", None, "prod_1", NOW, b"1"),
        EventRow("customer.created", one.id, one.id, NOW, b"2"),
        EventRow("invoice.created", one.id, invoice.id, NOW + 1, b"3"),
        EventRow("customer.created", two.id, two.id, NOW + 2, b"4"),
        EventRow("invoice.paid", one.id, invoice.id, NOW + 3, b"5"),
        EventRow("payment_intent.succeeded", one.id, intent, NOW + 4, b"6"),
        EventRow("customer.subscription.updated", two.id, "sub_gone", NOW + 5, b"7"),
        EventRow("paymentXintent.odd", two.id, two.id, NOW + 6, b"8"),
        EventRow("product.updated", None, "prod_1", NOW + 7, b"9"),
        EventRow("customer.updated", one.id, one.id, NOW + 8, b"10"),
    ]
    await samples.save_new(store, account_id, samples.book(one, invoice), samples.book(two), events=events)
    return [event.object_id for event in events]


# What is wanted (objects by their positions), and the positions that it brings.
FILTERS = [
    ({}, list(range(1, 11))),
    ({"types": ("invoice.paid",)}, [5]),
    ({"types": ("invoice.*",)}, [3, 5]),
    ({"types": ("invoice.*", "product.updated")}, [3, 5, 9]),
    ({"types": ("payment_intent.*",)}, [6]),
    ({"types": ("*",)}, list(range(1, 11))),
    ({"customer": 2}, [2, 3, 5, 6, 10]),
    ({"customer": 2, "types": ("customer.*",)}, [2, 10]),
    ({"object_ids": (3,)}, [3, 5]),
    ({"object_ids": (6,)}, [6]),
    ({"object_ids": (1,)}, [1, 9]),
    ({"object_ids": (3, 4, 1)}, [1, 3, 4, 5, 8, 9]),
    ({"object_ids": (7,)}, [7]),
    ({"created_from": NOW + 2, "created_before": NOW + 5}, [4, 5, 6]),
    ({"types": ("none",)}, []),
]


@pytest.mark.parametrize(("wanted", "positions"), FILTERS)
async def test_filters_bring_what_they_name_and_nothing_else(
    store: Store, account_id: str, log: list[str], wanted: dict[str, object], positions: list[int]
) -> None:
    named = dict(wanted)
    if isinstance(customer := wanted.get("customer"), int):
        named["customer"] = log[customer - 1]
    if isinstance(objects := wanted.get("object_ids"), tuple):
        named["object_ids"] = tuple(log[position - 1] for position in objects)
    filtered = EventFilter(**named)  # type: ignore[arg-type]  # the table's values are those of the fields

    async with store.view(account_id) as view:
        page = await view.read_events(after=0, limit=100, wanted=filtered)
        newest = await view.newest_events(before=None, limit=100, wanted=filtered)
        after = await view.read_events(after=5, limit=100, wanted=filtered)

    assert [event.position for event in page.events] == positions
    assert (page.scanned_to, page.head, newest.scanned_to) == (10, 10, 0)
    assert [event.position for event in newest.events] == positions[::-1]
    assert [event.position for event in after.events] == [position for position in positions if position > 5]


async def test_a_full_page_ends_where_the_next_begins(store: Store, account_id: str, log: list[str]) -> None:
    async with store.view(account_id) as view:
        first = await view.read_events(after=0, limit=4)
        rest = await view.read_events(after=first.scanned_to, limit=100)
        newest = await view.newest_events(before=None, limit=4)
        older = await view.newest_events(before=newest.scanned_to, limit=100)

    assert [event.payload for event in first.events + rest.events] == [b"%d" % n for n in range(1, 11)]
    assert [event.position for event in newest.events + older.events] == list(range(10, 0, -1))


async def test_a_rare_type_is_looked_for_in_windows(
    store: Store, account_id: str, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "WINDOW_POSITIONS", 3)
    rare = EventFilter(types=("product.updated",))
    position, reads, found = 0, 0, []

    async with store.view(account_id) as view:
        while position < 10:
            page = await view.read_events(after=position, limit=100, wanted=rare)
            position, reads = page.scanned_to, reads + 1
            found += [event.position for event in page.events]

    assert (found, reads) == ([9], 4)


async def test_an_event_is_found_by_its_position(store: Store, account_id: str, log: list[str]) -> None:
    async with store.view(account_id) as view:
        event = await view.event(5)
        assert event is not None and event.type == "invoice.paid"
        assert await view.event(11) is None
        assert await view.oldest() == 1


async def test_purging_drops_the_oldest_without_making_gaps(store: Store, account_id: str, log: list[str]) -> None:
    async with store.transaction(account_id) as unit:
        now = (await unit.open()).now

    assert await store.purge_events(account_id, now - 60) == 0
    assert await store.purge_events(account_id, now + 60) == 10
    assert await append(store, account_id, samples.event(None)) == 11
    async with store.view(account_id) as view:
        assert (await view.oldest(), await view.head()) == (11, 11)


async def test_payloads_are_read_with_the_position_of_the_first_and_the_head(
    store: Store, account_id: str, log: list[str]
) -> None:
    async with store.view(account_id) as view:
        everything = (await view.read_events(after=0, limit=100)).events
        for after, limit in ((0, 100), (0, 3), (4, 3), (9, 1), (10, 5), (12, 5)):
            page = await view.read_payloads(after=after, limit=limit)
            expected = [event.payload for event in everything[after : after + limit]]
            assert (page.payloads, page.head) == (expected, 10)
            assert page.first == (after + 1 if expected else 11)


async def test_what_is_missing_before_the_payloads_is_told(store: Store, account_id: str, log: list[str]) -> None:
    assert await store.purge_events(account_id, 2**40) == 10
    async with store.view(account_id) as view:
        assert await view.kept_events() == (11, 10)
        assert await view.read_payloads(after=4, limit=3) == PayloadPage(11, [], 10)
    await append(store, account_id, samples.event(None), samples.event(None))
    async with store.view(account_id) as view:
        assert await view.kept_events() == (11, 12)
        page = await view.read_payloads(after=4, limit=1)
        assert (page.first, len(page.payloads), page.head) == (11, 1, 12)


async def test_a_log_without_events_has_no_payloads(store: Store, account_id: str) -> None:
    async with store.view(account_id) as view:
        assert await view.kept_events() == (1, 0)
        assert await view.read_payloads(after=0, limit=9) == PayloadPage(1, [], 0)


async def test_a_transaction_knows_what_it_has_appended_as_the_log_will_tell_it(
    store: Store, account_id: str, log: list[str]
) -> None:
    async with store.transaction(account_id) as unit:
        await unit.open()
        assert unit.appended is None
        await unit.save((), [samples.event(None, f"prod_{number}") for number in range(3)])
    appended = unit.appended
    assert appended is not None
    assert (appended.first, appended.last) == (11, 13)
    async with store.view(account_id) as view:
        for after in (0, 10, 11, 13, 20):
            assert appended.stored(after) == (await view.read_events(after=max(after, 10), limit=9)).events
