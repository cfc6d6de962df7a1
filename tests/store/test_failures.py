"""What the engine hears when PostgreSQL says no, goes away, or leaves it in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from billing_server.store.errors import (
    CommitUnknown,
    StoreBusy,
    StoreCorrupted,
    StoreError,
    StoreTimeout,
    StoreUnavailable,
)
from billing_server.store.store import Store
from billing_server.store.transaction_id import TransactionId
from billing_server.store.unit import Unit
from billing_server.store.view import View
from tests.store import samples
from tests.store.conftest import opened_store

END = "SELECT pg_terminate_backend($1, 60_000)"
"""Ends a process of PostgreSQL, and waits until it is gone."""

LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'billing-listener'"
)


@pytest.fixture
async def fragile(database_url: str) -> AsyncIterator[Store]:
    """A store of its own, whose two connections a test may break."""
    async with opened_store(database_url, min_connections=2, max_connections=2) as opened:
        yield opened


async def process_of(view: View | Unit) -> int:
    """Which process of PostgreSQL works for a view or a unit."""
    found: int = await view._connection.fetchval("SELECT pg_backend_pid()")
    return found


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await Store.open("postgresql://nobody@127.0.0.1:1/none", acquire_seconds_max=1)


async def test_a_slow_statement_times_out(store: Store, account_id: str) -> None:
    with pytest.raises(StoreTimeout):
        async with store.transaction(account_id, timeout_seconds=0.05) as unit:
            await unit._connection.execute("SELECT pg_sleep(60)")


async def test_no_free_connection_in_time_is_unavailable(
    fragile: Store, account_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fragile.view(account_id), fragile.view(account_id):
        with monkeypatch.context() as hurried, pytest.raises(StoreUnavailable):
            hurried.setattr(fragile._database, "_acquire_seconds_max", 0.5)
            async with fragile.view(account_id):
                pass
    async with fragile.view(account_id) as view:
        assert await view.head() == 0


async def test_transactions_that_wait_for_each_other_are_busy(store: Store, account_id: str) -> None:
    books = [samples.book(samples.customer()) for _ in range(2)]
    await samples.save_new(store, account_id, *books)
    first, second = (book.customer.id for book in books)
    locked = asyncio.Barrier(2)

    async def cross(one: str, other: str) -> None:
        async with store.transaction(account_id) as unit:
            await unit.open([one])
            await locked.wait()
            await unit.open([other])

    outcomes = await asyncio.gather(cross(first, second), cross(second, first), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "StoreBusy"]
    assert issubclass(StoreBusy, StoreError)


async def test_values_that_no_column_can_hold_are_refused_without_harm(store: Store, account_id: str) -> None:
    for broken in (samples.customer(name="\x00"), samples.customer(balance=2**63), samples.customer(name=1)):
        with pytest.raises(StoreCorrupted):
            await samples.save_new(store, account_id, samples.book(broken))

    await samples.save_new(store, account_id, samples.book(samples.customer()))


async def test_a_restart_of_the_database_is_survived(
    fragile: Store, account_id: str, administrator: asyncpg.Connection
) -> None:
    async with fragile.view(account_id) as one, fragile.view(account_id) as other:
        processes = [await process_of(one), await process_of(other)]
    for process in processes:
        await administrator.execute(END, process)

    async with fragile.view(account_id) as view:
        assert await view.head() == 0


async def test_a_connection_that_breaks_before_the_end_leaves_nothing(
    fragile: Store, account_id: str, administrator: asyncpg.Connection
) -> None:
    book = samples.book(samples.customer())

    with pytest.raises(StoreUnavailable) as failed:
        async with fragile.transaction(account_id) as unit:
            await unit.open()
            await unit.save([(None, book)])
            assert await administrator.fetchval(END, await process_of(unit))
    assert isinstance(failed.value, CommitUnknown)
    assert failed.value.transaction is not None

    assert not await fragile.committed(failed.value.transaction)
    async with fragile.view(account_id) as view:
        assert await view.get_many(type(book.customer), [book.customer.id]) == []


async def test_the_outcome_of_a_transaction_can_be_asked_for(store: Store, account_id: str) -> None:
    async with store.transaction(account_id) as unit:
        committed = (await unit.open()).transaction
    with pytest.raises(ZeroDivisionError):
        async with store.transaction(account_id) as unit:
            aborted = (await unit.open()).transaction
            raise ZeroDivisionError

    assert await store.committed(committed)
    assert not await store.committed(aborted)
    with pytest.raises(StoreError, match="not known"):
        await store.committed(TransactionId(3, committed.recovery))


async def test_a_canceled_transaction_leaves_its_connection_usable(fragile: Store, account_id: str) -> None:
    for _ in range(6):
        started = asyncio.Event()

        async def work(started: asyncio.Event = started) -> None:
            async with fragile.transaction(account_id) as unit:
                started.set()
                await unit._connection.execute("SELECT pg_sleep(5)")

        task = asyncio.create_task(work())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async with fragile.view(account_id) as view:
        assert await view.head() == 0


async def test_listeners_hear_of_events_and_of_what_they_may_have_missed(
    store: Store, administrator: asyncpg.Connection
) -> None:
    heard: asyncio.Queue[frozenset[str] | None] = asyncio.Queue()
    listener = store.listen(heard.put_nowait)
    await listener.start()
    assert await asyncio.wait_for(heard.get(), 60) is None

    await store.notify(["acct_1", "acct_2", "acct_1"])
    assert await asyncio.wait_for(heard.get(), 60) == frozenset({"acct_1", "acct_2"})

    for record in await administrator.fetch(LISTENERS):
        await administrator.execute(END, record[0])
    assert await asyncio.wait_for(heard.get(), 60) is None
    await store.notify([f"acct_{number:030}" for number in range(500)])
    told = [await asyncio.wait_for(heard.get(), 60) for _ in range(3)]
    assert sum(len(accounts or ()) for accounts in told) == 500
    await listener.close()


async def test_listeners_do_not_hear_themselves_but_whoever_does_not_say_who_tells(
    store: Store, administrator: asyncpg.Connection
) -> None:
    heard: asyncio.Queue[frozenset[str] | None] = asyncio.Queue()
    listener = store.listen(heard.put_nowait, "one")
    await listener.start()
    assert await asyncio.wait_for(heard.get(), 60) is None
    await store.notify(["acct_1"], "one")
    await store.notify(["acct_2", "acct_3"], "other")
    await administrator.execute("SELECT pg_notify('billing_events', 'acct_4,acct_5')")
    assert await asyncio.wait_for(heard.get(), 60) == frozenset({"acct_2", "acct_3"})
    assert await asyncio.wait_for(heard.get(), 60) == frozenset({"acct_4", "acct_5"})
    await listener.close()


async def test_a_transaction_canceled_as_it_begins_leaves_no_trace(
    fragile: Store, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The driver would give such a connection back within its transaction, and complain about it."""
    statements = "BEGIN; SELECT pg_sleep(60)"
    task = asyncio.create_task(fragile._database.begin(statements))
    observer = await asyncpg.connect(database_url)
    begun = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1"
    async with asyncio.timeout(60):
        while not await observer.fetchval(begun, statements):  # noqa: ASYNC110  # no event comes from another session
            await asyncio.sleep(0.01)
    await observer.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fragile.close()
    assert "active transaction" not in caplog.text
