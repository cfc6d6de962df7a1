"""Promises 11, 12 and 16: what is due takes effect once, on any number of processes, and one bad book is alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain import renewal
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import PaymentAttempt
from billing_server.domain.subscription import Subscription
from billing_server.engine import timekeeper as timekeeper_module
from billing_server.engine.door import PARK_SECONDS
from billing_server.engine.engine import Engine
from billing_server.engine.events import event_rows
from billing_server.engine.lateness import BOUNDS_SECONDS
from billing_server.store.book import BOOK_ROWS
from tests.engine.ledger import audit
from tests.engine.times import DAY, HOUR, START
from tests.engine.world import END_SECONDS_MAX, World, eventually, of_the_engine, outcomes, within

MONTH = 31 * DAY


async def _subscribers(world: World, engine: Engine, number: int, token: str = "succeed") -> list[str]:
    """Customers with a subscription each, whose first invoice is paid."""
    customers = await outcomes(*(world.customer(engine) for _ in range(number)))
    await outcomes(*(world.subscribe(engine, customer) for customer in customers))
    if token != "succeed":
        failing = [c.AttachPaymentMethod(customer=customer, token=token, set_default=True) for customer in customers]
        await outcomes(*(world.ask(engine, command) for command in failing))
    return list(customers)


async def _together(world: World, processes: list[Engine]) -> None:
    """All processes tick at once."""
    await outcomes(*(world.work_off(process, rounds=2) for process in processes))


# --- once, on any number of processes


async def _renewed_once_each(world: World, engine: Engine, customers: list[str], times: int = 1) -> None:
    renewals = [item for item in await world.invoices(engine) if item.billing_reason == "subscription_cycle"]
    assert Counter(invoice.customer for invoice in renewals) == dict.fromkeys(customers, times)
    assert {invoice.status for invoice in renewals} == {"paid"}
    types = Counter((event.object_id, event.type) for event in await world.events(engine))
    assert {types[invoice.id, "invoice.paid"] for invoice in renewals} == {1}
    await audit(world, engine)


async def _renewed_by_four(world: World, engine: Engine) -> None:
    customers = await _subscribers(world, engine, 40)
    processes = [engine, *[await world.process() for _ in range(3)]]
    world.time.now = START + MONTH
    await _together(world, processes)
    world.time.pass_(HOUR)
    await _together(world, processes)
    await _renewed_once_each(world, engine, customers)


async def test_four_processes_renew_each_subscription_once(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeper_module, "BOOKS_MAX", 7)
    await _renewed_by_four(world, engine)


async def test_claiming_without_locks_would_be_noticed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the test above."""
    queries: Any = BOOK_ROWS.queries._queries
    monkeypatch.setitem(queries, "claim_due", queries["claim_due"].replace("FOR UPDATE SKIP LOCKED", ""))
    monkeypatch.setattr(timekeeper_module, "BOOKS_MAX", 7)
    with pytest.raises(AssertionError):
        await _renewed_by_four(world, engine)


async def test_four_processes_look_each_open_charge_up_once(world: World, engine: Engine) -> None:
    await outcomes(*[world.subscribe(engine, await world.customer(engine, "effect_then_timeout")) for _ in range(12)])
    world.time.pass_(300)
    await _together(world, [engine, *[await world.process() for _ in range(3)]])
    assert set(world.bank.questions.values()) == {1}
    assert len(world.bank.questions) == 12
    await audit(world, engine)


async def test_lateness_is_counted(world: World, engine: Engine) -> None:
    subscription = await world.subscribe(engine, await world.customer(engine))
    await world.pass_time(engine, subscription.current_period_end - 1 - world.time.now)
    before = list(engine.door.lateness.counts)
    world.time.pass_(8)
    await world.work_off(engine)
    grown = [after - known for after, known in zip(engine.door.lateness.counts, before, strict=True)]
    assert grown == [int(bound == 10) for bound in (*BOUNDS_SECONDS, None)]


async def test_a_book_with_nothing_left_to_do_is_claimed_once_and_not_parked(world: World, engine: Engine) -> None:
    """A command may leave a book due for what is not there any more."""
    subscription = await world.subscribe(engine, await world.customer(engine))
    await world.ask(engine, c.CancelSubscription(id=subscription.id))
    world.time.now = subscription.current_period_end + HOUR
    await world.work_off(engine, rounds=2)
    assert sum(engine.door.lateness.counts) == 1
    assert engine.door.parked == 0


