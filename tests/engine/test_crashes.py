"""Crash enumeration: a process is killed at each of its steps, the next one goes on, and the money is audited.

Steps are: before a transaction, before and after its COMMIT, before the gateway is asked, after it has done what it
was asked for, before it is asked what it did. Promises 1, 2, 4 and 9.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from billing_server.domain import commands as c
from billing_server.domain.automation import Action, AutomationRun, Trigger
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.errors import PaymentFailed
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription
from billing_server.engine.engine import Engine
from tests.engine.bank import FreshKeys
from tests.engine.crashes import (
    LEASE_SECONDS,
    Scenario,
    brought_to_its_end,
    killed_at_every_step,
    prepared,
    until_killed,
)
from tests.engine.times import DAY, HOUR, START, Stops
from tests.engine.world import World, caller, collected

KEY = "key_1"


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


# --- what automations do

TEAM = ("ops@acme.test",)


async def _automate(world: World, engine: Engine, trigger: Trigger, *actions: Action) -> None:
    await world.ask(engine, c.UpdateSettings(company_domain="acme.test"))
    await world.ask(engine, c.CreateAutomation(name="Steps", trigger=trigger, actions=actions))


async def _run_of(world: World, engine: Engine) -> AutomationRun:
    (run,) = await world.runs(engine)
    return run


async def _before_a_gift(world: World, engine: Engine) -> str:
    """A new customer is credited at once, and subscribes without asking a day later; that day is almost over."""
    gift = Action(type="credit_customer_balance", amount=300, currency="usd")
    subscribing = Action(type="create_subscription", delay_seconds=DAY, price=world.price)
    await _automate(world, engine, "customer_created", gift, subscribing)
    customer = await world.customer(engine)
    world.time.pass_(DAY - HOUR)
    return customer


async def _given_once(world: World, engine: Engine, _customer: str) -> None:
    assert [step.result for step in (await _run_of(world, engine)).steps] == ["done", "done"]
    (invoice,) = await world.invoices(engine)
    assert (invoice.status, invoice.amount_due) == ("paid", 700)
    assert [attempt.amount for attempt in await world.attempts(engine)] == [700]
    assert world.bank.effects == 1


async def _dunned(world: World, engine: Engine, *actions: Action, token: str) -> None:
    """A renewal that failed, and the run that it began."""
    await _automate(world, engine, "subscription_payment_fails", *actions)
    customer = await world.customer(engine)
    await world.subscribe(engine, customer)
    await world.ask(engine, c.AttachPaymentMethod(customer=customer, token=token, set_default=True))
    world.time.pass_(31 * DAY)
    await world.work_off(engine)
    world.time.pass_(HOUR)
    await world.work_off(engine, rounds=2)


async def _before_a_step_that_charges(world: World, engine: Engine) -> None:
    """A retry policy of an automation, whose first retry is due in an hour."""
    retrying = Action(type="start_retry_policy", retry_policy=RetryPolicy("custom", (3,)))
    giving_up = Action(type="cancel_subscription", delay_seconds=DAY)
    await _dunned(world, engine, retrying, giving_up, token="decline,succeed")
    world.time.pass_(3 * DAY - HOUR)


async def _charged_once_more(world: World, engine: Engine, _state: None) -> None:
    renewal = (await world.invoices(engine))[-1]
    assert (renewal.status, renewal.attempt_count) == ("paid", 2)
    assert world.bank.effects == 2
    assert (await _run_of(world, engine)).end_reason == "invoice_paid"
    assert len(await world.subscriptions(engine, statuses=("active",))) == 1


async def _before_steps_that_give_up(world: World, engine: Engine) -> None:
    """The team is told in an hour; another hour later the subscription is ended, and with it the invoice given up."""
    telling = Action(type="send_team_email", delay_seconds=DAY, recipients=TEAM, memo="They do not pay")
    canceling = Action(type="cancel_subscription", delay_seconds=HOUR)
    writing_off = Action(type="mark_invoice_uncollectible")
    await _dunned(world, engine, telling, canceling, writing_off, token="decline")
    world.time.pass_(DAY - HOUR)


async def _let_hours_pass(world: World, engine: Engine, _state: None) -> None:
    for _ in range(3):
        world.time.pass_(HOUR)
        await world.work_off(engine)


async def _gave_up_once(world: World, engine: Engine, _state: None) -> None:
    run = await _run_of(world, engine)
    assert [step.result for step in run.steps] == ["done", "done", "done"]
    assert (await world.invoices(engine))[-1].status == "uncollectible"
    assert len(await world.subscriptions(engine, statuses=("canceled",))) == 1
    types = Counter(event.type for event in await world.events(engine))
    assert types["customer.subscription.deleted"] == types["invoice.marked_uncollectible"] == 1
    memos = [message for message in await world.messages(engine) if message.kind == "team_memo"]
    assert [message.recipient for message in memos] == list(TEAM)


async def _voided_by_hand(world: World, engine: Engine, _state: None) -> object:
    """Voiding the invoice ends the run that was about it."""
    renewal = (await world.invoices(engine))[-1]
    return await world.ask(engine, c.VoidInvoice(id=renewal.id), KEY)


async def _ended_by_voiding(world: World, engine: Engine, _state: None) -> None:
    renewal = (await world.invoices(engine))[-1]
    assert renewal.status == "void"
    assert (await _run_of(world, engine)).end_reason == "invoice_voided"
    await world.pass_time(engine, 5 * DAY)
    assert world.bank.effects == 1
    assert len(await world.subscriptions(engine, statuses=("canceled",))) == 0


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
    "an automation's gift": Scenario(_before_a_gift, _let_time_work, _given_once),
    "an automation that charges": Scenario(_before_a_step_that_charges, _let_time_work, _charged_once_more),
    "an automation that gives up": Scenario(_before_steps_that_give_up, _let_hours_pass, _gave_up_once),
    "an automation ended by voiding": Scenario(_before_a_step_that_charges, _voided_by_hand, _ended_by_voiding, 3),
    "a test clock": Scenario(_on_a_clock, _move, _two_periods),
}


# --- killing


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_process_killed_at_any_step_does_no_harm(new_world: Callable[[], World], name: str) -> None:
    await killed_at_every_step(new_world, SCENARIOS[name])


@pytest.mark.parametrize("steps", [4, 7, 11])
@pytest.mark.parametrize("name", ["subscribe", "a renewal", "a late success"])
async def test_processes_killed_again_and_again_do_no_harm(
    new_world: Callable[[], World], name: str, steps: int
) -> None:
    scenario = SCENARIOS[name]
    world = new_world()
    state = await prepared(world, scenario)
    for _ in range(5):
        await until_killed(world, scenario, state, Stops(steps))
        world.time.pass_(LEASE_SECONDS)
    await brought_to_its_end(world, scenario, state)


@pytest.mark.parametrize("name", ["subscribe", "a renewal"])
async def test_charging_with_fresh_keys_would_be_noticed(new_world: Callable[[], World], name: str) -> None:
    """The calibration: the same enumeration with a planted bug."""
    scenario = SCENARIOS[name]
    with pytest.raises(AssertionError, match="which is no attempt"):
        for stop_at in range(1, 15):
            world = new_world()
            state = await prepared(world, scenario)
            stops = Stops(stop_at)
            await until_killed(world, scenario, state, stops, FreshKeys(world.bank, stops.at))
            await brought_to_its_end(world, scenario, state)
