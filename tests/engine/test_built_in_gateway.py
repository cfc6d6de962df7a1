"""Seeded lives with the built-in gateway at its worst, in processes that are killed again and again.

Everything goes wrong by chance: requests and answers get lost, come late, or twice; processes die at any step. A
failing seed fails again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest

from billing_server.domain import commands as c
from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.errors import DomainError
from billing_server.domain.payment import UNRESOLVED
from billing_server.engine.engine import Engine
from billing_server.gateways.faults import SeededFaults
from billing_server.gateways.port import ChargeRequest
from billing_server.gateways.test import BuiltInGateway
from billing_server.store.errors import StoreError
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow
from tests.engine.ledger import audit_events
from tests.engine.times import DAY, HOUR, Stops
from tests.engine.world import World, within

TOKENS = (
    "pm_card_visa",
    "pm_card_visa",
    "pm_card_visa_failFirst1",
    "pm_card_visa_timeoutAfterEffect",
    "pm_card_visa_timeoutBeforeEffect",
    "pm_card_visa_duplicate",
    "pm_card_chargeCustomerFail",
)
STEPS_OF_A_LIFE = (60, 420)


def _gateway(world: World, seed: int | None) -> BuiltInGateway[GatewayRow]:
    faults = None
    if seed is not None:
        faults = SeededFaults(
            seed,
            {"timeout_before_effect": 0.15, "timeout_after_effect": 0.15, "slow": 0.1, "duplicate": 0.1, "down": 0.1},
        )
    return BuiltInGateway(Store(world.database), GatewayRow, faults=faults, late_seconds=0.002)


async def _tried(work: Awaitable[Any]) -> None:
    """Callers may be refused; whatever else goes wrong is a bug."""
    try:
        await work
    except (DomainError, StoreError):
        return


async def _lived(world: World, engine: Engine, dice: random.Random, customers: list[str], days: int) -> None:
    """Some days of renewals, with callers who pay, void, cancel, refund, and begin again."""
    for _ in range(days):
        invoices = await world.invoices(engine)
        commands: list[c.Command] = [c.PayInvoice(id=item.id) for item in invoices if item.status == "open"]
        commands += [c.VoidInvoice(id=item.id) for item in invoices if item.status == "open" and dice.random() < 0.1]
        paid = [item.payment_intent.id for item in invoices if item.status == "paid" and item.payment_intent]
        commands += [c.CreateRefund(payment_intent=intent, amount=100) for intent in paid if dice.random() < 0.03]
        items = (c.ItemParams(price=world.price),)
        commands += [c.CreateSubscription(customer=customer, items=items) for customer in dice.sample(customers, 1)]
        asked = [_tried(world.ask(engine, command)) for command in dice.sample(commands, min(4, len(commands)))]
        await asyncio.gather(*asked, _tried(world.pass_time(engine, DAY, step=8 * HOUR)))


async def _at_peace(world: World) -> None:
    """The gateway behaves, nobody dies, and all that was left open comes to its end."""
    engine = await world.process(gateway=_gateway(world, None))
    for _ in range(30):
        await world.pass_time(engine, DAY, step=12 * HOUR)
        refunds = [refund for refund in await world.refunds(engine) if refund.status in ("pending", "unknown")]
        attempts = [attempt for attempt in await world.attempts(engine) if attempt.state in UNRESOLVED]
        if not refunds and not attempts:
            break
    await _audited(world, engine)
    await world.end(engine)


async def _audited(world: World, engine: Engine) -> None:
    """The engine's attempts against the gateway's memory."""
    attempts = await world.attempts(engine)
    memory = await engine.store.find_charges(world.account_id, [attempt.id for attempt in attempts])
    rows = "SELECT key FROM test_gateway_charges WHERE account_id = $1 AND effects > 0"
    moved = {row["key"] for row in await world.sql(rows, world.account_id)}
    assert moved <= {attempt.id for attempt in attempts}, "money moved under a key that is no attempt"
    for attempt in attempts:
        assert attempt.state not in UNRESOLVED, f"attempt {attempt.id} is still {attempt.state}"
        effects = memory[attempt.id].row.effects if attempt.id in memory else 0
        assert effects == (attempt.state == "succeeded"), f"attempt {attempt.id} is {attempt.state}: {effects} effects"
    late = {refund.attempt for refund in await world.refunds(engine) if refund.reason == "late_payment"}
    for invoice in await world.invoices(engine):
        kept = [i for i in attempts if i.invoice == invoice.id and i.state == "succeeded" and i.id not in late]
        wanted = invoice.status == "paid" and invoice.amount_due > 0
        assert len(kept) == wanted, f"invoice {invoice.id} is {invoice.status}, with {len(kept)} charges"
    await audit_events(world, engine)


async def _life(world: World, seed: int) -> None:
    dice = random.Random(seed)
    peaceful = await world.process(gateway=_gateway(world, None))
    await world.open_account(peaceful, interval="week")
    customers = [await world.customer(peaceful, token) for token in TOKENS]
    await world.end(peaceful)
    for _ in range(4):
        stops = Stops(dice.randrange(*STEPS_OF_A_LIFE))
        doomed = await world.process(stops=stops, gateway=_gateway(world, seed))
        living = asyncio.create_task(_lived(world, doomed, dice, customers, 12))
        dying = asyncio.create_task(stops.reached.wait())
        await within(asyncio.wait({living, dying}, return_when=asyncio.FIRST_COMPLETED))
        if living.done():
            living.result()
        dying.cancel()
        await world.kill(doomed, living)
        world.time.pass_(61)
    await _at_peace(world)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_goes_wrong_money_moves_once(world: World, seed: int) -> None:
    await _life(world, seed)


async def test_failures_that_are_taken_for_outcomes_would_be_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calibration: a gateway whose silence counts as a decline, against promise 2."""
    charge = BuiltInGateway.charge

    async def hasty(gateway: BuiltInGateway[GatewayRow], request: ChargeRequest) -> ChargeOutcome:
        outcome = await charge(gateway, request)
        return ChargeOutcome(state="failed") if outcome.state == "unknown" else outcome

    monkeypatch.setattr(BuiltInGateway, "charge", hasty)
    with pytest.raises(AssertionError, match="effects"):
        await _life(world, 1)
