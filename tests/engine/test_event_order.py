"""Promises 10, 17 and 18: events are dense, in the order of decisions, and heard in all processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from billing.v1.event_model_pb2 import Event as EventMessage
from billing_server.domain import commands as c
from billing_server.domain.catalog import Product
from billing_server.domain.customer import Customer
from billing_server.domain.errors import DomainError
from billing_server.engine import bell as bell_module
from billing_server.engine.bell import Bell
from billing_server.engine.engine import Engine
from billing_server.store import event as event_log
from billing_server.store import notifications
from billing_server.store.event import Appended
from billing_server.store.store import Store
from tests.engine.ledger import audit_events
from tests.engine.times import DAY, HOUR
from tests.engine.world import World, eventually, outcomes, within

HEARD_SECONDS_MAX = 60.0


async def _busy(world: World, processes: list[Engine], customers: list[str]) -> None:
    """Commands on the same customers from all processes at once."""
    commands = [
        world.ask(process, c.UpdateCustomer(id=customer, description=f"{number} {index}"))
        for number in range(12)
        for index, process in enumerate(processes)
        for customer in customers
    ]
    answers = await outcomes(*commands)
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []


async def _told_in_the_order_of_decisions(world: World, engine: Engine, customers: list[str]) -> None:
    """What each event says was before is what the event before it said is."""
    for customer in customers:
        told = [
            EventMessage.FromString(event.payload)
            for event in await world.events(engine)
            if event.object_id == customer
        ]
        assert told[0].type == "customer.created"
        for before, after in pairwise(told):
            assert after.type == "customer.updated"
            previous = MessageToDict(after.previous_attributes)
            assert (previous["description"] or "") == before.customer_object.description
        current = await world.get(engine, Customer, customer)
        assert told[-1].customer_object.description == current.description


async def test_events_are_dense_and_in_the_order_of_decisions(world: World, engine: Engine) -> None:
    processes = [engine, await world.process(), await world.process()]
    customers = [await world.customer(engine, None) for _ in range(3)]
    await _busy(world, processes, customers)
    await _told_in_the_order_of_decisions(world, engine, customers)
    await audit_events(world, engine)


async def test_positions_taken_before_the_decision_would_be_noticed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the test above: a sequence, which is not in the order of commits, and has gaps."""
    customers = [await world.customer(engine, None) for _ in range(3)]
    other = await world.process()
    sequence = f"seq_{world.account_id}"
    (row,) = await world.sql("SELECT position FROM event_heads WHERE account_id = $1", world.account_id)
    await world.sql(f"CREATE SEQUENCE {sequence} START {row['position'] + 5}")
    await world.sql(f"GRANT USAGE ON SEQUENCE {sequence} TO billing_app")
    queries: Any = event_log.QUERIES._queries
    by_sequence = queries["append"].replace("position + $2", f"nextval('{sequence}') + $2")
    assert by_sequence != queries["append"]
    monkeypatch.setitem(queries, "append", by_sequence)
    with pytest.raises(AssertionError):
        await _busy(world, [engine, other], customers)
        await audit_events(world, engine)


