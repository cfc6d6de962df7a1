"""Test clocks: exact dates over a year, any distance, any number of watchers and processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from dateutil.relativedelta import relativedelta

from billing_server.domain import commands as c
from billing_server.domain.customer import Customer
from billing_server.domain.errors import InvalidArgument, LimitReached, ResourceMissing
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription
from billing_server.domain.test_clock import TestClock
from billing_server.engine import test_clocks as clocks_module
from billing_server.engine.door import Door
from billing_server.engine.engine import Engine
from billing_server.engine.test_clocks import Progress, TestClocks
from billing_server.engine.work import Caller
from billing_server.store.errors import StoreUnavailable
from tests.engine.ledger import audit
from tests.engine.times import DAY, HOUR, START, Gate, Stops
from tests.engine.world import END_SECONDS_MAX, World, caller, collected, outcomes, within

THE_31ST = datetime(2100, 1, 31, 10, tzinfo=UTC)
BEGIN = int(THE_31ST.timestamp())
YEAR = 365 * DAY
MOVE_SECONDS_MAX = 300.0


def _asking() -> Caller:
    return caller(c.CreateProduct(name="clock"))


async def _clock(world: World, engine: Engine, frozen_time: int = BEGIN) -> str:
    made = await engine.create_test_clock(world.account_id, "clock", frozen_time, _asking())
    assert isinstance(made.result, TestClock)
    return made.result.id


async def _advance(world: World, engine: Engine, clock_id: str, target: int) -> list[Progress]:
    return await within(
        collected(engine.clocks.advance(world.account_id, clock_id, target, _asking())), MOVE_SECONDS_MAX
    )


async def _now(world: World, engine: Engine, clock_id: str) -> TestClock:
    return await world.get(engine, TestClock, clock_id)


async def _subscribers(world: World, engine: Engine, clock_id: str, number: int, token: str = "succeed") -> list[str]:
    """Customers of the clock with a monthly subscription each, who pay with the token from the first renewal on."""
    customers = await outcomes(*(world.customer(engine, test_clock=clock_id) for _ in range(number)))
    await outcomes(*(world.subscribe(engine, customer) for customer in customers))
    if token != "succeed":
        await outcomes(*(world.ask(engine, _card(customer, token)) for customer in customers))
    return list(customers)


def _card(customer: str, token: str) -> c.Command:
    return c.AttachPaymentMethod(customer=customer, token=token, set_default=True)


def _month(number: int) -> int:
    """The k-th boundary of a subscription that began on the 31st, by another calendar than the engine's."""
    return int((THE_31ST + relativedelta(months=number)).timestamp())


# --- exactly as continuous time would have it


