"""Claiming: due books are found and locked in one step, each by one transaction only."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from billing_server.domain.book import Reach
from billing_server.store.errors import StoreTimeout
from billing_server.store.store import Store
from tests.store import samples
from tests.store.samples import MONTH, NOW, OPEN

DUE = NOW + MONTH


async def due_books(store: Store, account_id: str, count: int, test_clock: str | None = None) -> list[str]:
    """Customers whose subscriptions renew one second after the other."""
    books = []
    for number in range(count):
        owner = samples.customer(test_clock=test_clock)
        books.append(samples.book(owner, samples.subscription(owner, current_period_end=DUE + number)))
    await samples.save_new(store, account_id, *books)
    return [book.customer.id for book in books]


async def test_due_books_come_earliest_first(store: Store, account_id: str) -> None:
    customers = await due_books(store, account_id, 5)

    async with store.transaction(account_id) as unit:
        await unit.open()
        assert await unit.claim_due(2, until=DUE + 10) == customers[:2]
        assert unit.wake_at(customers[1]) == DUE + 1
        assert await unit.claim_due(10, until=DUE + 3) == customers[:4]


async def test_now_is_the_default(store: Store, account_id: str) -> None:
    (customer,) = await due_books(store, account_id, 1)

    async with store.transaction(account_id) as unit:
        assert (await unit.open()).now > DUE
        assert await unit.claim_due(1) == [customer]


async def test_no_book_is_handed_to_two(store: Store, account_id: str) -> None:
    customers = await due_books(store, account_id, 60)
    rounds = asyncio.Barrier(6)

    async def claim() -> list[str]:
        async with store.transaction(account_id) as unit:
            await unit.open()
            claimed = await unit.claim_due(15, until=DUE + 100)
            await rounds.wait()
            return claimed

    claims = await asyncio.gather(*(claim() for _ in range(6)))

    handed_out = [customer for claimed in claims for customer in claimed]
    assert len(handed_out) == len(set(handed_out))
    assert set(handed_out) == set(customers)


async def test_a_book_with_a_charge_under_way_is_not_claimed(store: Store, account_id: str) -> None:
    owner = samples.customer()
    invoice = samples.invoice(owner, **OPEN, charging=True)
    sub = samples.subscription(owner)
    await samples.save_new(store, account_id, samples.book(owner, sub, invoice, samples.attempt(invoice)))

    async with store.transaction(account_id) as unit:
        opening = await unit.open()
        assert await unit.claim_due(10, until=DUE) == []
        assert opening.now > NOW + 60
        assert await unit.claim_checks(10) == [owner.id]


async def test_books_of_test_clocks_are_claimed_by_their_clock_alone(store: Store, account_id: str) -> None:
    clock = samples.test_clock()
    async with store.transaction(account_id) as unit:
        await unit.insert_test_clock(clock)
    (customer,) = await due_books(store, account_id, 1, clock.id)

    async with store.transaction(account_id) as unit:
        await unit.open()
        assert await unit.claim_due(10) == []
        work = await unit.clock_work(clock.id, DUE)
        assert (work.due, work.in_flight, work.next_wake_at) == (1, 0, DUE)
        assert await unit.claim_due(10, until=DUE, test_clock=clock.id) == [customer]
        book = (await unit.load({customer: Reach(due_until=DUE)}))[customer]
        assert book.test_clock == clock


async def test_a_locked_book_makes_the_next_wait(store: Store, account_id: str) -> None:
    (customer,) = await due_books(store, account_id, 1)

    async with store.transaction(account_id) as first:
        await first.open([customer])
        with pytest.raises(StoreTimeout):
            async with store.transaction(account_id, timeout_seconds=0.2) as second:
                await second.open([customer])


async def test_who_has_waited_sees_what_was_written_meanwhile(store: Store, account_id: str) -> None:
    (customer,) = await due_books(store, account_id, 1)

    async def rename(letter: str) -> str:
        async with store.transaction(account_id) as unit:
            await unit.open([customer])
            before = (await unit.load({customer: Reach()}))[customer]
            name = f"{before.customer.name or ''}{letter}"
            renamed = msgspec.structs.replace(before.customer, name=name)
            await unit.save([(before, msgspec.structs.replace(before, customer=renamed))])
            return name

    names = await asyncio.gather(*(rename(letter) for letter in "abcdefgh"))

    longest = max(names, key=len)
    assert sorted(longest) == list("abcdefgh")


async def test_a_parked_book_is_left_alone_until_its_moment(store: Store, account_id: str) -> None:
    customers = await due_books(store, account_id, 2)

    async with store.transaction(account_id) as unit:
        await unit.open(customers)
        await unit.park({customers[0]: DUE + 500})

    async with store.transaction(account_id) as unit:
        await unit.open()
        assert await unit.claim_due(10, until=DUE + 100) == customers[1:]
        assert await unit.claim_due(10, until=DUE + 500) == [customers[1], customers[0]]
        book = (await unit.load({customers[0]: Reach(due_until=DUE + 500)}))[customers[0]]
        assert book.subscriptions, "what was due is still due"


async def test_accounts_with_due_books_are_found(store: Store, account_id: str) -> None:
    await due_books(store, account_id, 1)

    assert account_id not in await store.due_accounts(DUE - 1)
    assert account_id in await store.due_accounts(DUE)
    assert account_id in await store.due_accounts()
    assert account_id in await store.account_ids()
    seconds = await store.seconds_to_next_wake(account_id)
    assert seconds is not None and seconds < 0


async def test_advancing_clocks_are_found(store: Store, account_id: str) -> None:
    clock = samples.test_clock(status="advancing", target_frozen_time=NOW + 1)
    async with store.transaction(account_id) as unit:
        await unit.insert_test_clock(clock)

    assert (account_id, clock.id) in await store.advancing_clocks()
