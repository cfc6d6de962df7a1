"""Readings that outlive their reader: fresh for the next one, and never another account's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from billing_server.domain.customer import Customer
from billing_server.store import readings
from billing_server.store.customer import CustomerFilter
from billing_server.store.errors import StoreError, StoreUnavailable
from billing_server.store.store import Store
from billing_server.store.view import View
from tests.store import samples
from tests.store.conftest import opened_store

_FOR_EVER = 3_600.0


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[Store]:
    """A store with two connections, whose account is read by two readers at once."""
    async with opened_store(database_url, max_connections=2) as opened:
        yield opened


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings wait for their next reader as long as a test may take."""
    monkeypatch.setattr(readings, "LINGER_SECONDS", _FOR_EVER)
    monkeypatch.setattr(readings, "AGE_SECONDS_MAX", _FOR_EVER)


async def transaction_of(view: View) -> tuple[int, object]:
    """What tells the transaction that a view reads in: its process, and when it began."""
    record = await view._connection.fetchrow("SELECT pg_backend_pid(), transaction_timestamp()")
    assert record is not None
    return record[0], record[1]


async def used(store: Store, account_id: str) -> tuple[int, object]:
    async with store.view(account_id) as view:
        return await transaction_of(view)


async def state_of(administrator: asyncpg.Connection, process: int) -> str | None:
    found: str | None = await administrator.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", process)
    return found


async def until(administrator: asyncpg.Connection, process: int, state: str | None) -> None:
    """Wait until a process is in this state; None: until it has gone."""
    async with asyncio.timeout(60):
        while True:
            if await state_of(administrator, process) == state:
                return
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("patient")
async def test_the_next_reader_of_the_account_takes_it_over(narrow: Store, account_id: str) -> None:
    first = await used(narrow, account_id)

    assert await used(narrow, account_id) == first


@pytest.mark.usefixtures("patient")
async def test_a_reader_of_another_account_does_not(narrow: Store, account_id: str) -> None:
    other = samples.account()
    await narrow.create_account(other)
    first = await used(narrow, account_id)

    second = await used(narrow, other.id)

    assert second != first
    assert await used(narrow, account_id) == first


@pytest.mark.usefixtures("patient")
async def test_what_was_committed_meanwhile_is_seen(narrow: Store, store: Store, account_id: str) -> None:
    first = await used(narrow, account_id)
    customer = samples.customer()
    await samples.save_new(store, account_id, samples.book(customer))

    async with narrow.view(account_id) as view:
        assert await transaction_of(view) == first
        assert await view.get_many(Customer, [customer.id]) == [customer]


async def test_one_that_nobody_takes_over_ends(
    narrow: Store, account_id: str, administrator: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "LINGER_SECONDS", 0.05)
    process, _ = await used(narrow, account_id)

    await until(administrator, process, "idle")


async def test_one_that_is_old_ends_however_much_it_is_used(
    narrow: Store, account_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "LINGER_SECONDS", _FOR_EVER)
    monkeypatch.setattr(readings, "AGE_SECONDS_MAX", 0.0)

    assert await used(narrow, account_id) != await used(narrow, account_id)


@pytest.mark.usefixtures("patient")
async def test_closing_ends_those_that_wait(
    database_url: str, account_id: str, administrator: asyncpg.Connection
) -> None:
    store = await Store.open(database_url, max_connections=2)
    process, _ = await used(store, account_id)
    assert await state_of(administrator, process) == "idle in transaction"

    await asyncio.wait_for(store.close(), 60)

    await until(administrator, process, None)


@pytest.mark.usefixtures("patient")
async def test_those_that_wait_hold_no_connection_that_is_needed(narrow: Store, account_id: str) -> None:
    async with narrow.view(account_id) as one, narrow.view(account_id) as other:
        assert await transaction_of(one) != await transaction_of(other)

    for _ in range(3):
        async with narrow.transaction(account_id) as unit, narrow.transaction(account_id):
            await unit.open()


@pytest.mark.usefixtures("patient")
async def test_one_that_was_lost_while_it_waited_is_begun_anew(
    narrow: Store, account_id: str, administrator: asyncpg.Connection
) -> None:
    for _ in range(5):
        process, _ = await used(narrow, account_id)
        await administrator.execute("SELECT pg_terminate_backend($1)", process)

        async with narrow.view(account_id) as view:
            assert await view.head() == 0
            assert (await transaction_of(view))[0] != process


async def test_one_that_is_lost_while_it_is_used_is_not(
    narrow: Store, account_id: str, administrator: asyncpg.Connection
) -> None:
    with pytest.raises(StoreUnavailable):
        async with narrow.view(account_id) as view:
            process, _ = await transaction_of(view)
            await administrator.execute("SELECT pg_terminate_backend($1)", process)
            await view.head()

    async with narrow.view(account_id) as view:
        assert await view.head() == 0


@pytest.mark.usefixtures("patient")
async def test_more_readers_than_connections_take_turns(narrow: Store, account_id: str) -> None:
    transactions = await asyncio.gather(*(used(narrow, account_id) for _ in range(40)))

    assert len(set(transactions)) <= 2


