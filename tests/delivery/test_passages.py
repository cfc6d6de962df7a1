"""Those who replay a log together read each part of it once, and all get what the log holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest

from billing_server.bootstrap import Server
from billing_server.delivery import passages as passages_module
from billing_server.delivery.passages import READS, Passages, fitting
from billing_server.domain.errors import OutOfRange
from billing_server.store.event import EventRow, PayloadPage
from billing_server.store.view import View
from billing_server.wire.codec import framed
from tests.serving import Caller, new_caller

EVENTS = 37


@pytest.fixture
async def caller(server: Server) -> AsyncIterator[Caller]:
    made = await new_caller(server)
    await append(server, made.account_id, EVENTS)
    yield made
    await made.close()


async def append(server: Server, account_id: str, count: int) -> None:
    async with server.engine.store.transaction(account_id) as unit:
        now = (await unit.open()).now
        await unit.save(
            (), [EventRow("price.created", None, f"price_{n}", now, b"\x0a\x03%03d" % n) for n in range(count)]
        )


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Where the log was read, and how much of it."""
    seen: list[tuple[int, int]] = []
    read = View.read_payloads

    async def counted(view: View, *, after: int, limit: int) -> PayloadPage:
        seen.append((after, limit))
        return await read(view, after=after, limit=limit)

    monkeypatch.setattr(View, "read_payloads", counted)
    return seen


@pytest.fixture(autouse=True)
def small_readings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(passages_module, "READS", (8, 4, 1))
    monkeypatch.setattr(passages_module, "FIRST_READ", 4)
    return iter(())


async def everything(server: Server, account_id: str) -> list[bytes]:
    async with server.engine.store.view(account_id) as view:
        page = await view.read_events(after=0, limit=10_000)
    return framed(account_id, 1, [event.payload for event in page.events])


async def replay(passages: Passages, after: int, head: int) -> list[bytes]:
    """All that comes after a position."""
    events: list[bytes] = []
    while after < head:
        passage = await passages.after(after)
        assert passage.scanned_to == after + len(passage.events) > after
        events += passage.events
        after = passage.scanned_to
    return events


async def test_readers_at_the_same_place_read_once(
    server: Server, caller: Caller, readings: list[tuple[int, int]]
) -> None:
    passages = Passages(server.engine.store, caller.account_id)
    log = await everything(server, caller.account_id)
    for got in await asyncio.gather(*(replay(passages, 0, EVENTS) for _ in range(20))):
        assert got == log
    assert [after for after, _ in readings] == [0, 4, 8, 16, 24, 32]


async def test_readers_from_anywhere_are_soon_at_the_same_place(
    server: Server, caller: Caller, readings: list[tuple[int, int]]
) -> None:
    passages = Passages(server.engine.store, caller.account_id)
    log = await everything(server, caller.account_id)
    for after in range(EVENTS):
        assert await replay(passages, after, EVENTS) == log[after:]
    places = [after for after, _ in readings if after % 8 == 0 and after != 32]
    assert sorted(places) == [0, 8, 16, 24]


async def test_the_end_of_the_log_is_read_anew(server: Server, caller: Caller, readings: list[tuple[int, int]]) -> None:
    passages = Passages(server.engine.store, caller.account_id)
    await replay(passages, 0, EVENTS)
    for _ in range(2):
        passage = await passages.after(32)
        assert (len(passage.events), passage.head) == (5, 37)
    await append(server, caller.account_id, 2)
    passage = await passages.after(32)
    assert (len(passage.events), passage.head) == (7, 39)
    assert [after for after, _ in readings].count(32) == 4
    passage = await passages.after(39)
    assert (passage.events, passage.scanned_to, passage.head) == ([], 39, 39)


async def test_what_is_kept_is_bounded(
    server: Server, caller: Caller, readings: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await everything(server, caller.account_id)
    size = sum(map(len, log[16:32]))
    monkeypatch.setattr(passages_module, "KEPT_BYTES_MAX", size)
    passages = Passages(server.engine.store, caller.account_id)
    await replay(passages, 0, EVENTS)
    del readings[:]
    for place in (24, 16):
        await passages.after(place)
    assert readings == []
    for place in (8, 24):
        await passages.after(place)
    assert readings == [(8, 8)]
    await passages.after(16)
    assert readings == [(8, 8), (16, 8)]


async def test_what_is_gone_is_refused_and_what_is_there_afterwards_is_read(server: Server, caller: Caller) -> None:
    passages = Passages(server.engine.store, caller.account_id)
    await server.engine.store.purge_events(caller.account_id, 2**40)
    for _ in range(2):
        with pytest.raises(OutOfRange) as refusal:
            await passages.after(5)
        assert (refusal.value.oldest, refusal.value.newest) == (38, 37)
    await append(server, caller.account_id, 1)
    with pytest.raises(OutOfRange):
        await passages.after(36)
    assert len((await passages.after(37)).events) == 1


async def test_a_reader_that_goes_away_leaves_the_reading_to_the_others(server: Server, caller: Caller) -> None:
    passages = Passages(server.engine.store, caller.account_id)
    first, second = (asyncio.create_task(passages.after(0)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert len((await second).events) == 4


async def test_readings_end_with_the_last_reader(server: Server, caller: Caller) -> None:
    passages = Passages(server.engine.store, caller.account_id)
    reading = asyncio.create_task(passages.after(0))
    await asyncio.sleep(0)
    passages.close()
    with pytest.raises(asyncio.CancelledError):
        await reading


@pytest.mark.parametrize(
    ("sizes", "most"), [([], 4), ([0], 4), ([1], 8), ([200_000], 4), ([600_000, 400_000], 1), ([2_000_000], 1)]
)
def test_as_many_are_read_as_are_not_too_large(sizes: list[int], most: int) -> None:
    assert fitting([bytes(size) for size in sizes]) == most


def test_each_size_of_a_reading_is_made_of_the_next() -> None:
    assert all(larger % smaller == 0 for larger, smaller in pairwise(READS))