async def test_commands_and_time_meet_in_one_book(world: World, engine: Engine) -> None:
    """Promise 10: a renewal and commands on the same customers at the same moment lose nothing."""
    customers = await _subscribers(world, engine, 10)
    other = await world.process()
    world.time.now = START + MONTH + HOUR
    commands = [
        world.ask(process, c.AdjustBalance(customer=customer, amount=amount, currency="usd"))
        for customer in customers
        for process, amount in ((engine, 5), (other, -5))
        for _ in range(3)
    ]
    answers = await outcomes(*commands, world.work_off(engine, rounds=2), world.work_off(other, rounds=2))
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    # The last commands may have begun charges in either process, after it had worked off what it found.
    await outcomes(world.work_off(engine, rounds=2), world.work_off(other, rounds=2))
    await audit(world, engine)
    for customer in customers:
        transactions = await world.balance_transactions(engine, customer)
        asked = [item for item in transactions if item.type == "adjustment"]
        assert len(asked) == 6
        ending = 0
        for transaction in sorted(transactions, key=lambda item: item.id):
            ending += transaction.amount
            assert transaction.ending_balance == ending


# --- a book that cannot be advanced


def _break_renewals(monkeypatch: pytest.MonkeyPatch, customer: str, error: Exception) -> Any:
    """A bug that shows in one customer's book only; returns what mends it."""
    wake = renewal.wake

    def breaking(turn: Any, subscription: Subscription) -> None:
        if subscription.customer == customer:
            raise error
        wake(turn, subscription)

    monkeypatch.setattr(renewal, "wake", breaking)
    return lambda: monkeypatch.setattr(renewal, "wake", wake)


async def _parked_alone(world: World, engine: Engine, customers: list[str], bad: str) -> None:
    world.time.now = START + MONTH
    await world.work_off(engine)
    renewed = {item.customer for item in await world.invoices(engine) if item.billing_reason == "subscription_cycle"}
    assert renewed == set(customers) - {bad}
    assert engine.door.parked == 1
    assert not engine.timekeeper.failing
    parked = engine.door.parked
    await world.work_off(engine)
    assert engine.door.parked == parked, "it is left alone for a while"


async def _comes_back(world: World, engine: Engine, customers: list[str]) -> None:
    await world.pass_time(engine, PARK_SECONDS)
    await world.pass_time(engine, HOUR)
    await _renewed_once_each(world, engine, customers)
    assert {item.created for item in await world.invoices(engine)} == {START, START + MONTH}, "at its own time"


