"""Promise 9: the same key has the same effect, once, whoever asks, whenever, and whatever broke in between."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.catalog import Product
from billing_server.domain.customer import Customer
from billing_server.domain.errors import Conflict, InvalidArgument, PaymentFailed
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import Refund
from billing_server.domain.subscription import Subscription
from billing_server.engine.engine import Engine
from billing_server.engine.session import Session
from billing_server.engine.work import Answer, Caller
from tests.engine.ledger import audit
from tests.engine.times import START, Stops
from tests.engine.world import World, caller, collected, outcomes, within

KEY = "key_1"


def _kept(answer: Answer) -> dict[str, Any]:
    """A replayed answer, which the caller has encoded."""
    assert answer.replay is not None
    kept: dict[str, Any] = msgspec.json.decode(answer.replay)
    return kept


async def test_a_repeated_request_gets_the_first_answer(world: World, engine: Engine) -> None:
    command = c.CreateCustomer(name="Ada")
    first = await world.do(engine, command, Customer, KEY)
    await world.ask(engine, c.UpdateCustomer(id=first.id, name="Grace"))
    events = len(await world.events(engine))
    again = _kept(await world.ask(engine, command, KEY))
    assert (again["id"], again["name"]) == (first.id, "Ada")
    assert len(await world.events(engine)) == events


async def test_another_request_with_the_key_is_refused(world: World, engine: Engine) -> None:
    first = await world.do(engine, c.CreateCustomer(name="Ada"), Customer, KEY)
    for other in (
        c.CreateCustomer(name="Grace"),
        c.UpdateCustomer(id=first.id, name="Grace"),
        c.CreateProduct(name="P"),
    ):
        with pytest.raises(InvalidArgument) as refused:
            await world.ask(engine, other, KEY)
        assert refused.value.reason == "idempotency_mismatch"
    assert (await world.get(engine, Customer, first.id)).name == "Ada"


async def test_a_refused_request_does_not_use_up_its_key(world: World, engine: Engine) -> None:
    customer = await world.customer(engine, None)
    with pytest.raises(InvalidArgument):
        await world.ask(engine, c.CreateInvoice(customer=customer), KEY)
    await world.ask(engine, c.AdjustBalance(customer=customer, amount=-1, currency="usd"))
    assert (await world.do(engine, c.CreateInvoice(customer=customer), Invoice, KEY)).currency == "usd"


async def test_one_key_at_the_same_time_has_one_effect(world: World, engine: Engine) -> None:
    answers = await outcomes(*(world.ask(engine, c.CreateCustomer(name="Ada"), KEY) for _ in range(20)))
    assert await _one_effect(world, engine, answers) == "customer.created"


async def test_one_key_at_the_same_time_in_two_processes_has_one_effect(world: World, engine: Engine) -> None:
    other = await world.process()
    for attempt in range(10):
        key = f"{KEY}_{attempt}"
        asked = [world.ask(process, c.CreateCustomer(name="Ada"), key) for process in (engine, other) for _ in range(3)]
        before = len(await world.events(engine))
        answers = await outcomes(*asked)
        assert await _one_effect(world, engine, answers, before) == "customer.created"


async def test_one_key_of_a_page_command_at_the_same_time_has_one_effect(world: World, engine: Engine) -> None:
    other = await world.process()
    before = len(await world.events(engine))
    asked = [world.ask(process, c.CreateProduct(name="P"), KEY) for process in (engine, other) for _ in range(5)]
    answers = await outcomes(*asked)
    assert await _one_effect(world, engine, answers, before) == "product.created"
    assert sum(isinstance(answer, Answer) and answer.result is not None for answer in answers) == 1


async def test_one_key_for_a_customer_and_a_product_at_once_goes_to_one_of_them(world: World, engine: Engine) -> None:
    other = await world.process()
    for attempt in range(5):
        key = f"{KEY}_{attempt}"
        answers = await outcomes(
            world.ask(engine, c.CreateCustomer(name="Ada"), key), world.ask(other, c.CreateProduct(name="P"), key)
        )
        kinds = sorted(type(answer).__name__ for answer in answers)
        assert kinds == ["Answer", "InvalidArgument"], answers


async def _one_effect(world: World, engine: Engine, answers: Any, after: int | None = None) -> str:
    """The only event that the requests led to; all were answered the same, or told to come again."""
    made = {getattr(i.result, "id", "") for i in answers if isinstance(i, Answer) and i.result is not None}
    made |= {_kept(answer)["id"] for answer in answers if isinstance(answer, Answer) and answer.result is None}
    assert len(made) == 1
    refused = [answer for answer in answers if not isinstance(answer, Answer)]
    assert all(isinstance(answer, Conflict) and answer.reason == "idempotency_key_in_use" for answer in refused)
    events = [event for event in await world.events(engine, after or 0) if event.object_id in made]
    assert len(events) == 1
    return events[0].type


# --- payments


async def test_a_payment_is_made_once_for_its_key(world: World, engine: Engine) -> None:
    customer = await world.customer(engine)
    command = c.PayInvoice(id=(await world.owe(engine, customer)).id)
    paid = await world.do(engine, command, Invoice, KEY)
    assert paid.status == "paid"
    assert _kept(await world.ask(engine, command, KEY))["status"] == "paid"
    assert world.bank.effects == 1


async def test_a_failed_payment_stays_failed_for_its_key(world: World, engine: Engine) -> None:
    customer = await world.customer(engine, "decline,succeed")
    command = c.PayInvoice(id=(await world.owe(engine, customer)).id)
    with pytest.raises(PaymentFailed) as failed:
        await world.ask(engine, command, KEY)
    assert failed.value.decline_code == "insufficient_funds"
    assert (await world.ask(engine, command, KEY)).replay == b"refused: card_declined"
    assert world.bank.effects == 0
    assert (await world.do(engine, command, Invoice, "key_2")).status == "paid"


async def test_all_or_nothing_leaves_nothing_and_stays_failed_for_its_key(world: World, engine: Engine) -> None:
    customer = await world.customer(engine, "decline")
    command = c.CreateSubscription(
        customer=customer, items=(c.ItemParams(price=world.price),), payment_behavior="error_if_incomplete"
    )
    with pytest.raises(PaymentFailed):
        await world.ask(engine, command, KEY)
    assert (await world.ask(engine, command, KEY)).replay == b"refused: card_declined"
    assert await world.subscriptions(engine, statuses=("active", "incomplete", "incomplete_expired", "canceled")) == []
    assert len(world.bank.requests) == 1


async def test_all_or_nothing_is_made_once_for_its_key(world: World, engine: Engine) -> None:
    customer = await world.customer(engine)
    command = c.CreateSubscription(
        customer=customer, items=(c.ItemParams(price=world.price),), payment_behavior="error_if_incomplete"
    )
    made = await world.do(engine, command, Subscription, KEY)
    assert made.status == "active"
    assert _kept(await world.ask(engine, command, KEY))["id"] == made.id
    assert len(await world.subscriptions(engine)) == 1
    await audit(world, engine)


@pytest.mark.parametrize("behavior", ["allow_incomplete", "error_if_incomplete"])
async def test_a_repetition_while_the_first_is_at_the_gateway_is_told_to_come_again(
    world: World, engine: Engine, behavior: Any
) -> None:
    other = await world.process()
    customer = await world.customer(engine, "hang")
    command = c.CreateSubscription(
        customer=customer, items=(c.ItemParams(price=world.price),), payment_behavior=behavior
    )
    first = asyncio.create_task(world.do(engine, command, Subscription, KEY))
    await world.asked_the_gateway()
    for process in (engine, other):
        with pytest.raises(Conflict) as told:
            await world.ask(process, command, KEY)
        assert told.value.reason == "idempotency_key_in_use"
    world.bank.released.set()
    made = await first
    assert _kept(await world.ask(other, command, KEY))["id"] == made.id
    await audit(world, engine)


async def test_an_unknown_outcome_is_told_until_it_is_known(world: World, engine: Engine) -> None:
    customer = await world.customer(engine, "effect_then_timeout")
    command = c.PayInvoice(id=(await world.owe(engine, customer)).id)
    with pytest.raises(Conflict) as unknown:
        await world.ask(engine, command, KEY)
    assert unknown.value.reason == "payment_outcome_unknown"
    with pytest.raises(Conflict) as again:
        await world.ask(engine, command, KEY)
    assert again.value.reason == "idempotency_key_in_use"
    await world.pass_time(engine, 300)
    assert (await world.do(engine, command, Invoice, KEY)).status == "paid"
    assert len(world.bank.requests) == 1
    await audit(world, engine)


async def test_a_refund_is_answered_the_same_again(world: World, engine: Engine) -> None:
    customer = await world.customer(engine)
    paid = await world.do(engine, c.PayInvoice(id=(await world.owe(engine, customer)).id), Invoice)
    assert paid.payment_intent is not None
    command = c.CreateRefund(payment_intent=paid.payment_intent.id, amount=400)
    first = await world.do(engine, command, Refund, KEY)
    assert first.status == "succeeded"
    again = _kept(await world.ask(engine, command, KEY))
    assert (again["id"], again["status"]) == (first.id, "succeeded")
    assert len(world.bank.refund_requests) == 1


async def test_a_credit_note_with_a_refund_is_answered_the_same_again(world: World, engine: Engine) -> None:
    customer = await world.customer(engine)
    paid = await world.do(engine, c.PayInvoice(id=(await world.owe(engine, customer)).id), Invoice)
    command = c.CreateCreditNote(invoice=paid.id, amount=300, refund_amount=300)
    note = (await world.ask(engine, command, KEY)).result
    assert _kept(await world.ask(engine, command, KEY))["id"] == getattr(note, "id", None)
    assert len(world.bank.refund_requests) == 1


# --- crashes, and others who are faster


@pytest.mark.parametrize(
    ("step", "requests"),
    [("a transaction has committed", 1), ("the gateway is asked to charge", 1), ("the gateway has charged", 1)],
)
@pytest.mark.parametrize("behavior", ["allow_incomplete", "error_if_incomplete"])
async def test_a_crash_between_charge_and_settlement_is_no_second_charge(
    world: World, engine: Engine, step: str, requests: int, behavior: Any
) -> None:
    customer = await world.customer(engine)
    command = c.CreateSubscription(
        customer=customer, items=(c.ItemParams(price=world.price),), payment_behavior=behavior
    )
    await world.end(engine)
    stops = Stops(stop_at_first=step)
    doomed = await world.process(stops=stops)
    asking = asyncio.create_task(world.ask(doomed, command, KEY))
    await within(stops.reached.wait())
    await world.kill(doomed, asking)

    second = await world.process()
    with pytest.raises(Conflict) as told:
        await world.ask(second, command, KEY)
    assert told.value.reason == "idempotency_key_in_use"
    await world.pass_time(second, 61)
    made = await world.do(second, command, Subscription, KEY)
    assert made.status == "active"
    assert len(await world.subscriptions(second)) == 1
    assert world.bank.effects == requests
    await audit(world, second)


@pytest.mark.parametrize("command", ["pay", "all_or_nothing"])
@pytest.mark.parametrize("token", ["succeed_and_wait", "decline_and_wait"])
async def test_whoever_settles_second_hears_what_the_first_has_settled(
    world: World, engine: Engine, command: str, token: str
) -> None:
    """The janitor of another process finds the outcome out while the first still waits for its answer."""
    other = await world.process()
    customer = await world.customer(engine, token)
    asked: c.Command
    if command == "pay":
        asked = c.PayInvoice(id=(await world.owe(engine, customer)).id)
    else:
        asked = c.CreateSubscription(
            customer=customer, items=(c.ItemParams(price=world.price),), payment_behavior="error_if_incomplete"
        )
    first = asyncio.create_task(world.ask(engine, asked, KEY))
    await world.asked_the_gateway()
    await world.pass_time(other, 61)
    (attempt,) = await world.attempts(other)
    assert attempt.state == ("failed" if "decline" in token else "succeeded")
    world.bank.released.set()
    for answer in await outcomes(first, world.ask(engine, asked, KEY), world.ask(other, asked, KEY)):
        if "decline" in token:
            assert isinstance(answer, PaymentFailed)
        else:
            assert isinstance(answer, Answer)
            assert isinstance(answer.result, Invoice | Subscription)
            assert answer.result.status in ("paid", "active")
    await audit(world, engine)


async def test_answers_from_a_book_that_does_not_know_the_attempt_would_be_noticed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the test above."""
    monkeypatch.setattr(Session, "_settled_already", lambda *_: None)
    with pytest.raises(AssertionError):
        await test_whoever_settles_second_hears_what_the_first_has_settled(world, engine, "pay", "decline_and_wait")


