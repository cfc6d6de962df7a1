"""Outcomes that a test clock did not wait for: what they lead to is not left behind by the time that has passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from billing_server.domain import commands as c
from billing_server.domain.errors import Conflict
from billing_server.domain.subscription import Subscription
from billing_server.domain.test_clock import TestClock
from billing_server.engine.door import Door
from billing_server.engine.engine import Engine
from tests.engine.ledger import audit
from tests.engine.times import DAY, HOUR, START, Gate
from tests.engine.world import World, caller, collected, within

MONTH = 31 * DAY


async def _clock(world: World, engine: Engine) -> str:
    asking = caller(c.CreateProduct(name="clock"))
    made = await engine.create_test_clock(world.account_id, "clock", START, asking)
    assert isinstance(made.result, TestClock)
    return made.result.id


async def _advance(world: World, engine: Engine, clock_id: str, target: int) -> None:
    asking = caller(c.CreateProduct(name="clock"))
    await within(collected(engine.clocks.advance(world.account_id, clock_id, target, asking)))


async def _proposed(world: World, engine: Engine, clock_id: str, **params: Any) -> str:
    """A customer whose subscription is made only if it is paid, which nobody knows yet."""
    customer = await world.customer(engine, "effect_then_timeout", test_clock=clock_id)
    with pytest.raises(Conflict) as told:
        await world.subscribe(engine, customer, payment_behavior="error_if_incomplete", **params)
    assert told.value.reason == "payment_outcome_unknown"
    assert await world.subscriptions(engine) == []
    await world.ask(engine, c.AttachPaymentMethod(customer=customer, token="succeed", set_default=True))
    return customer


async def _arrived(world: World, engine: Engine, clock_id: str) -> TestClock:
    """The clock, when nothing is left to do for it."""
    for _ in range(10):
        await world.work_off(engine)
        clock = await world.get(engine, TestClock, clock_id)
        if clock.status == "ready":
            return clock
        await _advance(world, engine, clock_id, clock.target_frozen_time or clock.frozen_time)
    raise AssertionError("the clock is on its way for ever")


async def test_what_a_late_success_makes_lives_through_the_time_that_has_passed(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    customer = await _proposed(world, engine, clock_id)
    moment = START + 2 * MONTH + 2 * HOUR
    await _advance(world, engine, clock_id, moment)

    await world.check_now(engine)
    clock = await _arrived(world, engine, clock_id)

    assert (clock.frozen_time, clock.target_frozen_time) == (moment, None)
    (subscription,) = await world.subscriptions(engine)
    assert (subscription.status, subscription.current_period_start > START + MONTH) == ("active", True)
    assert subscription.current_period_end > moment, "time has left it behind"
    paid = [(invoice.created, invoice.status) for invoice in await world.invoices(engine, customer=customer)]
    assert [status for _, status in paid] == ["paid"] * 3
    assert paid[0][0] == START
    await audit(world, engine)


async def test_a_crash_after_a_late_success_leaves_it_to_the_next_process(world: World, engine: Engine) -> None:
    """The move belongs to the database: whoever has settled the outcome need not live to see what follows."""
    clock_id = await _clock(world, engine)
    await _proposed(world, engine, clock_id)
    moment = START + MONTH + 2 * HOUR
    await _advance(world, engine, clock_id, moment)
    await world.check_now(engine)
    await world.end(engine)

    second = await world.process()
    await _arrived(world, second, clock_id)
    (subscription,) = await world.subscriptions(second)
    assert subscription.current_period_end > moment, "time has left it behind"
    await audit(world, second)


def _nothing() -> None:
    """No bug is planted."""


async def _found_out_while_it_moves(world: World, engine: Engine, plant: Callable[[], None] = _nothing) -> None:
    """An outcome is decided before the clock sets out, and committed later."""
    clock_id = await _clock(world, engine)
    await _proposed(world, engine, clock_id)
    plant()
    (attempt,) = await world.attempts(engine)
    gate = Gate()
    slow = await world.process(stops=gate)
    found_out = c.SettleAttempt(
        customer=attempt.customer,
        invoice=attempt.invoice,
        subscription=attempt.subscription,
        attempt=attempt.id,
        outcome=c.ChargeOutcome(state="succeeded", gateway_reference="ch_1"),
    )
    settling = asyncio.create_task(world.submit(slow, found_out))
    await within(gate.reached.wait())
    moment = START + 2 * MONTH + 2 * HOUR
    moving = asyncio.create_task(_advance(world, engine, clock_id, moment))
    while not (moving.done() or await world.somebody_waits()):
        await asyncio.wait({moving}, timeout=0.02)
    gate.open.set()
    await within(settling)
    await within(moving)

    (subscription,) = await world.subscriptions(engine)
    assert subscription.current_period_end > moment, "time has left it behind"
    assert len(await world.invoices(engine)) == 3


async def test_an_outcome_that_is_written_down_while_the_clock_moves_is_not_left_behind(
    world: World, engine: Engine
) -> None:
    await _found_out_while_it_moves(world, engine)


async def test_what_is_left_behind_would_be_noticed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the test above: outcomes do not lock the clock that they go by."""

    async def unlocked(*_: object) -> dict[str, TestClock]:
        return {}

    with pytest.raises(AssertionError, match="time has left it behind"):
        await _found_out_while_it_moves(world, engine, lambda: monkeypatch.setattr(Door, "_clocks", unlocked))


async def test_a_late_outcome_that_leaves_nothing_due_does_not_move_the_clock(world: World, engine: Engine) -> None:
    clock_id = await _clock(world, engine)
    await _proposed(world, engine, clock_id)
    await _advance(world, engine, clock_id, START + DAY)
    before = await world.get(engine, TestClock, clock_id)

    await world.check_now(engine)

    assert await world.get(engine, TestClock, clock_id) == before
    (subscription,) = await world.subscriptions(engine)
    assert (subscription.status, subscription.current_period_start) == ("active", START)
    assert await world.get(engine, Subscription, subscription.id) == subscription
