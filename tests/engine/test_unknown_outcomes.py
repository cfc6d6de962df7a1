"""Promises 2 to 5: no answer is no outcome; it is asked for until it is known, and nothing happens twice meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest

from billing_server.domain import collection, settlement
from billing_server.domain import commands as c
from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.errors import Conflict
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import PaymentAttempt
from billing_server.domain.subscription import Subscription
from billing_server.engine import cashier as cashier_module
from billing_server.engine.cashier import Cashier
from billing_server.engine.engine import Engine
from billing_server.engine.group_commit import GroupCommit
from billing_server.engine.work import Answered, Work
from billing_server.gateways.port import ChargeRequest
from billing_server.store.errors import StoreUnavailable
from tests.engine.bank import INSUFFICIENT, ScriptedGateway
from tests.engine.ledger import audit
from tests.engine.times import DAY, HOUR
from tests.engine.world import World, outcomes, within

SUCCEEDED = ChargeOutcome(state="succeeded", gateway_reference="ch_1")
FAILED = ChargeOutcome(state="failed", error=INSUFFICIENT)
UNKNOWN = ChargeOutcome(state="unknown")
NOT_FOUND = ChargeOutcome(state="not_found")


async def _unknown(world: World, engine: Engine, token: str) -> Invoice:
    """An invoice whose payment was tried without an answer."""
    invoice = await world.owe(engine, await world.customer(engine, token))
    with pytest.raises(Conflict) as told:
        await world.ask(engine, c.PayInvoice(id=invoice.id))
    assert told.value.reason == "payment_outcome_unknown"
    return await world.get(engine, Invoice, invoice.id)


async def _attempt(world: World, engine: Engine) -> PaymentAttempt:
    """The only attempt."""
    (attempt,) = await world.attempts(engine)
    return attempt


# --- what waits meanwhile


@pytest.mark.parametrize("token", ["effect_then_timeout", "decline_then_timeout", "lost"])
async def test_nothing_else_happens_to_the_invoice_meanwhile(world: World, engine: Engine, token: str) -> None:
    invoice = await _unknown(world, engine, token)
    refused: list[c.Command] = [
        c.PayInvoice(id=invoice.id),
        c.PayInvoice(id=invoice.id, paid_out_of_band=True),
        c.VoidInvoice(id=invoice.id),
        c.MarkInvoiceUncollectible(id=invoice.id),
        c.CreateCreditNote(invoice=invoice.id, amount=100),
    ]
    for command in refused:
        with pytest.raises(Conflict) as told:
            await world.ask(engine, command)
        assert told.value.reason == "payment_in_progress"
    assert len(world.bank.requests) == 1


async def test_the_next_retry_waits_until_the_last_one_is_known(world: World, engine: Engine) -> None:
    customer = await world.customer(engine)
    await world.subscribe(engine, customer)
    failing = c.AttachPaymentMethod(customer=customer, token="decline,decline_then_timeout,succeed", set_default=True)
    await world.ask(engine, failing)
    await world.pass_time(engine, 31 * DAY)
    await world.pass_time(engine, HOUR)
    await world.pass_time(engine, 3 * DAY)
    renewal = (await world.invoices(engine))[-1]
    assert [attempt.state for attempt in await world.attempts(engine, invoice=renewal.id)] == ["failed", "unknown"]
    world.bank.down = True
    await world.pass_time(engine, 20 * DAY, step=DAY)
    assert len(await world.attempts(engine, invoice=renewal.id)) == 2
    world.bank.down = False
    await world.pass_time(engine, DAY)
    await world.pass_time(engine, HOUR)
    states = [attempt.state for attempt in await world.attempts(engine, invoice=renewal.id)]
    assert states == ["failed", "failed", "succeeded"]
    await audit(world, engine)


# --- asking again


async def test_the_gateway_is_asked_after_five_minutes_an_hour_and_then_daily(world: World, engine: Engine) -> None:
    world.bank.down = True
    began = world.time.now
    await _unknown(world, engine, "succeed")
    asked: list[int] = []
    reviewed: list[int] = []
    while world.time.now < began + 9 * DAY:
        await world.pass_time(engine, 300 if world.time.now < began + 3_900 else HOUR)
        attempt = await _attempt(world, engine)
        if world.bank.questions[attempt.id] > len(asked):
            asked.append(world.time.now - began)
        if attempt.needs_review and not reviewed:
            reviewed.append(len(asked))
    assert asked == [300, 3_900, *(3_900 + day * DAY for day in range(1, 9))]
    assert reviewed == [6], "the charge itself was the first of the seven questions"
    assert len(world.bank.requests) == 1


async def test_a_charge_that_never_arrived_is_made_with_the_same_key(world: World, engine: Engine) -> None:
    invoice = await _unknown(world, engine, "lost")
    first = await _attempt(world, engine)
    await world.pass_time(engine, 300)
    attempt = await _attempt(world, engine)
    assert (attempt.id, attempt.state) == (first.id, "succeeded")
    assert [request.key for request in world.bank.requests] == [first.id, first.id]
    assert world.bank.requests[0] == world.bank.requests[1], "sent again, it must be equal in every field"
    assert (await world.get(engine, Invoice, invoice.id)).status == "paid"
    await audit(world, engine)


async def test_a_charge_whose_key_is_too_old_is_never_made_again(world: World, engine: Engine) -> None:
    world.bank.down = True
    invoice = await _unknown(world, engine, "succeed")
    await world.pass_time(engine, 2 * DAY, step=12 * HOUR)
    world.bank.down = False
    await world.pass_time(engine, 2 * DAY, step=12 * HOUR)
    attempt = await _attempt(world, engine)
    assert attempt.state == "failed"
    assert len(world.bank.requests) == 1
    assert (await world.get(engine, Invoice, invoice.id)).status == "open"
    assert (await world.do(engine, c.PayInvoice(id=invoice.id), Invoice)).status == "paid"
    await audit(world, engine)


async def test_a_refund_without_an_answer_is_asked_for_until_it_is_known(world: World, engine: Engine) -> None:
    invoice = await world.owe(engine, await world.customer(engine))
    paid = await world.do(engine, c.PayInvoice(id=invoice.id), Invoice)
    world.bank.down = True
    assert paid.payment_intent is not None
    await world.ask(engine, c.CreateRefund(payment_intent=paid.payment_intent.id))
    (refund,) = await world.refunds(engine)
    assert refund.status == "unknown"
    await world.pass_time(engine, 300)
    world.bank.down = False
    await world.pass_time(engine, HOUR)
    (refund,) = await world.refunds(engine)
    assert refund.status == "succeeded"
    assert {request.key for request in world.bank.refund_requests} == {refund.id}
    await audit(world, engine)


# --- too late


async def _expired(world: World, engine: Engine, token: str) -> Subscription:
    """A subscription that has expired while nobody knew whether its first invoice was paid; then the bank is back."""
    subscription = await world.subscribe(engine, await world.customer(engine, token))
    assert subscription.status == "incomplete"
    world.bank.down = True
    await world.pass_time(engine, 23 * HOUR, step=HOUR)
    subscription = await world.get(engine, Subscription, subscription.id)
    assert subscription.status == "incomplete_expired"
    assert [invoice.status for invoice in await world.invoices(engine)] == ["void"]
    world.bank.down = False
    return subscription


async def _still_expired(world: World, engine: Engine, subscription: Subscription) -> None:
    assert (await world.get(engine, Subscription, subscription.id)).status == "incomplete_expired"
    assert [invoice.status for invoice in await world.invoices(engine)] == ["void"]
    await audit(world, engine)


async def test_a_success_after_the_expiry_is_given_back_once(world: World, engine: Engine) -> None:
    subscription = await _expired(world, engine, "effect_then_timeout")
    await world.pass_time(engine, 2 * DAY, step=HOUR)
    (refund,) = await world.refunds(engine)
    assert (refund.amount, refund.reason, refund.status) == (1000, "late_payment", "succeeded")
    assert len(world.bank.refund_requests) == 1
    await _still_expired(world, engine, subscription)


async def test_a_charge_that_never_arrived_is_not_made_after_the_expiry(world: World, engine: Engine) -> None:
    """Also while its key still lives: nobody owes the money any more."""
    subscription = await _expired(world, engine, "lost")
    await world.check_now(engine)
    assert (await _attempt(world, engine)).state == "failed"
    assert len(world.bank.requests) == 1
    assert await world.refunds(engine) == []
    await _still_expired(world, engine, subscription)


async def test_a_failure_after_the_expiry_changes_nothing(world: World, engine: Engine) -> None:
    subscription = await _expired(world, engine, "decline_then_timeout")
    events = len(await world.events(engine))
    await world.pass_time(engine, 2 * DAY, step=HOUR)
    assert (await _attempt(world, engine)).state == "failed"
    assert await world.refunds(engine) == []
    assert len(await world.events(engine)) == events
    await _still_expired(world, engine, subscription)


# --- again and out of order


def _settle(attempt: PaymentAttempt, outcome: ChargeOutcome) -> c.SettleAttempt:
    return c.SettleAttempt(
        customer=attempt.customer,
        invoice=attempt.invoice,
        subscription=attempt.subscription,
        attempt=attempt.id,
        outcome=outcome,
    )


async def _settled_in_all_orders(world: World, engine: Engine, told: tuple[ChargeOutcome, ...], final: str) -> None:
    """Whatever order the answers come in, one by one or in one batch, the invoice ends the same, once."""
    customer = await world.customer(engine, "hang")
    # Equal answers may change places.
    orders = {tuple(told[i].state for i in order): order for order in itertools.permutations(range(len(told)))}
    for order, together in itertools.product(orders.values(), (False, True)):
        invoice = await world.owe(engine, customer)
        paying = asyncio.create_task(world.ask(engine, c.PayInvoice(id=invoice.id)))
        await world.asked_the_gateway(len(world.bank.requests) + 1)
        (attempt,) = await world.attempts(engine, invoice=invoice.id)
        answers = [world.submit(engine, _settle(attempt, told[index])) for index in order]
        if together:
            await outcomes(*answers)
        else:
            for answer in answers:
                await within(answer)
        assert (await world.get(engine, PaymentAttempt, attempt.id)).state == final
        types = [event.type for event in await world.events(engine) if event.object_id == invoice.id]
        once = "invoice.paid" if final == "succeeded" else "invoice.payment_failed"
        assert types.count(once) == 1, f"{order}: {types}"
        after = await world.get(engine, Invoice, invoice.id)
        assert (after.attempt_count, after.amount_paid) == (1, 1000 if final == "succeeded" else 0)
        paying.cancel()
        await outcomes(paying)
    assert await world.refunds(engine) == []


async def test_successes_converge(world: World, engine: Engine) -> None:
    await _settled_in_all_orders(world, engine, (UNKNOWN, SUCCEEDED, NOT_FOUND, SUCCEEDED), "succeeded")


async def test_failures_converge(world: World, engine: Engine) -> None:
    await _settled_in_all_orders(world, engine, (FAILED, UNKNOWN, FAILED), "failed")


async def test_settling_without_comparing_would_be_noticed(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration of the two tests above."""
    everything = frozenset({"started", "unknown", "succeeded", "failed", "requires_action"})
    monkeypatch.setattr(settlement, "UNRESOLVED", everything)
    monkeypatch.setattr(collection, "UNRESOLVED", everything)
    with pytest.raises(AssertionError):
        await _settled_in_all_orders(world, engine, (FAILED, UNKNOWN, FAILED), "failed")


