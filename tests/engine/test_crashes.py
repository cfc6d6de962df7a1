"""Crash enumeration: a process is killed at each of its steps, the next one goes on, and the money is audited.

Steps are: before a transaction, before and after its COMMIT, before the gateway is asked, after it has done what it
was asked for, before it is asked what it did. Promises 1, 2, 4 and 9.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

from billing_server.domain import commands as c
from billing_server.domain.errors import Conflict, PaymentFailed
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription
from billing_server.engine.engine import Engine
from billing_server.gateways.port import PaymentGateway
from tests.engine.bank import FreshKeys
from tests.engine.ledger import audit
from tests.engine.times import DAY, HOUR, START, Stops
from tests.engine.world import World, caller, collected, within

KEY = "key_1"
LEASE_SECONDS = 61


class Scenario(NamedTuple):
    """What is prepared in peace, what is done by the process that is killed, and what must have become of it.

    `act` may be done again and again, by any process, until it ends well.
    """

    prepare: Callable[[World, Engine], Awaitable[Any]]
    act: Callable[[World, Engine, Any], Awaitable[Any]]
    expect: Callable[[World, Engine, Any], Awaitable[None]]


# --- the scenarios


async def _payer(world: World, engine: Engine) -> str:
    return await world.customer(engine)


async def _subscribe(world: World, engine: Engine, customer: str) -> object:
    items = (c.ItemParams(price=world.price),)
    return await world.ask(engine, c.CreateSubscription(customer=customer, items=items), KEY)


async def _subscribe_or_nothing(world: World, engine: Engine, customer: str) -> object:
    items = (c.ItemParams(price=world.price),)
    command = c.CreateSubscription(customer=customer, items=items, payment_behavior="error_if_incomplete")
    return await world.ask(engine, command, KEY)


async def _one_paid_subscription(world: World, engine: Engine, _customer: str) -> None:
    (subscription,) = await world.subscriptions(engine)
    assert subscription.status == "active"
    (invoice,) = await world.invoices(engine)
    assert invoice.status == "paid"
    assert world.bank.effects == 1


async def _debtor(world: World, engine: Engine) -> str:
    return (await world.owe(engine, await world.customer(engine, "decline"))).id


async def _pay(world: World, engine: Engine, invoice: str) -> object:
    try:
        return await world.ask(engine, c.PayInvoice(id=invoice), KEY)
    except PaymentFailed as failed:
        return failed


async def _declined_once(world: World, engine: Engine, invoice: str) -> None:
    assert (await world.get(engine, Invoice, invoice)).status == "open"
    assert len(await world.attempts(engine)) == 1


async def _before_a_renewal(world: World, engine: Engine) -> str:
    customer = await world.customer(engine)
    await world.subscribe(engine, customer)
    world.time.pass_(31 * DAY)
    return customer


async def _let_time_work(world: World, engine: Engine, _state: object) -> None:
    world.time.pass_(HOUR)
    await world.work_off(engine, rounds=2)


async def _renewed_once(world: World, engine: Engine, _customer: str) -> None:
    invoices = await world.invoices(engine)
    assert [(invoice.billing_reason, invoice.status) for invoice in invoices] == [
        ("subscription_create", "paid"),
        ("subscription_cycle", "paid"),
    ]
    assert world.bank.effects == 2


async def _before_finalizing(world: World, engine: Engine) -> str:
    """The renewal has made its draft; its hour is over in a moment."""
    customer = await _before_a_renewal(world, engine)
    await world.work_off(engine)
    drafts = [invoice.status for invoice in await world.invoices(engine)]
    assert drafts == ["paid", "draft"]
    return customer


async def _before_an_expiry(world: World, engine: Engine) -> str:
    """A first invoice that was declined, an hour before it expires."""
    subscription = await world.subscribe(engine, await world.customer(engine, "decline"))
    assert subscription.status == "incomplete"
    world.time.pass_(22 * HOUR)
    return subscription.id


async def _expired_once(world: World, engine: Engine, subscription: str) -> None:
    assert (await world.get(engine, Subscription, subscription)).status == "incomplete_expired"
    assert [invoice.status for invoice in await world.invoices(engine)] == ["void"]
    types = Counter(event.type for event in await world.events(engine))
    assert types["invoice.voided"] == types["payment_intent.canceled"] == 1


async def _paused(world: World, engine: Engine) -> str:
    """A subscription that paused because its trial ended without a payment method; then one was attached."""
    customer = await world.customer(engine, None)
    subscription = await world.subscribe(engine, customer, trial_period_days=5, missing_payment_method="pause")
    await world.pass_time(engine, 5 * DAY)
    await world.ask(engine, c.AttachPaymentMethod(customer=customer, token="succeed", set_default=True))
    assert (await world.get(engine, Subscription, subscription.id)).status == "paused"
    return subscription.id


async def _resume(world: World, engine: Engine, subscription: str) -> object:
    """Begin to resume, and pay the invoice of it."""
    await world.ask(engine, c.ResumeSubscription(id=subscription), KEY)
    invoice = (await world.invoices(engine))[-1]
    return await world.ask(engine, c.PayInvoice(id=invoice.id), f"{KEY} pays")


async def _resumed_once(world: World, engine: Engine, subscription: str) -> None:
    assert (await world.get(engine, Subscription, subscription)).status == "active"
    assert [invoice.status for invoice in await world.invoices(engine)] == ["paid", "paid"]
    assert world.bank.effects == 1
    types = Counter(event.type for event in await world.events(engine))
    assert types["customer.subscription.resumed"] == 1


async def _before_a_retry(world: World, engine: Engine) -> str:
    customer = await world.customer(engine)
    await world.subscribe(engine, customer)
    failing = c.AttachPaymentMethod(customer=customer, token="decline,succeed", set_default=True)
    await world.ask(engine, failing)
    world.time.pass_(31 * DAY)
    await world.work_off(engine)
    world.time.pass_(HOUR)
    await world.work_off(engine, rounds=2)
    world.time.pass_(3 * DAY)
    return customer


async def _retried_once(world: World, engine: Engine, _customer: str) -> None:
    renewal = (await world.invoices(engine))[-1]
    assert (renewal.status, renewal.attempt_count) == ("paid", 2)
    assert [attempt.state for attempt in await world.attempts(engine, invoice=renewal.id)] == ["failed", "succeeded"]


async def _before_a_late_success(world: World, engine: Engine) -> str:
    customer = await world.customer(engine, "effect_then_timeout")
    await world.subscribe(engine, customer)
    world.bank.down = True
    world.time.pass_(23 * HOUR)
    await world.work_off(engine)
    (subscription,) = await world.subscriptions(engine, statuses=("incomplete_expired",))
    world.bank.down = False
    world.time.pass_(2 * HOUR)
    return subscription.id


async def _refunded_once(world: World, engine: Engine, _subscription: str) -> None:
    (invoice,) = await world.invoices(engine)
    assert invoice.status == "void"
    (refund,) = await world.refunds(engine)
    assert (refund.status, refund.reason) == ("succeeded", "late_payment")
    assert list(world.bank.given_back.values()) == [1000]


async def _paid(world: World, engine: Engine) -> str:
    invoice = await world.owe(engine, await world.customer(engine))
    paid = await world.do(engine, c.PayInvoice(id=invoice.id), Invoice)
    assert paid.payment_intent is not None
    return paid.payment_intent.id


async def _refund(world: World, engine: Engine, intent: str) -> object:
    return await world.ask(engine, c.CreateRefund(payment_intent=intent, amount=400), KEY)


async def _given_back_once(world: World, engine: Engine, _intent: str) -> None:
    (refund,) = await world.refunds(engine)
    assert (refund.status, refund.amount) == ("succeeded", 400)
    assert list(world.bank.given_back.values()) == [400]


async def _on_a_clock(world: World, engine: Engine) -> str:
    made = await engine.create_test_clock(world.account_id, "c", world.time.now, caller(c.CreateProduct(name="c")))
    clock_id: str = getattr(made.result, "id", "")
    await world.subscribe(engine, await world.customer(engine, test_clock=clock_id))
    return clock_id


async def _move(world: World, engine: Engine, clock_id: str) -> object:
    target = START + 32 * DAY
    asking = caller(c.CreateProduct(name="move"), KEY)
    moving = asyncio.create_task(collected(engine.clocks.advance(world.account_id, clock_id, target, asking)))
    # A charge that was broken off keeps the clock until its lease has ended.
    while not moving.done():
        await asyncio.wait({moving}, timeout=0.02)
        world.time.pass_(LEASE_SECONDS)
        await world.work_off(engine)
    return await moving


async def _two_periods(world: World, engine: Engine, _clock_id: str) -> None:
    invoices = await world.invoices(engine)
    assert [(invoice.status, invoice.created) for invoice in invoices] == [
        ("paid", START),
        ("paid", START + 31 * DAY),
    ]
    assert world.bank.effects == 2


SCENARIOS = {
    "subscribe": Scenario(_payer, _subscribe, _one_paid_subscription),
    "subscribe or nothing": Scenario(_payer, _subscribe_or_nothing, _one_paid_subscription),
    "a declined payment": Scenario(_debtor, _pay, _declined_once),
    "a renewal": Scenario(_before_a_renewal, _let_time_work, _renewed_once),
    "finalizing": Scenario(_before_finalizing, _let_time_work, _renewed_once),
    "an expiry": Scenario(_before_an_expiry, _let_time_work, _expired_once),
    "a resumption": Scenario(_paused, _resume, _resumed_once),
    "a retry": Scenario(_before_a_retry, _let_time_work, _retried_once),
    "a late success": Scenario(_before_a_late_success, _let_time_work, _refunded_once),
    "a refund": Scenario(_paid, _refund, _given_back_once),
    "a test clock": Scenario(_on_a_clock, _move, _two_periods),
}


# --- killing


async def _prepared(world: World, scenario: Scenario) -> Any:
    peaceful = await world.process()
    await world.open_account(peaceful)
    state = await scenario.prepare(world, peaceful)
    await world.end(peaceful)
    return state


async def _until_killed(
    world: World, scenario: Scenario, state: Any, stops: Stops, gateway: PaymentGateway | None = None
) -> bool:
    """Act in a process that dies at its stop; whether it came so far."""
    doomed = await world.process(stops=stops, gateway=gateway)
    acting = asyncio.create_task(_acted(scenario.act(world, doomed, state)))
    reaching = asyncio.create_task(stops.reached.wait())
    await within(asyncio.wait({acting, reaching}, return_when=asyncio.FIRST_COMPLETED))
    died = stops.reached.is_set()
    reaching.cancel()
    await world.kill(doomed, acting)
    return died


async def _acted(act: Awaitable[Any]) -> bool:
    """Whether the act ended well; a repeated request may be told to come again."""
    try:
        await act
    except Conflict:
        return False
    return True


async def _brought_to_its_end(world: World, scenario: Scenario, state: Any) -> None:
    """The next process: callers repeat their requests, leases end, and all is well."""
    second = await world.process()
    try:
        await _ended_well(world, second, scenario, state)
    finally:
        await world.close()


async def _ended_well(world: World, second: Engine, scenario: Scenario, state: Any) -> None:
    for _ in range(4):
        if await within(_acted(scenario.act(world, second, state))):
            break
        await world.pass_time(second, LEASE_SECONDS)
    else:
        raise AssertionError("it never ended well")
    await world.pass_time(second, LEASE_SECONDS)
    await audit(world, second)
    await scenario.expect(world, second, state)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_process_killed_at_any_step_does_no_harm(new_world: Callable[[], World], name: str) -> None:
    scenario = SCENARIOS[name]
    for stop_at in itertools.count(1):
        world = new_world()
        state = await _prepared(world, scenario)
        stops = Stops(stop_at)
        if not await _until_killed(world, scenario, state, stops):
            break
        try:
            await _brought_to_its_end(world, scenario, state)
        except AssertionError as error:
            error.add_note(f"killed at step {stop_at}: {', '.join(stops.passed)}")
            raise
    assert stop_at > 6, "the scenario has too few steps to be believed"


@pytest.mark.parametrize("steps", [4, 7, 11])
@pytest.mark.parametrize("name", ["subscribe", "a renewal", "a late success"])
async def test_processes_killed_again_and_again_do_no_harm(
    new_world: Callable[[], World], name: str, steps: int
) -> None:
    scenario = SCENARIOS[name]
    world = new_world()
    state = await _prepared(world, scenario)
    for _ in range(5):
        await _until_killed(world, scenario, state, Stops(steps))
        world.time.pass_(LEASE_SECONDS)
    await _brought_to_its_end(world, scenario, state)


@pytest.mark.parametrize("name", ["subscribe", "a renewal"])
async def test_charging_with_fresh_keys_would_be_noticed(new_world: Callable[[], World], name: str) -> None:
    """The calibration: the same enumeration with a planted bug."""
    scenario = SCENARIOS[name]
    with pytest.raises(AssertionError, match="which is no attempt"):
        for stop_at in range(1, 15):
            world = new_world()
            state = await _prepared(world, scenario)
            stops = Stops(stop_at)
            await _until_killed(world, scenario, state, stops, FreshKeys(world.bank, stops.at))
            await _brought_to_its_end(world, scenario, state)
