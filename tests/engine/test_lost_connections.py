"""Trap 9: a connection that breaks while committing says nothing about the outcome; effects happen once anyway."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from billing_server.domain import commands as c
from billing_server.domain.customer import Customer
from billing_server.embedded_postgres import EmbeddedPostgres
from billing_server.engine import transactions
from billing_server.engine.engine import Engine
from billing_server.engine.work import Answer
from billing_server.store.customer import CustomerFilter
from billing_server.store.errors import CommitUnknown, OutcomeLost, StoreError, StoreUnavailable
from billing_server.store.migrate import migrate
from billing_server.store.transaction_id import TransactionId
from billing_server.store.unit import Unit
from tests.conftest import POSTGRES_SETTINGS, temporary_data_directory
from tests.engine.ledger import audit
from tests.engine.times import DAY, HOUR, START
from tests.engine.world import SECONDS_MAX, World, caller, outcomes, within
from tests.proxy import Cut, Proxy, proxy_to

CUTS: tuple[Cut, ...] = ("the request is lost", "the answer is lost")


@pytest.fixture
async def proxy(engine_database_url: str) -> AsyncIterator[Proxy]:
    """A way to the database that can be cut."""
    async with proxy_to(engine_database_url) as made:
        yield made


@pytest.fixture
async def behind(world: World, proxy: Proxy) -> Engine:
    """A process behind the proxy, which has opened the account."""
    process = await world.process(connections=4, database_url=proxy.url)
    await world.open_account(process)
    return process


async def _made_once(world: World, engine: Engine, proxy: Proxy, cuts: list[Cut]) -> None:
    proxy.cuts = list(cuts)
    await world.do(engine, c.CreateCustomer(name="once"), Customer)
    assert proxy.done[-len(cuts) :] == cuts, "the connection was not cut"
    async with engine.store.view(world.account_id) as view:
        page = await view.page(CustomerFilter(), limit=10)
    assert [customer.name for customer in page.items] == ["once"]
    created = [event.type for event in await world.events(engine) if event.type == "customer.created"]
    assert len(created) == 1


@pytest.mark.parametrize("cuts", [[CUTS[0]], [CUTS[1]], [CUTS[0], CUTS[1]], [CUTS[0], CUTS[0], CUTS[1]]], ids=str)
async def test_a_connection_cut_while_committing_has_one_effect(
    world: World, behind: Engine, proxy: Proxy, cuts: list[Cut]
) -> None:
    await _made_once(world, behind, proxy, cuts)


@pytest.mark.parametrize(("cut", "believed"), [(CUTS[1], False), (CUTS[0], True)])
async def test_not_asking_the_database_would_be_noticed(
    world: World, behind: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, cut: Cut, believed: bool
) -> None:
    """The calibration of the test above: whoever guesses is wrong half of the time."""

    async def guessed(_transaction: TransactionId) -> bool:
        return believed

    monkeypatch.setattr(behind.store, "committed", guessed)
    with pytest.raises((AssertionError, ValueError)):
        await _made_once(world, behind, proxy, [cut])


@pytest.mark.parametrize("cut", CUTS)
async def test_payments_survive_cut_connections(world: World, behind: Engine, proxy: Proxy, cut: Cut) -> None:
    customer = await world.customer(behind)
    for number in range(4):
        proxy.cuts = [cut]
        subscription = await world.subscribe(behind, customer, f"key_{number}")
        assert subscription.status == "active"
        proxy.cuts = [cut] * 2
        await world.ask(behind, c.CancelSubscription(id=subscription.id))
    proxy.cuts = []
    assert world.bank.effects == 4
    await audit(world, behind)


@pytest.mark.parametrize("cut", CUTS)
async def test_renewals_survive_cut_connections(world: World, behind: Engine, proxy: Proxy, cut: Cut) -> None:
    for _ in range(5):
        await world.subscribe(behind, await world.customer(behind))
    for passed in (31 * DAY, HOUR):
        world.time.pass_(passed)
        await behind.timekeeper.sweep()
        proxy.cuts = [cut] * 3
        await within(behind.timekeeper.idle())
        proxy.cuts = []
        await world.work_off(behind, rounds=2)
        await world.pass_time(behind, 61)
    assert len(proxy.done) >= 4
    assert len(await world.invoices(behind, status="paid")) == 10
    await audit(world, behind)


@pytest.mark.parametrize("cut", CUTS)
async def test_pages_and_clocks_survive_cut_connections(world: World, behind: Engine, proxy: Proxy, cut: Cut) -> None:
    before = len(await world.events(behind))
    proxy.cuts = [cut]
    await world.ask(behind, c.CreateProduct(name="Gold"))
    proxy.cuts = [cut]
    await behind.create_test_clock(world.account_id, "clock", START, caller(c.CreateProduct(name="clock")))
    types = [event.type for event in await world.events(behind, before)]
    assert types == ["product.created", "test_helpers.test_clock.created"]


async def test_a_question_that_gets_no_answer_at_first_is_asked_again(
    world: World, behind: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "QUESTION_PAUSES", (0.02,) * 20)
    committed = behind.store.committed
    asked: list[TransactionId] = []

    async def away_at_first(transaction: TransactionId) -> bool:
        asked.append(transaction)
        if len(asked) < 4:
            raise StoreUnavailable("a planted outage")
        return await committed(transaction)

    monkeypatch.setattr(behind.store, "committed", away_at_first)
    await _made_once(world, behind, proxy, ["the answer is lost"])
    assert len(asked) == 4


async def test_what_stays_unknown_is_not_done_again(
    world: World, behind: Engine, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell: the callers are told so, and no half of the batch is run again."""
    monkeypatch.setattr(transactions, "QUESTION_PAUSES", (0.01, 0.01))

    async def nobody_knows(_transaction: TransactionId) -> bool:
        raise StoreError("the outcome is not known any more")

    monkeypatch.setattr(behind.store, "committed", nobody_knows)
    proxy.cuts = ["the answer is lost"]
    answers = await outcomes(*(world.ask(behind, c.CreateCustomer(name=f"{i}")) for i in range(6)))
    assert {type(answer) for answer in answers} == {CommitUnknown}
    created = [event.type for event in await world.events(behind) if event.type == "customer.created"]
    assert len(created) == 6


