"""Group commit: concurrent commands share transactions, and nobody suffers from a neighbour."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain import decide as decide_module
from billing_server.domain import signup
from billing_server.domain.customer import BalanceTransaction, Customer
from billing_server.domain.errors import AlreadyExists, LimitReached, ResourceMissing
from billing_server.engine import group_commit
from billing_server.engine.door import InternalError
from billing_server.engine.engine import Engine
from billing_server.engine.group_commit import GroupCommit
from billing_server.engine.work import Answer, Answered, OnLocked, Work
from billing_server.store.errors import StoreUnavailable
from tests.engine.ledger import audit_events
from tests.engine.world import END_SECONDS_MAX, SECONDS_MAX, World, caller, eventually, outcomes, within


def _plant(monkeypatch: pytest.MonkeyPatch, command: type[c.Command], handler: Callable[..., Any]) -> None:
    """Replace what carries out a command."""
    handlers = {**decide_module._HANDLERS, command: handler}
    monkeypatch.setattr(decide_module, "_HANDLERS", handlers)


def _breaking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the handler of UpdateCustomer, for customers who are to be called `broken`."""
    handler = decide_module._HANDLERS[c.UpdateCustomer]

    def broken(turn: Any, command: Any) -> Any:
        if command.name == "broken":
            raise AttributeError("a planted bug")
        return handler(turn, command)

    _plant(monkeypatch, c.UpdateCustomer, broken)


async def test_concurrent_commands_share_transactions(world: World, engine: Engine) -> None:
    store = world.store_of(engine)
    before = store.transactions
    answers = await outcomes(*(world.ask(engine, c.CreateCustomer(name=f"{i}")) for i in range(200)))
    assert {type(answer) for answer in answers} == {Answer}
    assert store.transactions - before <= 4
    assert len({answer.result.id for answer in answers}) == 200


async def test_commands_one_after_the_other_have_transactions_of_their_own(world: World, engine: Engine) -> None:
    """The calibration of the count above."""
    store = world.store_of(engine)
    before = store.transactions
    for i in range(5):
        await world.ask(engine, c.CreateCustomer(name=f"{i}"))
    assert store.transactions - before == 5