async def test_a_failed_transaction_leaves_no_gap(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.ask(engine, c.CreateCustomer(name="first", invoice_prefix="TAKEN"))
    commands = [c.CreateCustomer(name=f"{i}", invoice_prefix="TAKEN" if i % 5 == 0 else None) for i in range(30)]
    await outcomes(*(world.ask(engine, command) for command in commands))
    await audit_events(world, engine)


async def test_refused_and_repeated_commands_make_no_events(world: World, engine: Engine) -> None:
    command = c.CreateCustomer(name="Ada")
    await world.ask(engine, command, "key_1")
    before = len(await world.events(engine))
    await world.ask(engine, command, "key_1")
    await outcomes(world.ask(engine, c.UpdateCustomer(id="cus_nobody", name="x")))
    assert len(await world.events(engine)) == before


async def test_time_and_commands_are_told_in_order(world: World, engine: Engine) -> None:
    """A book's events go by the order in which they were decided, whoever decides: commands, time, or the gateway."""
    other = await world.process()
    customer = await world.customer(engine)
    subscription = await world.subscribe(engine, customer)
    for _ in range(3):
        world.time.pass_(31 * DAY)
        command = c.UpdateSubscription(id=subscription.id, description=f"{world.time.now}")
        await outcomes(world.work_off(engine), world.ask(other, command), world.work_off(other))
        world.time.pass_(HOUR)
        await outcomes(world.work_off(engine), world.work_off(other))
    told = [EventMessage.FromString(event.payload) for event in await world.events(engine)]
    starts = [item.subscription.current_period_start.seconds for item in told if item.HasField("subscription")]
    assert starts == sorted(starts)
    by_invoice: dict[str, list[str]] = {}
    for item in told:
        if item.HasField("invoice") and item.type != "invoice.upcoming":
            by_invoice.setdefault(item.object_id, []).append(item.type)
    assert len(by_invoice) == 4
    for types in by_invoice.values():
        assert (types[0], types[-1]) == ("invoice.created", "invoice.payment_succeeded")
    await audit_events(world, engine)


# --- the bell


async def _heard(world: World, listener: Engine, speaker: Engine) -> None:
    """A reader in one process hears of what another process does."""
    with listener.bell.listening(world.account_id) as rung:
        rung.clear()
        await world.ask(speaker, c.CreateCustomer(name="Ada"))
        await within(rung.wait(), HEARD_SECONDS_MAX)


@pytest.fixture
async def listener(world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """Another process, which listens already; nobody here looks by themselves if a slow machine loses a ring."""
    monkeypatch.setattr(bell_module, "_TELL_SECONDS_MAX", HEARD_SECONDS_MAX)
    process = await world.process()
    await process.bell.start()
    with process.bell.listening(world.account_id) as standing:
        await within(standing.wait())
    yield process


async def test_readers_in_the_same_process_are_woken(world: World, engine: Engine) -> None:
    await _heard(world, engine, engine)


async def test_readers_in_other_processes_are_woken(world: World, engine: Engine, listener: Engine) -> None:
    for _ in range(3):
        await _heard(world, listener, engine)


async def test_a_bell_that_is_not_heard_elsewhere_would_be_noticed(
    world: World, engine: Engine, listener: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the test above."""

    async def silent(_store: Store, _accounts: Any, _sender: str) -> None:
        return None

    monkeypatch.setattr(Store, "notify", silent)
    monkeypatch.setattr("tests.engine.test_event_order.HEARD_SECONDS_MAX", 0.3)
    with pytest.raises(TimeoutError):
        await _heard(world, listener, engine)


async def test_other_accounts_are_left_in_peace(world: World, engine: Engine, listener: Engine) -> None:
    with listener.bell.listening("acct_other") as rung:
        await _heard(world, listener, engine)
        assert not rung.is_set()


async def test_many_commits_are_told_by_few_notifications(
    world: World, engine: Engine, listener: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap 13: NOTIFY is coalesced, outside of transactions."""
    notify, told = Store.notify, list[int]()

    async def counted(store: Store, accounts: Any, sender: str) -> None:
        told.append(1)
        await notify(store, accounts, sender)

    monkeypatch.setattr(Store, "notify", counted)
    # Long enough for a machine that needs long for each of them.
    monkeypatch.setattr("billing_server.engine.bell._COALESCE_SECONDS", 1.0)
    for _ in range(40):
        await world.ask(engine, c.CreateCustomer(name="Ada"))
    await _heard(world, listener, engine)
    assert len(told) < 40


async def test_a_listener_whose_connection_breaks_wakes_its_readers_when_it_is_back(
    world: World, engine: Engine, listener: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told meanwhile was not heard, so everybody looks."""
    monkeypatch.setattr(notifications, "_PROBE_SECONDS", 0.05)
    monkeypatch.setattr(notifications, "_RETRY_SECONDS", 0.05)
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'billing-listener'"
    await within(listener.bell.close())
    await listener.bell.start()
    with listener.bell.listening(world.account_id) as rung:
        await within(rung.wait())
        rung.clear()
        await world.sql(kill)
        await within(rung.wait(), HEARD_SECONDS_MAX)
    await _heard(world, listener, engine)


async def test_a_bell_survives_a_database_that_is_away(
    world: World, engine: Engine, listener: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify, failed = Store.notify, list[int]()

    async def away(store: Store, accounts: Any, sender: str) -> None:
        if not failed:
            failed.append(1)
            raise TimeoutError
        await notify(store, accounts, sender)

    monkeypatch.setattr(Store, "notify", away)
    await world.ask(engine, c.CreateCustomer(name="Ada"))
    await eventually(lambda: bool(failed))
    await _heard(world, listener, engine)


async def test_a_process_does_not_hear_what_it_has_told_itself(world: World, engine: Engine, listener: Engine) -> None:
    """Its readers were woken when it was done; the notification would have them look in vain."""
    received: list[Appended | None] = []
    own = Appended([], 0)
    listener.bell.receive("acct_told", received.append)
    with listener.bell.listening("acct_told") as rung:
        listener.bell.ring("acct_told", own)
        assert listener.bell._telling is not None
        await within(listener.bell._telling)
        rung.clear()
        engine.bell.ring("acct_told", own)
        await within(rung.wait(), HEARD_SECONDS_MAX)
    assert received == [own, None]


async def test_a_bell_that_is_closed_tells_what_it_had_to_tell_and_is_quiet(
    world: World, listener: Engine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bell_module, "_COALESCE_SECONDS", 3_600)
    process = await world.process(connections=2)
    with listener.bell.listening(world.account_id) as rung:
        await world.ask(process, c.CreateCustomer(name="Ada"))
        rung.clear()
        await within(world.end(process))
        await within(rung.wait(), HEARD_SECONDS_MAX)
    with process.bell.listening(world.account_id) as rung:
        process.bell.ring(world.account_id)
        assert rung.is_set()
    await asyncio.sleep(0)
    assert "not woken" not in caplog.text


async def test_a_bell_does_not_wait_for_ever_to_be_heard(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hanging(_store: Store, _accounts: Any, _sender: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Store, "notify", hanging)
    monkeypatch.setattr(bell_module, "_LAST_WORDS_SECONDS", 0.01)
    await world.ask(engine, c.CreateCustomer(name="Ada"))
    await within(engine.bell.close())


async def test_listening_leaves_nothing_behind(world: World, engine: Engine) -> None:
    bell: Bell = engine.bell
    for _ in range(5):
        with contextlib.suppress(TimeoutError), bell.listening(world.account_id) as rung:
            await within(rung.wait(), 0.001)
    assert not bell._waiting


# --- what other processes have changed


async def test_pages_that_another_process_has_changed_are_seen_at_once(world: World, engine: Engine) -> None:
    other = await world.process()
    customer = await world.customer(engine)
    await world.subscribe(other, customer)
    dearer = await world.add_price(engine, amount=5000)
    subscription = await world.subscribe(other, customer, items=(c.ItemParams(price=dearer),))
    assert subscription.items[0].price == dearer
    await world.ask(engine, c.UpdatePrice(id=dearer, active=False))
    with pytest.raises(DomainError, match="active"):
        await world.subscribe(other, customer, items=(c.ItemParams(price=dearer),))
    await world.ask(other, c.UpdateSettings(finalization_delay_seconds=60))
    world.time.pass_(31 * DAY)
    await world.work_off(engine)
    drafts = await world.invoices(engine, status="draft")
    assert {item.automatically_finalizes_at for item in drafts} == {world.time.now + 60}


async def test_pages_of_a_transaction_that_was_rolled_back_are_not_kept(world: World, engine: Engine) -> None:
    product = await world.do(engine, c.CreateProduct(name="Gold"), Product)
    with pytest.raises(ZeroDivisionError):
        async with engine.store.transaction(world.account_id) as unit:
            pages = await engine.pages.load(unit, lock=True)
            await unit.save_pages(account=pages.account)
            raise ZeroDivisionError
    await world.ask(engine, c.UpdateProduct(id=product.id, name="Silver"))
    assert (await world.get(engine, Product, product.id)).name == "Silver"