async def test_two_processes_that_settle_at_once_settle_once(world: World, engine: Engine) -> None:
    other = await world.process()
    invoice = await _unknown(world, engine, "effect_then_timeout")
    attempt = await _attempt(world, engine)
    told = (SUCCEEDED, UNKNOWN, SUCCEEDED)
    settling = [world.submit(process, _settle(attempt, outcome)) for outcome in told for process in (engine, other)]
    await outcomes(*settling)
    types = [event.type for event in await world.events(engine) if event.object_id == invoice.id]
    assert types.count("invoice.paid") == 1
    await audit(world, engine)


# --- gateways that misbehave


async def test_a_gateway_that_hangs_is_given_up_after_a_while(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cashier_module, "GATEWAY_SECONDS_MAX", 0.05)
    await _unknown(world, engine, "hang")
    assert (await _attempt(world, engine)).state == "unknown"


async def test_not_found_is_no_answer_to_a_charge(world: World, engine: Engine) -> None:
    """It would mean that the charge is still to be made, again and again."""
    await _unknown(world, engine, "not_found")
    assert len(world.bank.requests) == 1
    assert (await _attempt(world, engine)).state == "unknown"


class _BreaksOff(ScriptedGateway):
    async def charge(self, request: ChargeRequest) -> ChargeOutcome:
        await super().charge(request)
        raise asyncio.CancelledError