async def test_refused_and_broken_commands_harm_no_neighbour(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _breaking(monkeypatch)
    customers = [await world.customer(engine, None) for _ in range(6)]
    commands: list[c.Command] = [c.UpdateCustomer(id=customers[i % 6], name=f"name {i}") for i in range(60)]
    commands[17] = c.UpdateCustomer(id=customers[2], name="broken")
    commands[18] = c.UpdateCustomer(id="cus_nobody", name="missing")
    commands[41] = c.UpdateCustomer(id=customers[5], name="broken")
    answers = await outcomes(*(world.ask(engine, command) for command in commands))
    kinds = {i: type(answer) for i, answer in enumerate(answers) if not isinstance(answer, Answer)}
    assert kinds == {17: InternalError, 18: ResourceMissing, 41: InternalError}
    names = [(await world.get(engine, Customer, customer)).name for customer in customers]
    assert names == [f"name {54 + i}" for i in range(6)]
    await audit_events(world, engine)


async def test_a_refusal_that_only_the_database_can_give_harms_no_neighbour(world: World, engine: Engine) -> None:
    await world.ask(engine, c.CreateCustomer(name="first", invoice_prefix="TAKEN"))
    commands = [c.CreateCustomer(name=f"{i}", invoice_prefix="TAKEN" if i == 7 else None) for i in range(20)]
    answers = await outcomes(*(world.ask(engine, command) for command in commands))
    refused = {i: type(answer) for i, answer in enumerate(answers) if not isinstance(answer, Answer)}
    assert refused == {7: AlreadyExists}


async def test_a_command_that_breaks_after_it_was_decided_leaves_nothing_behind(world: World, engine: Engine) -> None:
    """Its answer cannot be encoded: what was decided must not be kept either."""
    customer = await world.customer(engine, None)

    def breaking(_: msgspec.Struct, _now: int) -> bytes:
        raise AttributeError("a planted bug")

    command = c.UpdateCustomer(id=customer, name="must not stay")
    asked = msgspec.structs.replace(caller(command, "key"), encode=breaking)
    events = len(await world.events(engine))
    with pytest.raises(InternalError):
        await engine.execute(world.account_id, command, asked)
    assert (await world.get(engine, Customer, customer)).name == "Ada"
    assert len(await world.events(engine)) == events


async def test_callers_who_go_away_hang_nobody_and_lose_nothing(world: World, engine: Engine) -> None:
    """Promise 8: half of the callers give up at moments of all kinds; all effects are there."""
    dice = random.Random(1)
    customer = await world.customer(engine, None)
    tasks = []
    for i in range(120):
        command = c.AdjustBalance(customer=customer, amount=-1, currency="usd", description=f"{i}")
        tasks.append(asyncio.create_task(world.ask(engine, command)))
        await asyncio.sleep(dice.choice((0, 0, 0, 0.0005, 0.002)))
        if i % 2:
            tasks[dice.randrange(len(tasks))].cancel()
    answers = await outcomes(*tasks)
    assert any(isinstance(answer, asyncio.CancelledError) for answer in answers)
    assert all(isinstance(answer, Answer | asyncio.CancelledError) for answer in answers)
    await world.end_detached(engine)
    # A task that is canceled before it has begun has asked for nothing.
    transactions = await world.balance_transactions(engine, customer)
    told = {answer.result.id for answer in answers if isinstance(getattr(answer, "result", None), BalanceTransaction)}
    assert told <= {transaction.id for transaction in transactions}
    assert (await world.get(engine, Customer, customer)).balance == -len(transactions)
    assert len(transactions) > 60


async def test_a_caller_who_goes_away_in_the_middle_still_has_the_effect(world: World, engine: Engine) -> None:
    customer = await world.customer(engine, "slow")
    task = asyncio.create_task(world.subscribe(engine, customer))
    await world.asked_the_gateway()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.end_detached(engine)
    (subscription,) = await world.subscriptions(engine)
    assert subscription.status == "active"


async def test_the_queue_is_bounded_for_callers_but_not_for_settlements(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "QUEUE_MAX", 10)
    customer = await world.customer(engine, None)
    payer = await world.customer(engine, "hang")
    paying = asyncio.create_task(world.subscribe(engine, payer))
    await world.asked_the_gateway()
    asked = [world.ask(engine, c.UpdateCustomer(id=customer, name=f"{i}")) for i in range(30)]
    lock = await world.lock_book(customer)
    try:
        waiting = asyncio.gather(*asked, return_exceptions=True)
        await eventually(lambda: engine.group.waiting == 10)
        world.bank.released.set()
        assert (await within(paying)).status == "active"
    finally:
        await lock.close()
    answers = await within(waiting)
    refused = [answer for answer in answers if isinstance(answer, LimitReached)]
    assert len(refused) == 20
    assert all(answer.reason == "rate_limit" for answer in refused)


async def test_a_batch_that_waits_for_a_lock_does_not_hold_up_its_account(world: World, engine: Engine) -> None:
    """Two batches of an account are under way at once; what joins the one that waits, waits with it."""
    locked, free = await world.customer(engine, None), await world.customer(engine, None)
    lock = await world.lock_book(locked)
    try:
        waiting = asyncio.create_task(world.ask(engine, c.UpdateCustomer(id=locked, name="late")))
        await eventually(world.somebody_waits)
        for name in ("one", "two"):
            await within(world.ask(engine, c.UpdateCustomer(id=free, name=name)))
        assert not waiting.done()
    finally:
        await lock.close()
    assert isinstance(await within(waiting), Answer)
    assert (await world.get(engine, Customer, free)).name == "two"


async def test_a_limit_holds_for_commands_that_share_a_transaction(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signup, "SUBSCRIPTIONS_MAX", 3)
    customer = await world.customer(engine)
    answers = await outcomes(*(world.subscribe(engine, customer) for _ in range(10)))
    refused = [answer for answer in answers if isinstance(answer, LimitReached)]
    assert len(refused) == 7
    assert len(await world.subscriptions(engine)) == 3


async def test_callers_are_told_when_the_end_breaks_their_work_off(world: World, engine: Engine) -> None:
    customer = await world.customer(engine, "hang")
    subscribing = asyncio.create_task(world.subscribe(engine, customer))
    await world.asked_the_gateway()
    await within(world.end(engine, drain_seconds=0.05), END_SECONDS_MAX)
    with pytest.raises(StoreUnavailable):
        await within(subscribing)
    with pytest.raises(StoreUnavailable):
        await world.ask(engine, c.CreateCustomer(name="too late"))


async def test_work_that_callers_leave_behind_is_bounded(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing_server.engine.engine.UNDER_WAY_MAX", 3)
    for number in range(3):
        customer = await world.customer(engine, "hang")
        task = asyncio.create_task(world.subscribe(engine, customer))
        await world.asked_the_gateway(number + 1)
        task.cancel()
        await outcomes(task)
    with pytest.raises(LimitReached):
        await world.ask(engine, c.CreateCustomer(name="one too many"))
    world.bank.released.set()
    await world.end_detached(engine)
    await world.ask(engine, c.CreateCustomer(name="again"))


# --- the gatherer by itself


async def _answer_all(_account: str, batch: Sequence[Work], _on_locked: OnLocked) -> None:
    await asyncio.sleep(0.0002)
    for work in batch:
        work.give(Answered())


async def _nothing_is_left_waiting(group: GroupCommit, seconds_max: float = SECONDS_MAX) -> None:
    """Submit at moments of all kinds, so that some fall exactly where the runner ends."""
    dice = random.Random(7)

    async def one(name: str) -> None:
        promise: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        await group.submit(name, Work(c.Command(), caller(c.Command()).cause, promise))

    for _ in range(300):
        await within(one("a"), seconds_max)
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        await within(asyncio.gather(one("a"), one("b")), seconds_max)


async def test_no_wake_up_is_lost() -> None:
    group = GroupCommit(_answer_all)
    await _nothing_is_left_waiting(group)
    assert group.waiting == 0


class _Held:
    """Stands for the door: tells how large the batches are that have begun, and ends none before it may."""

    def __init__(self, *, locked: bool) -> None:
        self._locked = locked
        self.released = asyncio.Event()
        self.begun: asyncio.Queue[int] = asyncio.Queue()

    async def execute(self, _account: str, batch: Sequence[Work], on_locked: OnLocked) -> None:
        if self._locked:
            on_locked()
        self.begun.put_nowait(len(batch))
        await self.released.wait()
        for work in batch:
            work.give(Answered())


def _submitted(group: GroupCommit, count: int) -> asyncio.Task[list[Answered | BaseException]]:
    loop = asyncio.get_running_loop()
    works = [Work(c.Command(), caller(c.Command()).cause, loop.create_future()) for _ in range(count)]
    return asyncio.create_task(group.submit_all("a", works))


async def test_what_comes_while_a_batch_works_gathers_until_it_is_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few wait for the batch before them; many get a batch beside it, and what comes after these gathers again."""
    monkeypatch.setattr(group_commit, "SECOND_BATCH_MIN", 10)
    door = _Held(locked=True)
    group = GroupCommit(door.execute)
    waiting = [_submitted(group, 1)]
    assert await within(door.begun.get()) == 1
    waiting.append(_submitted(group, 9))
    await asyncio.sleep(group_commit.STUCK_SECONDS * 2)
    assert door.begun.empty()
    waiting.append(_submitted(group, 1))
    assert await within(door.begun.get()) == 10
    waiting.append(_submitted(group, 15))
    await asyncio.sleep(group_commit.STUCK_SECONDS * 2)
    assert door.begun.empty()
    door.released.set()
    await within(asyncio.gather(*waiting))
    assert [door.begun.get_nowait() for _ in range(door.begun.qsize())] == [15]


async def test_nobody_waits_for_a_batch_that_waits_for_its_locks() -> None:
    door = _Held(locked=False)
    group = GroupCommit(door.execute)
    waiting = [_submitted(group, 1)]
    assert await within(door.begun.get()) == 1
    waiting.append(_submitted(group, 2))
    assert await within(door.begun.get()) == 2
    door.released.set()
    await within(asyncio.gather(*waiting))


class _LosesWakeUps(GroupCommit):
    """A planted bug: a moment passes between the last look into the queue and the end of the runner."""

    def _leave(self, account_id: str, line: Any) -> None:
        asyncio.get_running_loop().call_later(0.01, self._lines.pop, account_id, None)


async def test_a_lost_wake_up_would_be_noticed() -> None:
    with pytest.raises(TimeoutError):
        await _nothing_is_left_waiting(_LosesWakeUps(_answer_all), 0.5)


async def test_a_batch_that_breaks_the_door_leaves_nobody_waiting() -> None:
    async def breaking(_account: str, batch: Sequence[Work], _on_locked: OnLocked) -> None:
        raise RuntimeError("a planted bug")

    group = GroupCommit(breaking)
    promises: list[asyncio.Future[Answered]] = [asyncio.get_running_loop().create_future() for _ in range(3)]
    works = [Work(c.Command(), caller(c.Command()).cause, promise) for promise in promises]
    answers = await outcomes(*(group.submit("a", work) for work in works))
    assert [type(answer) for answer in answers] == [RuntimeError] * 3
    assert group.waiting == 0


async def test_balances_add_up_when_two_processes_adjust_one_customer(world: World, engine: Engine) -> None:
    """Promise 10: commands on one customer serialize, whoever carries them out."""
    other = await world.process()
    customer = await world.customer(engine, None)
    command = c.AdjustBalance(customer=customer, amount=-1, currency="usd")
    answers = await outcomes(*(world.ask(process, command) for _ in range(50) for process in (engine, other)))
    results = [answer.result for answer in answers]
    assert all(isinstance(result, BalanceTransaction) for result in results)
    assert sorted(result.ending_balance for result in results) == list(range(-100, 0))