@pytest.mark.parametrize("error", [AttributeError("a planted bug"), RecursionError(), AssertionError()])
async def test_a_book_that_breaks_is_parked_alone_and_comes_back(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    customers = await _subscribers(world, engine, 9)
    mend = _break_renewals(monkeypatch, customers[4], error)
    await _parked_alone(world, engine, customers, customers[4])
    mend()
    await _comes_back(world, engine, customers)


async def test_a_book_that_cannot_be_loaded_is_parked_alone_and_comes_back(world: World, engine: Engine) -> None:
    customers = await _subscribers(world, engine, 9)
    bad = customers[4]
    (row,) = await world.sql("SELECT items FROM subscriptions WHERE customer = $1", bad)
    await world.sql("""UPDATE subscriptions SET items = '[{"a": "bug"}]' WHERE customer = $1""", bad)
    await _parked_alone(world, engine, customers, bad)
    await world.sql("UPDATE subscriptions SET items = $2::text::jsonb WHERE customer = $1", bad, row["items"])
    await _comes_back(world, engine, customers)


async def test_a_book_that_cannot_be_saved_is_parked_alone_and_comes_back(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decided for one of nine books cannot be written."""
    customers = await _subscribers(world, engine, 9)
    bad = customers[4]

    def breaking(account_id: str, events: Any) -> Any:
        if any(event.customer == bad for event in events):
            raise msgspec.ValidationError("a planted bug")
        return event_rows(account_id, events)

    monkeypatch.setattr("billing_server.engine.session.event_rows", breaking)
    await _parked_alone(world, engine, customers, bad)
    monkeypatch.setattr("billing_server.engine.session.event_rows", event_rows)
    await _comes_back(world, engine, customers)


async def test_a_book_that_breaks_commands_breaks_only_those(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parked book still takes commands that do not touch what is wrong with it."""
    customers = await _subscribers(world, engine, 2)
    _break_renewals(monkeypatch, customers[0], AttributeError())
    await _parked_alone(world, engine, customers, customers[0])
    await world.ask(engine, c.UpdateCustomer(id=customers[0], name="Grace"))
    await world.work_off(engine)
    assert engine.door.parked <= 2


# --- an outage


async def _lived(world: World, step: int, days: int) -> list[tuple[Any, ...]]:
    """What became of some daily subscriptions, good and bad ones, and of their invoices."""
    engine = await world.process()
    await world.open_account(engine, interval="day")
    policy = RetryPolicy(kind="custom", retry_days=(1, 1, 2))
    await world.ask(engine, c.UpdateSettings(retry_policy=policy, subscription_final_action="unpaid"))
    tokens = {"succeed": 3, "decline": 2, "decline,succeed": 2, "decline,decline,succeed": 1, "decline_for_good": 1}
    made = {token: await _subscribers(world, engine, number, token) for token, number in tokens.items()}
    world.time.pass_(3 * HOUR)
    await world.pass_time(engine, days * DAY, step=step)
    await world.work_off(engine, rounds=3)
    await audit(world, engine)
    lived: list[tuple[Any, ...]] = []
    for token, customers in made.items():
        for customer in customers:
            invoices = await world.invoices(engine, customer=customer)
            attempts = await world.attempts(engine, customer=customer)
            lived.append((token, [_seen(item) for item in invoices], [_tried(item) for item in attempts]))
            (subscription,) = await world.subscriptions(engine, customer=customer)
            lived.append((subscription.status, subscription.current_period_start, subscription.current_period_end))
    return lived


def _seen(invoice: Invoice) -> tuple[Any, ...]:
    return (
        invoice.created,
        invoice.finalized_at,
        invoice.status,
        invoice.period_start,
        invoice.period_end,
        invoice.amount_paid,
        invoice.attempt_count,
        invoice.next_payment_attempt,
        invoice.auto_advance,
    )


def _tried(attempt: PaymentAttempt) -> tuple[Any, ...]:
    return (attempt.number, attempt.due_at, attempt.kind, attempt.state, attempt.amount)


@pytest.mark.parametrize("days", [2, 9])
async def test_after_an_outage_all_is_as_if_nothing_had_happened(new_world: Callable[[], World], days: int) -> None:
    continuous = await _lived(new_world(), HOUR if days == 2 else 4 * HOUR, days)
    after_an_outage = await _lived(new_world(), days * DAY, days)
    assert after_an_outage == continuous


async def test_billing_at_the_moment_of_catching_up_would_be_noticed(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the test above: renewals at the time when they are found, not at their own."""
    wake, began = renewal.wake, START + 3 * HOUR

    def late(turn: Any, subscription: Subscription) -> None:
        if turn.now > began:
            turn.now = max(turn.now, turn.wall_now)
        wake(turn, subscription)

    monkeypatch.setattr(renewal, "wake", late)
    with pytest.raises(AssertionError):
        assert await _lived(new_world(), 2 * DAY, 2) == await _lived(new_world(), HOUR, 2)


async def test_a_command_does_not_overtake_what_was_due_before_it(world: World, engine: Engine) -> None:
    """After an outage somebody cancels before the timekeeper has come to the renewal of nine hours ago."""
    customer = await world.customer(engine)
    subscription = await world.subscribe(engine, customer)
    world.time.now = START + MONTH + 9 * HOUR
    await world.do(engine, c.CancelSubscription(id=subscription.id), Subscription)
    first, second = sorted(await world.invoices(engine), key=lambda invoice: invoice.created)
    assert (second.billing_reason, second.created) == ("subscription_cycle", START + MONTH)
    # Finalized at its hour, charged then; whoever was faster, the subscription is canceled after it.
    assert second.finalized_at == START + MONTH + HOUR
    told = [(event.type, event.created) for event in await world.events(engine)]
    assert told.index(("invoice.finalized", START + MONTH + HOUR)) < told.index(
        ("customer.subscription.deleted", START + MONTH + 9 * HOUR)
    )
    await world.work_off(engine, rounds=2)
    assert [invoice.status for invoice in await world.invoices(engine, customer=customer)] == ["paid", "paid"]
    assert first.status == "paid"
    await audit(world, engine)


async def test_catching_up_does_not_wait_for_the_next_tick(world: World, engine: Engine) -> None:
    """Each charge stops the time of its book; once it is settled, the book goes on by itself."""
    await world.open_account(engine, interval="day")
    (customer,) = await _subscribers(world, engine, 1)
    world.time.pass_(30 * DAY + 2 * HOUR)
    await world.work_off(engine, rounds=1)
    assert len(await world.invoices(engine, customer=customer, status="paid")) == 31


# --- the ticker


@pytest.fixture
def fast_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds pass in no time."""
    monkeypatch.setattr(timekeeper_module, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(timekeeper_module, "_WATCH_SECONDS", 0.05)


async def test_ticks_do_what_is_due_and_nothing_is_left_after_the_end(world: World, fast_ticks: None) -> None:
    before = asyncio.all_tasks()
    engine = await world.process()
    await world.open_account(engine)
    customers = await _subscribers(world, engine, 3)
    await engine.start()
    world.time.now = START + MONTH + HOUR

    async def renewed() -> bool:
        return len(await world.invoices(engine, status="paid")) == 6

    await eventually(renewed)
    await _renewed_once_each(world, engine, customers)
    await world.end(engine)

    def nothing_runs_on() -> bool:
        left = {task for task in asyncio.all_tasks() - before if of_the_engine(task)}
        return {task.get_name() for task in left} <= {"store-statistics"}

    # The connections are shared, and a view of the test's own may just be on its way back to them.
    await eventually(nothing_runs_on)


async def test_a_failing_ticker_is_loud_and_recovers(
    world: World, engine: Engine, fast_ticks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = world.store_of(engine)
    due_accounts = store.due_accounts

    async def broken(now: int | None = None) -> list[str]:
        raise RuntimeError("a planted bug")

    async def failing() -> bool:
        return engine.timekeeper.failing

    async def fine() -> bool:
        return not engine.timekeeper.failing

    await engine.start()
    await eventually(fine)
    monkeypatch.setattr(store, "due_accounts", broken)
    await eventually(failing)
    assert engine.timekeeper.failures >= 1
    monkeypatch.setattr(store, "due_accounts", due_accounts)
    await eventually(fine)


async def test_one_account_that_fails_keeps_health_red_until_it_is_billed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sweeps that go well in between must not paint it green."""
    await _subscribers(world, engine, 2)
    good = world.account_id
    await world.open_account(engine)
    await _subscribers(world, engine, 2)
    wake = engine.door.wake

    async def breaking(account_id: str, **wanted: Any) -> Any:
        if account_id == good:
            return await wake(account_id, **wanted)
        raise RuntimeError("a planted bug")

    monkeypatch.setattr(engine.door, "wake", breaking)
    world.time.now = START + MONTH
    for _ in range(3):
        await engine.timekeeper._tick("sweep", engine.timekeeper.sweep)
        await within(engine.timekeeper.idle())
        assert engine.timekeeper.failing
    other = await world.process()
    await world.work_off(other)
    await engine.timekeeper.sweep()
    assert not engine.timekeeper.failing, "another process has done it"


async def test_a_ticker_that_stays_away_is_noticed(
    world: World, engine: Engine, fast_ticks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeper_module, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(timekeeper_module, "_WATCH_SECONDS", 60.0)
    await engine.start()
    engine.timekeeper._scheduler.pause()

    async def failing() -> bool:
        return engine.timekeeper.failing

    await eventually(failing)
    engine.timekeeper._scheduler.resume()


async def test_a_clock_that_is_set_back_does_not_stop_the_ticks(world: World, engine: Engine, fast_ticks: None) -> None:
    """Promise 15: the scheduler goes by the machine's clock; to it, the next tick is an hour away."""
    await engine.start()
    timekeeper = engine.timekeeper

    async def ticked() -> bool:
        return timekeeper.last_sweep_at > 0

    await eventually(ticked)
    timekeeper._scheduler.modify_job("sweep", next_run_time=datetime.now(UTC) + timedelta(hours=1))
    last = timekeeper.last_sweep_at

    async def ticked_again() -> bool:
        return timekeeper.last_sweep_at > last + 0.2

    await eventually(ticked_again)


async def test_what_is_due_soon_is_done_on_time(world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notice of the renewal is due, so the account is looked at, and its next tick is planned: in a second."""
    monkeypatch.setattr(timekeeper_module, "SWEEP_SECONDS", 3_600)
    await _subscribers(world, engine, 1)
    world.time.now = START + MONTH - 1
    await engine.start()

    async def planned() -> bool:
        return any(job.id.startswith("due ") for job in engine.timekeeper._scheduler.get_jobs())

    await eventually(planned)
    world.time.now = START + MONTH

    async def renewed() -> bool:
        return len(await world.invoices(engine)) == 2

    await eventually(renewed)


async def test_the_end_waits_for_what_is_under_way_but_not_for_ever(world: World, engine: Engine) -> None:
    await _subscribers(world, engine, 2, "hang")
    world.time.now = START + MONTH
    await world.work_off(engine)
    world.time.pass_(HOUR)
    await engine.timekeeper.sweep()
    await world.asked_the_gateway(4)
    await within(world.end(engine, drain_seconds=0.2), END_SECONDS_MAX)
    world.bank.released.set()
    second = await world.process()
    await world.pass_time(second, 61)
    await audit(world, second)


async def test_old_keys_are_forgotten(world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await world.ask(engine, c.CreateCustomer(name="Ada"), "key_1")
    await engine.timekeeper.keep_house()
    assert (await world.ask(engine, c.CreateCustomer(name="Ada"), "key_1")).replay is not None
    monkeypatch.setattr("billing_server.engine.timekeeper.time.time", lambda: world.time.now + 49 * HOUR)
    await engine.timekeeper.keep_house()
    again = await world.ask(engine, c.CreateCustomer(name="Ada"), "key_1")
    assert again.replay is None
    assert getattr(again.result, "id", "") != getattr(first.result, "id", "")