async def test_a_gateway_that_cancels_itself_gave_no_answer(world: World, engine: Engine) -> None:
    breaking = await world.process(gateway=_BreaksOff(world.bank))
    await _unknown(world, breaking, "succeed")
    await world.pass_time(engine, 300)
    await audit(world, engine)


async def test_one_card_that_hangs_holds_up_no_other_renewal(world: World, engine: Engine) -> None:
    slow = await world.customer(engine)
    await world.subscribe(engine, slow)
    await world.ask(engine, c.AttachPaymentMethod(customer=slow, token="hang", set_default=True))
    world.time.pass_(HOUR)
    others = [await world.customer(engine) for _ in range(3)]
    for customer in others:
        await world.subscribe(engine, customer)
    world.time.pass_(31 * DAY - HOUR)
    await world.work_off(engine)
    world.time.pass_(HOUR)
    await engine.timekeeper.sweep()
    await world.asked_the_gateway(5)
    world.time.pass_(HOUR)
    await engine.timekeeper.sweep()
    await world.asked_the_gateway(8)
    paid = [
        invoice for invoice in await world.invoices(engine, status="paid") if invoice.billing_reason.endswith("cycle")
    ]
    assert {invoice.customer for invoice in paid} <= set(others)
    world.bank.released.set()
    await within(engine.timekeeper.idle())
    await audit(world, engine)