async def test_a_key_that_is_forgotten_would_be_noticed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the tests further above."""
    monkeypatch.setattr(Session, "_earlier_answer", lambda *_: None)
    with pytest.raises(AssertionError):
        await test_a_repeated_request_gets_the_first_answer(world, engine)
    with pytest.raises(AssertionError):
        await test_one_key_at_the_same_time_has_one_effect(world, engine)


# --- what is no book


async def test_page_commands_are_carried_out_once_for_their_key(world: World, engine: Engine) -> None:
    command = c.CreateProduct(name="Gold")
    first = await world.do(engine, command, Product, KEY)
    await world.ask(engine, c.UpdateProduct(id=first.id, name="Silver"))
    again = _kept(await world.ask(engine, command, KEY))
    assert (again["id"], again["name"]) == (first.id, "Gold")


async def test_test_clocks_are_made_moved_and_deleted_once_for_their_keys(world: World, engine: Engine) -> None:
    def asked(name: str, *parts: object) -> Caller:
        return caller(c.CreateProduct(name=f"{name} {parts}"), f"{KEY}_{name}")

    account = world.account_id
    made = (await engine.create_test_clock(account, "c", START, asked("make"))).result
    again = await engine.create_test_clock(account, "c", START, asked("make"))
    clock_id = getattr(made, "id", "")
    assert _kept(again)["id"] == clock_id
    for _ in range(2):
        moves = await collected(engine.clocks.advance(account, clock_id, START + 10, asked("move", START + 10)))
        assert (moves[-1].done, moves[-1].clock.frozen_time) == (True, START + 10)
    await engine.delete_test_clock(account, clock_id, asked("delete"))
    assert (await engine.delete_test_clock(account, clock_id, asked("delete"))).replay is not None