async def test_a_year_of_three_hundred_customers(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    good = await _subscribers(world, engine, clock_id, 240)
    bad = await _subscribers(world, engine, clock_id, 30, "decline")
    late = await _subscribers(world, engine, clock_id, 30, "decline,decline,succeed")
    target = BEGIN + YEAR + 2 * HOUR
    told = await _advance(world, engine, clock_id, target)

    times = [progress.clock.frozen_time for progress in told]
    assert times == sorted(times)
    assert (told[-1].done, told[-1].clock.status, times[-1]) == (True, "ready", target)
    by_customer: dict[str, list[Invoice]] = {}
    for invoice in await world.invoices(engine):
        by_customer.setdefault(invoice.customer, []).append(invoice)
    for customer in good:
        paid = [(invoice.created, invoice.paid_at, invoice.attempt_count) for invoice in by_customer[customer]]
        assert paid == [(BEGIN, BEGIN, 1), *((_month(k), _month(k) + HOUR, 1) for k in range(1, 13))]
    for customer in late:
        paid = [(invoice.created, invoice.paid_at, invoice.attempt_count) for invoice in by_customer[customer][1:]]
        assert paid == [(_month(k), _month(k) + HOUR + 8 * DAY, 3) for k in range(1, 12)] + [(_month(12), None, 1)]
    attempts: dict[str, list[tuple[int, str]]] = {}
    for attempt in await world.attempts(engine):
        attempts.setdefault(attempt.customer, []).append((attempt.due_at, attempt.state))
    first = _month(1) + HOUR
    for customer in bad:
        (_, renewal) = by_customer[customer]
        assert (renewal.status, renewal.attempt_count, renewal.next_payment_attempt) == ("open", 4, None)
        tries = [first, first + 3 * DAY, first + 8 * DAY, first + 15 * DAY]
        assert attempts[customer] == [(BEGIN, "succeeded"), *((moment, "failed") for moment in tries)]
        (subscription,) = await world.subscriptions(engine, customer=customer, statuses=("canceled",))
        assert subscription.ended_at == first + 15 * DAY
    await audit(world, engine)


async def test_a_jump_has_no_cap(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    yearly = await world.add_price(engine, interval="year")
    customer = await world.customer(engine, test_clock=clock_id)
    items = (c.ItemParams(price=yearly),)
    await world.subscribe(engine, customer, items=items)
    sent = await world.customer(engine, None, test_clock=clock_id)
    await world.subscribe(engine, sent, collection_method="send_invoice", days_until_due=30)
    await _advance(world, engine, clock_id, int((THE_31ST + relativedelta(years=20)).timestamp()) + 2 * HOUR)
    paid = [invoice.paid_at for invoice in await world.invoices(engine, customer=customer)]
    years = [int((THE_31ST + relativedelta(years=k)).timestamp()) for k in range(21)]
    assert paid == [years[0], *(moment + HOUR for moment in years[1:])]
    created = [invoice.created for invoice in await world.invoices(engine, customer=sent)]
    assert created == [_month(k) for k in range(241)]


async def test_many_small_moves_are_one_large_one(new_world: Callable[[], World]) -> None:
    async def lived(steps: int) -> list[tuple[Any, ...]]:
        world = new_world()
        engine = await world.process()
        await world.open_account(engine)
        clock_id = await _clock(world, engine)
        for token in ("succeed", "decline,succeed", "decline"):
            await _subscribers(world, engine, clock_id, 2, token)
        for step in range(1, steps + 1):
            await _advance(world, engine, clock_id, BEGIN + 100 * DAY * step // steps)
        await audit(world, engine)
        return [(i.created, i.finalized_at, i.paid_at, i.status, i.attempt_count) for i in await world.invoices(engine)]

    assert sorted(await lived(1), key=str) == sorted(await lived(25), key=str)


# --- what it refuses


async def test_a_clock_moves_only_forward(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    for target in (BEGIN, BEGIN - 1):
        with pytest.raises(InvalidArgument) as refused:
            await _advance(world, engine, clock_id, target)
        assert refused.value.reason == "test_clock_backwards"
    with pytest.raises(InvalidArgument) as refused:
        await _advance(world, engine, clock_id, 10**12)
    assert refused.value.reason == "time_out_of_range"
    with pytest.raises(ResourceMissing):
        await _advance(world, engine, "clock_nobody", BEGIN + 1)


async def _held_up(world: World, engine: Engine, clock_id: str, target: int) -> asyncio.Task[list[Progress]]:
    """A move that waits for a charge that hangs."""
    moving = asyncio.create_task(_advance(world, engine, clock_id, target))
    await world.asked_the_gateway(len(world.bank.requests) + 1)
    return moving


async def test_customers_of_a_moving_clock_wait(world: World, engine: Engine) -> None:
    other = await world.process()
    clock_id = await _clock(world, engine)
    (customer,) = await _subscribers(world, engine, clock_id, 1, "hang")
    elsewhere = await world.customer(engine)
    moving = await _held_up(world, engine, clock_id, _month(1) + 2 * HOUR)
    for process in (engine, other):
        for command in (c.UpdateCustomer(id=customer, name="Grace"), c.CreateCustomer(test_clock=clock_id)):
            with pytest.raises(LimitReached) as refused:
                await world.ask(process, command)
            assert refused.value.reason == "test_clock_advancing"
        with pytest.raises(LimitReached) as refused:
            await _advance(world, process, clock_id, _month(2))
        assert refused.value.reason == "test_clock_advancing"
    await world.ask(engine, c.UpdateCustomer(id=elsewhere, name="Grace"))
    assert (await _now(world, engine, clock_id)).status == "advancing"
    world.bank.released.set()
    assert (await within(moving))[-1].done
    await world.ask(engine, c.UpdateCustomer(id=customer, name="Grace"))


# --- watchers


async def test_two_watchers_of_one_move_see_its_end(world: World, engine: Engine) -> None:
    other = await world.process()
    clock_id = await _clock(world, engine)
    await _subscribers(world, engine, clock_id, 5)
    target = BEGIN + 70 * DAY
    told = await outcomes(*(_advance(world, process, clock_id, target) for process in (engine, engine, other)))
    for progress in told:
        assert (progress[-1].done, progress[-1].clock.frozen_time) == (True, target)
    types = [event.type for event in await world.events(engine) if event.object_id == clock_id]
    assert types == [f"test_helpers.test_clock.{what}" for what in ("created", "advancing", "ready")]
    await audit(world, engine)


async def test_a_watcher_who_goes_away_does_not_stop_the_move(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    await _subscribers(world, engine, clock_id, 3)
    target = BEGIN + 70 * DAY
    async for _ in engine.clocks.advance(world.account_id, clock_id, target, _asking()):
        break
    told = (
        await _advance(world, engine, clock_id, target)
        if (await _now(world, engine, clock_id)).frozen_time < target
        else []
    )
    assert (await _now(world, engine, clock_id)).frozen_time == target, told


async def test_the_watcher_of_a_new_move_does_not_see_the_end_of_the_old_one(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_id = await _clock(world, engine)
    finish = TestClocks._finish
    committed = asyncio.Event()

    async def lingering(clocks: TestClocks, *arguments: Any) -> TestClock:
        finished = await finish(clocks, *arguments)
        committed.set()
        await asyncio.sleep(0.1)
        return finished

    monkeypatch.setattr(TestClocks, "_finish", lingering)
    first = asyncio.create_task(_advance(world, engine, clock_id, BEGIN + DAY))
    await within(committed.wait())
    told = await _advance(world, engine, clock_id, BEGIN + 2 * DAY)
    assert [(progress.done, progress.clock.frozen_time) for progress in told][-1] == (True, BEGIN + 2 * DAY)
    assert (await within(first))[-1].clock.frozen_time == BEGIN + DAY


async def test_a_move_that_was_overtaken_does_not_end_the_next_one_early(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    old = await _now(world, engine, clock_id)
    await _subscribers(world, engine, clock_id, 1, "hang")
    moving = await _held_up(world, engine, clock_id, _month(2))
    after = await engine.clocks._finish(world.account_id, old, BEGIN + 1)
    assert (after.status, after.target_frozen_time) == ("advancing", _month(2))
    world.bank.released.set()
    await within(moving)


# --- processes that come and go


async def test_a_second_process_goes_on_where_the_first_was_cut_off(new_world: Callable[[], World]) -> None:
    async def lived(killed_at: int | None) -> list[tuple[Any, ...]]:
        world = new_world()
        peaceful = await world.process()
        await world.open_account(peaceful)
        clock_id = await _clock(world, peaceful)
        for token in ("succeed", "decline,succeed", "decline"):
            await _subscribers(world, peaceful, clock_id, 4, token)
        await world.end(peaceful)
        target = BEGIN + 100 * DAY
        stops = Stops(killed_at)
        first = await world.process(stops=stops)
        moving = asyncio.create_task(_advance(world, first, clock_id, target))
        if killed_at is not None:
            await within(stops.reached.wait())
            await world.kill(first, moving)
            first = await world.process()
        else:
            await moving
        while (clock := await _now(world, first, clock_id)).status != "ready":
            world.time.pass_(61)
            await world.work_off(first)
            await asyncio.sleep(0.01)
        assert clock.frozen_time == target
        await audit(world, first)
        return sorted(
            [(i.created, i.finalized_at, i.paid_at, i.status, i.attempt_count) for i in await world.invoices(first)],
            key=str,
        )

    uninterrupted = await lived(None)
    for killed_at in (14, 33, 52):
        assert await lived(killed_at) == uninterrupted


async def test_a_clock_on_its_way_is_shown_where_it_is(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks_module, "BOOKS_MAX", 2)
    clock_id = await _clock(world, engine)
    await _subscribers(world, engine, clock_id, 1)
    await _subscribers(world, engine, clock_id, 1, "succeed,hang")
    (customer,) = await _subscribers(world, engine, clock_id, 1, "hang")
    assert customer
    moving = await _held_up(world, engine, clock_id, _month(3))
    seen = await _now(world, engine, clock_id)
    assert BEGIN <= seen.frozen_time <= _month(1) + HOUR
    world.bank.released.set()
    await within(moving)
    assert (await _now(world, engine, clock_id)).frozen_time == _month(3)


async def test_the_end_of_a_process_tells_its_watchers(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    await _subscribers(world, engine, clock_id, 1, "hang")
    moving = await _held_up(world, engine, clock_id, _month(2))
    await within(world.end(engine, drain_seconds=0.05), END_SECONDS_MAX)
    with pytest.raises(StoreUnavailable):
        await within(moving)
    assert (await _now(world, await world.process(), clock_id)).status == "advancing"


# --- meetings


def _nothing() -> None:
    """No bug is planted."""


async def _subscribed_while_it_moves(world: World, engine: Engine, plant: Callable[[], None] = _nothing) -> None:
    """A subscription is decided before the clock sets out, and committed later."""
    clock_id = await _clock(world, engine)
    customer = await world.customer(engine, None, test_clock=clock_id)
    plant()
    gate = Gate()
    slow = await world.process(stops=gate)
    items = (c.ItemParams(price=world.price),)
    command = c.CreateSubscription(customer=customer, items=items, collection_method="send_invoice", days_until_due=30)
    subscribing = asyncio.create_task(world.do(slow, command, Subscription))
    await within(gate.reached.wait())
    moving = asyncio.create_task(_advance(world, engine, clock_id, _month(2) + 2 * HOUR))
    # It waits for the command to let go of the clock, or has passed it by.
    while not (moving.done() or await world.somebody_waits()):
        await asyncio.wait({moving}, timeout=0.02)
    gate.open.set()
    subscription = await within(subscribing)
    await within(moving)
    subscription = await world.get(engine, Subscription, subscription.id)
    assert subscription.current_period_end > _month(2) + 2 * HOUR, "time has left it behind"
    assert len(await world.invoices(engine)) == 3


async def test_nothing_that_was_decided_before_a_move_is_left_behind_by_it(world: World, engine: Engine) -> None:
    await _subscribed_while_it_moves(world, engine)


async def test_what_is_left_behind_would_be_noticed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the test above: commands do not lock the clock that they go by."""

    async def unlocked(*_: object) -> dict[str, TestClock]:
        return {}

    with pytest.raises(AssertionError, match="time has left it behind"):
        await _subscribed_while_it_moves(world, engine, lambda: monkeypatch.setattr(Door, "_clocks", unlocked))


async def test_an_outcome_found_out_later_does_not_turn_time_back(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    (customer,) = await _subscribers(world, engine, clock_id, 1, "effect_then_timeout,succeed")
    await _advance(world, engine, clock_id, _month(1) + 20 * DAY)
    (_, renewal) = await world.invoices(engine, customer=customer)
    assert renewal.status == "open"
    await world.pass_time(engine, 300)
    renewal = await world.get(engine, Invoice, renewal.id)
    assert (renewal.status, renewal.paid_at) == ("paid", _month(1) + 20 * DAY)
    created = [event.created for event in await world.events(engine) if event.customer == customer]
    assert created == sorted(created)
    await audit(world, engine)


async def test_a_poisoned_book_does_not_hold_up_its_clock(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock_id = await _clock(world, engine)
    customers = await _subscribers(world, engine, clock_id, 5)
    await world.sql("""UPDATE subscriptions SET items = '[{"a": "bug"}]' WHERE customer = $1""", customers[2])
    await _advance(world, engine, clock_id, _month(2) + 2 * HOUR)
    assert engine.door.parked == 1
    counts = {customer: len(await world.invoices(engine, customer=customer)) for customer in customers}
    assert counts == {customer: 1 if customer == customers[2] else 3 for customer in customers}


# --- deletion


async def test_a_deleted_clock_takes_its_customers_along(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    gone = await _subscribers(world, engine, clock_id, 3)
    await _advance(world, engine, clock_id, _month(1) + 2 * HOUR)
    stays = await world.customer(engine)
    await world.subscribe(engine, stays)
    before = await world.events(engine)
    await engine.delete_test_clock(world.account_id, clock_id, _asking())
    for customer in gone:
        with pytest.raises(ResourceMissing):
            await world.get(engine, Customer, customer)
        with pytest.raises(ResourceMissing):
            await world.ask(engine, c.UpdateCustomer(id=customer, name="Grace"))
    assert {invoice.customer for invoice in await world.invoices(engine)} == {stays}
    after = await world.events(engine)
    assert [event.type for event in after[len(before) :]] == ["test_helpers.test_clock.deleted"]
    with pytest.raises(ResourceMissing):
        await _advance(world, engine, clock_id, _month(3))


async def test_a_clock_is_deleted_by_itself_when_its_lifetime_is_over(world: World, engine: Engine) -> None:
    clock_id, busy = await _clock(world, engine), await _clock(world, engine)
    (customer,) = await _subscribers(world, engine, clock_id, 1)
    await _subscribers(world, engine, busy, 1, "hang")
    moving = await _held_up(world, engine, busy, _month(2))
    clock = await _now(world, engine, clock_id)
    assert clock.deletes_after == clock.created + 30 * DAY
    await engine.clocks.delete_old(world.account_id, clock.created + 30 * DAY - 1)
    assert await _now(world, engine, clock_id) == clock
    before = await world.events(engine)
    await engine.clocks.delete_old(world.account_id, clock.created + 31 * DAY)
    await engine.clocks.delete_old(world.account_id, clock.created + 31 * DAY)
    with pytest.raises(ResourceMissing):
        await world.get(engine, Customer, customer)
    told = (await world.events(engine))[len(before) :]
    assert [event.type for event in told] == ["test_helpers.test_clock.deleted"]
    world.bank.released.set()
    await within(moving)
    await engine.clocks.delete_old(world.account_id, clock.created + 31 * DAY)
    with pytest.raises(ResourceMissing):
        await _now(world, engine, busy)


async def test_a_clock_that_is_deleted_on_its_way_tells_its_watchers(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    await _subscribers(world, engine, clock_id, 1, "hang")
    moving = await _held_up(world, engine, clock_id, _month(2))
    await engine.delete_test_clock(world.account_id, clock_id, _asking())
    world.bank.released.set()
    with pytest.raises(ResourceMissing):
        await within(moving)
    assert world.time.now == START


async def test_a_clock_may_be_deleted_while_its_customers_are_busy(world: World, engine: Engine) -> None:
    """Commands lock books and then the clock, a deletion the other way round: one of them begins anew."""
    other = await world.process()
    clock_id = await _clock(world, engine)
    customers = await _subscribers(world, engine, clock_id, 4)
    asked = [
        world.ask(process, c.UpdateCustomer(id=customer, name=f"{number}"))
        for number in range(10)
        for process in (engine, other)
        for customer in customers
    ]
    deleting = engine.delete_test_clock(world.account_id, clock_id, _asking())
    answers = await outcomes(*asked[:40], deleting, *asked[40:])
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(answer, ResourceMissing) for answer in failed), failed
    assert await world.invoices(engine) == []


async def test_many_clocks_share_the_connections(world: World, engine: Engine) -> None:
    process = await world.process(connections=6)
    clocks = [await _clock(world, engine) for _ in range(24)]
    for clock_id in clocks:
        await _subscribers(world, engine, clock_id, 1)
    told = await outcomes(*(_advance(world, process, clock_id, _month(2)) for clock_id in clocks))
    assert [progress for progress in told if isinstance(progress, BaseException)] == []
    assert {progress[-1].clock.frozen_time for progress in told} == {_month(2)}
    await audit(world, engine)