async def test_who_waits_too_long_is_told(narrow: Store, account_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with narrow.view(account_id), narrow.view(account_id):
        monkeypatch.setattr(narrow._database, "_acquire_seconds_max", 0.2)
        with pytest.raises(StoreUnavailable, match="in time"):
            async with narrow.view(account_id):
                pass
    assert (narrow.waits.waiting, narrow.waits.count) == (0, 3)


@pytest.mark.parametrize("handed", [False, True])
async def test_a_reader_that_leaves_while_it_waits_takes_nothing_with_it(
    narrow: Store, account_id: str, *, handed: bool
) -> None:
    """Also when it has just been handed a reading, and does not know it yet."""
    for _ in range(4):
        done, waiting = asyncio.Event(), list[asyncio.Task[object]]()

        async def hold(done: asyncio.Event = done, waiting: list[asyncio.Task[object]] = waiting) -> None:
            async with narrow.view(account_id):
                await done.wait()
            waiting[0].cancel()

        holding = [asyncio.create_task(hold()) for _ in range(2)]
        async with asyncio.timeout(60):
            while len(narrow._readings._accounts[account_id].readers) < 1:
                if narrow._readings._accounts[account_id].open == 2 and not waiting:
                    waiting.append(asyncio.create_task(used(narrow, account_id)))
                await asyncio.sleep(0)
        if not handed:
            waiting[0].cancel()
        done.set()
        await asyncio.gather(*holding)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)

    async with asyncio.timeout(60), narrow.view(account_id) as one, narrow.view(account_id) as other:
        assert await one.head() == await other.head() == 0


async def test_nothing_can_be_written(narrow: Store, account_id: str) -> None:
    with pytest.raises(StoreError, match="read-only"):
        async with narrow.view(account_id) as view:
            await view._connection.execute("UPDATE accounts SET version = version")


async def test_readers_see_their_own_account_whatever_happens_to_others(narrow: Store) -> None:
    """Readers of many accounts share two connections; some fail, some are canceled, some are in the middle of a page.

    What each sees is asked for without any filter, so nothing but row-level security keeps accounts apart.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    customers: dict[str, str] = {}
    for _ in range(5):
        account, customer = samples.account(), samples.customer()
        await narrow.create_account(account)
        await samples.save_new(narrow, account.id, samples.book(customer))
        customers[account.id] = customer.id
    seen: list[str] = []

    async def read(account_id: str, end: str) -> None:
        async with narrow.view(account_id) as view:
            records = await view._connection.fetch("SELECT account_id, id FROM customers")
            assert [tuple(record) for record in records] == [(account_id, customers[account_id])]
            if end == "fails":
                await view._connection.fetch("SELECT 1 / 0")
            elif end == "is canceled":
                await view._connection.fetch("SELECT pg_sleep(60)")
            assert len((await view.page(CustomerFilter(), limit=5)).items) == 1
            seen.append(account_id)

    async def nobody() -> None:
        async with narrow._database.transaction("SELECT 1", read_only=True) as transaction:
            assert await transaction.connection.fetchval("SELECT count(*) FROM customers") == 0

    for _ in range(12):
        ends = [dice.choice(["well", "well", "well", "fails", "is canceled"]) for _ in range(10)]
        reading = [asyncio.create_task(read(dice.choice(list(customers)), end)) for end in ends]
        reading.append(asyncio.create_task(nobody()))
        while not all(task.done() for task, end in zip(reading, ends, strict=False) if end != "is canceled"):
            await asyncio.sleep(0.005)
            dice.choice(reading[:-1]).cancel()
        for task, end in zip(reading, ends, strict=False):
            if end == "is canceled":
                task.cancel()
        for outcome in await asyncio.gather(*reading, return_exceptions=True):
            assert outcome is None or isinstance(outcome, StoreError | asyncio.CancelledError), outcome
    assert len(set(seen)) == len(customers)


async def test_a_reader_canceled_again_and_again_leaves_no_statement(
    narrow: Store, administrator: asyncpg.Connection, account_id: str
) -> None:
    """By its deadline and by its caller, say: the connection must be asked to stop all the same."""
    process = asyncio.get_running_loop().create_future()

    async def read() -> None:
        async with narrow.view(account_id) as view:
            process.set_result((await transaction_of(view))[0])
            await view.page(CustomerFilter(), limit=1)

    async with administrator.transaction():
        await administrator.execute("LOCK TABLE customers IN ACCESS EXCLUSIVE MODE")
        reader = asyncio.create_task(read())
        async with asyncio.timeout(60):
            waiting = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1"
            while await administrator.fetchval(waiting, await process) != "Lock":
                await administrator.execute("SELECT pg_stat_clear_snapshot()")
                await asyncio.sleep(0.01)
        for _ in range(3):
            reader.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await reader
        async with asyncio.timeout(60):
            while await administrator.fetchval(waiting, process.result()) == "Lock":
                await administrator.execute("SELECT pg_stat_clear_snapshot()")
                await asyncio.sleep(0.01)