async def test_a_transaction_that_takes_for_ever_is_given_up(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the book and never lets go: the callers are told, and the account goes on."""
    customer = await world.customer(engine, None)
    lock = await world.lock_book(customer)
    with monkeypatch.context() as patch:
        patch.setattr(transactions, "SECONDS_MAX", 0.2)
        with pytest.raises(StoreUnavailable):
            await world.ask(engine, c.UpdateCustomer(id=customer, name="Grace"))
    await world.ask(engine, c.CreateCustomer(name="Ada"))
    await lock.close()
    await world.ask(engine, c.UpdateCustomer(id=customer, name="Grace"))
    assert (await world.get(engine, Customer, customer)).name == "Grace"


async def test_connections_that_break_in_the_middle_leave_nothing_half_done(
    world: World, behind: Engine, proxy: Proxy
) -> None:
    """All connections are cut again and again while commands run; with their keys they are done once in the end."""

    async def until_done(number: int) -> None:
        while True:
            try:
                await world.ask(behind, c.CreateCustomer(name=f"{number}"), f"key_{number}")
            except StoreError:
                await asyncio.sleep(0.01)
            else:
                return

    async def cutting() -> None:
        for _ in range(8):
            await asyncio.sleep(0.03)
            proxy.break_all()

    answers = await outcomes(*(until_done(number) for number in range(40)), cutting())
    assert [answer for answer in answers if answer is not None] == []
    async with behind.store.view(world.account_id) as view:
        page = await view.page(CustomerFilter(), limit=100)
    assert sorted(int(customer.name or "") for customer in page.items) == list(range(40))
    await audit(world, behind)


# --- a database that is restarted

# What is not waited for is lost for certain when PostgreSQL is shot, and nobody but the test takes numbers.
SETTINGS = {
    **POSTGRES_SETTINGS,
    "wal_writer_delay": "10000ms",
    "wal_writer_flush_after": "1GB",
    "autovacuum": "off",
}


@pytest.fixture
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL that this test may restart."""
    with (
        temporary_data_directory() as directory,
        EmbeddedPostgres(directory, settings=SETTINGS) as postgres,
    ):
        await migrate(postgres.database_url)
        yield postgres


async def test_a_restart_of_the_database_in_the_middle_loses_nothing(
    own_postgres: EmbeddedPostgres, world: World
) -> None:
    world.database_url = own_postgres.database_url
    engine = await world.process(connections=6)
    await world.open_account(engine)
    for _ in range(6):
        await world.subscribe(engine, await world.customer(engine))
    world.time.now = START + 31 * DAY + HOUR

    async def until_done(number: int) -> Any:
        while True:
            try:
                return await world.ask(engine, c.CreateCustomer(name=f"{number}"), f"key_{number}")
            except StoreError:
                await asyncio.sleep(0.05)

    async def restarting() -> None:
        await asyncio.sleep(0.03)
        await asyncio.to_thread(own_postgres.stop)
        await asyncio.to_thread(own_postgres.start)

    async def ticking() -> None:
        for _ in range(10):
            await engine.timekeeper._tick("sweep", engine.timekeeper.sweep)
            await asyncio.sleep(0.05)

    answers = await outcomes(*(until_done(number) for number in range(30)), restarting(), ticking())
    assert [answer for answer in answers if not isinstance(answer, Answer | None)] == []
    for _ in range(3):
        await world.pass_time(engine, 61)
        await within(engine.timekeeper.idle())
    assert not engine.timekeeper.failing
    await world.pass_time(engine, HOUR)
    assert len(await world.invoices(engine, status="paid")) == 12
    async with engine.store.view(world.account_id) as view:
        page = await view.page(CustomerFilter(), limit=100)
    assert sum((customer.name or "").isdigit() for customer in page.items) == 30
    await audit(world, engine)
    await world.end(engine)


async def _shoot(postgres: EmbeddedPostgres) -> None:
    """End PostgreSQL without a word, and let it recover."""
    assert postgres.process_id is not None
    os.kill(postgres.process_id, signal.SIGQUIT)
    async with asyncio.timeout(SECONDS_MAX):
        while postgres.process_id is not None:  # noqa: ASYNC110  # no event comes from another process
            await asyncio.sleep(0.02)
    await asyncio.to_thread(postgres.stop)
    await asyncio.to_thread(postgres.start)


async def _lost_in_a_crash(postgres: EmbeddedPostgres, world: World, engine: Engine) -> TransactionId:
    """A transaction of which nothing reached the disk before PostgreSQL was shot."""
    with pytest.raises(CommitUnknown) as failed:
        async with engine.store.transaction(world.account_id) as unit:
            await unit.open()
            await _shoot(postgres)
    assert failed.value.transaction is not None
    return failed.value.transaction


async def test_a_number_given_again_after_a_crash_is_not_taken_for_the_lost_transaction(
    own_postgres: EmbeddedPostgres, world: World
) -> None:
    """PostgreSQL forgets the number of a transaction that a crash took whole, and gives it to the next one."""
    world.database_url = own_postgres.database_url
    engine = await world.process(connections=2)
    await world.open_account(engine)
    lost = await _lost_in_a_crash(own_postgres, world, engine)
    assert not await engine.store.committed(lost), "a number that nobody has yet"

    given: list[TransactionId] = []
    while not given or given[-1].number < lost.number:
        async with engine.store.transaction(world.account_id) as unit:
            given.append((await unit.open()).transaction)
    assert given[-1].number == lost.number, "the number was not given again"

    assert await engine.store.committed(given[-1])
    with pytest.raises(OutcomeLost):
        await engine.store.committed(lost)
    with pytest.raises(CommitUnknown):
        await transactions.took_effect(engine.store, lost)
    await world.end(engine)


async def test_a_transaction_that_a_crash_lost_is_run_again(own_postgres: EmbeddedPostgres, world: World) -> None:
    world.database_url = own_postgres.database_url
    engine = await world.process(connections=2)
    await world.open_account(engine)
    runs: list[int] = []

    async def body(unit: Unit) -> int:
        runs.append((await unit.open()).transaction.number)
        if len(runs) == 1:
            await _shoot(own_postgres)
        return len(runs)

    assert await transactions.committed(engine.store, world.account_id, body) == 2
    await world.end(engine)


async def test_a_backend_that_dies_is_a_crash_and_a_planned_restart_is_none(
    own_postgres: EmbeddedPostgres, world: World
) -> None:
    """PostgreSQL recovers in place when one of its backends is killed; its start time does not tell."""
    world.database_url = own_postgres.database_url
    engine = await world.process(connections=1)
    await world.open_account(engine)

    async def made() -> TransactionId:
        async with engine.store.transaction(world.account_id) as unit:
            return (await unit.open()).transaction

    async def when_back() -> TransactionId:
        async with asyncio.timeout(SECONDS_MAX):
            while True:
                try:
                    return await made()
                except StoreError:
                    await asyncio.sleep(0.05)

    before = await made()
    await asyncio.to_thread(own_postgres.stop)
    await asyncio.to_thread(own_postgres.start)
    planned = await when_back()
    assert planned.recovery == before.recovery
    assert await engine.store.committed(before)

    (backend,) = await world.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'billing-server'")
    os.kill(backend["pid"], signal.SIGKILL)
    assert (await when_back()).recovery != planned.recovery
    with pytest.raises(OutcomeLost):
        await engine.store.committed(planned)
    await world.end(engine)