async def test_one_outcome_that_cannot_be_written_down_harms_no_other(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the settlement of one book: the charges beside it are made and settled all the same."""
    customers = [await world.customer(engine) for _ in range(8)]
    for customer in customers:
        await world.subscribe(engine, customer)
    settle = collection.settle

    def breaking(turn: Any, attempt: PaymentAttempt, outcome: ChargeOutcome) -> None:
        if attempt.customer == customers[3]:
            raise AttributeError("a planted bug")
        settle(turn, attempt, outcome)

    monkeypatch.setattr(collection, "settle", breaking)
    await world.pass_time(engine, 31 * DAY)
    await world.pass_time(engine, HOUR)
    states = {attempt.customer: attempt.state for attempt in await world.attempts(engine) if attempt.kind == "initial"}
    assert {customer for customer in customers if states[customer] != "succeeded"} == {customers[3]}
    monkeypatch.setattr(collection, "settle", settle)
    await world.pass_time(engine, 61)
    await audit(world, engine)


async def test_a_settlement_waits_for_a_database_that_is_away_for_a_moment(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cashier_module, "SETTLE_PAUSES", (0.01, 0.01, 0.01))
    submit = GroupCommit.submit
    failed: list[Work] = []

    async def away(group: GroupCommit, account_id: str, work: Work) -> Answered:
        if isinstance(work.command, c.SettleAttempt) and len(failed) < 3:
            failed.append(work)
            raise StoreUnavailable("a planted outage")
        return await submit(group, account_id, work)

    monkeypatch.setattr(GroupCommit, "submit", away)
    customer = await world.customer(engine)
    assert (await world.subscribe(engine, customer)).status == "active"
    assert len(failed) == 3
    await audit(world, engine)


async def test_refunds_that_follow_are_made_once(world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a late success up leads to one request for its refund, not to two with one key."""
    asked: list[str] = []
    refund = Cashier.refund

    async def counted(cashier: Cashier, account_id: str, item: Any, origin: Any = None) -> Answered:
        asked.append(item.id)
        return await refund(cashier, account_id, item, origin)

    monkeypatch.setattr(Cashier, "refund", counted)
    await world.subscribe(engine, await world.customer(engine, "effect_then_timeout"))
    world.bank.down = True
    await world.pass_time(engine, 23 * HOUR)
    world.bank.down = False
    await world.pass_time(engine, 2 * DAY, step=HOUR)
    assert len(asked) == len(set(asked)) == 1


async def test_answers_that_are_equal_in_all_fields_are_settled_alike(world: World, engine: Engine) -> None:
    """A second answer that differs from the first changes nothing any more."""
    invoice = await _unknown(world, engine, "effect_then_timeout")
    attempt = await _attempt(world, engine)
    await world.submit(engine, _settle(attempt, SUCCEEDED))
    other = msgspec.structs.replace(SUCCEEDED, gateway_reference="ch_2")
    for outcome in (other, FAILED, NOT_FOUND, UNKNOWN):
        await world.submit(engine, _settle(attempt, outcome))
    assert (await _attempt(world, engine)).gateway_reference == "ch_1"
    assert (await world.get(engine, Invoice, invoice.id)).status == "paid"
