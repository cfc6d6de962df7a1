"""The built-in test gateway on the real database: once for a key, whatever is repeated, raced or restarted."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
import pytest

from billing_server.domain.commands import ChargeOutcome
from billing_server.domain.errors import InvalidArgument
from billing_server.gateways.port import ChargeRequest, PaymentGateway
from billing_server.gateways.test import KEY_REUSED, BuiltInGateway
from billing_server.gateways.tokens import METHODS
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow
from tests.gateways.samples import CountingMemory, charge_request, refund_request, times_money_moved


def gateway_with(memory: CountingMemory, **options: Any) -> BuiltInGateway[GatewayRow]:
    return BuiltInGateway(memory, GatewayRow, **options)


# --- once for a key


async def _race_and_repeat(request: ChargeRequest, one: PaymentGateway, other: PaymentGateway) -> list[ChargeOutcome]:
    raced = await asyncio.gather(*[gateway.charge(request) for gateway in (one, other) for _ in range(5)])
    return [*raced, await one.charge(request), await other.get_charge(request.account_id, request.key)]


async def _assert_once(account_id: str, database_url: str, make: type[BuiltInGateway[GatewayRow]]) -> None:
    """One request many times: raced by two processes, and again by two others after these have ended."""
    request = charge_request(account_id)
    outcomes: list[ChargeOutcome] = []
    for _ in ("at first", "after a restart"):
        stores = [await Store.open(database_url, min_connections=1, max_connections=2) for _ in range(2)]
        memories = [CountingMemory(store) for store in stores]
        gateways = [make(memory, GatewayRow) for memory in memories]
        outcomes += await _race_and_repeat(request, gateways[0], gateways[1])
        times = await times_money_moved(stores[0], account_id, *memories)
        for gateway, store in zip(gateways, stores, strict=True):
            await gateway.close()
            await store.close()
        assert times == 1, f"money moved {times} times"
    assert {(outcome.state, outcome.gateway_reference) for outcome in outcomes} == {("succeeded", f"ch_{request.key}")}


async def test_money_moves_once_for_a_key(account_id: str, database_url: str) -> None:
    await _assert_once(account_id, database_url, BuiltInGateway)


class FreshKeys(BuiltInGateway[GatewayRow]):
    """The planted bug: every request is a new one."""

    async def charge(self, request: ChargeRequest) -> ChargeOutcome:
        return await super().charge(msgspec.structs.replace(request, key=f"pa_{uuid.uuid4().hex}"))


async def test_a_gateway_that_does_not_deduplicate_is_caught(account_id: str, database_url: str) -> None:
    with pytest.raises(AssertionError, match="money moved 11 times"):
        await _assert_once(account_id, database_url, FreshKeys)


async def test_a_decline_stays_a_decline(memory: CountingMemory, account_id: str) -> None:
    """Also when the same key comes with a card that would do: the first request counts."""
    request = charge_request(account_id, token="pm_card_visa_chargeDeclinedLostCard")
    first = await gateway_with(memory).charge(request)
    assert first.state == "failed"
    assert await gateway_with(memory).charge(request) == first
    assert await gateway_with(memory).get_charge(account_id, request.key) == first


@pytest.mark.parametrize("changes", [{"amount": 2000}, {"currency": "eur"}, {"token": "pm_card_mastercard"}])
async def test_a_key_with_another_request_moves_nothing_and_tells_nothing(
    memory: CountingMemory, store: Store, account_id: str, changes: dict[str, Any]
) -> None:
    gateway = gateway_with(memory)
    request = charge_request(account_id)
    first = await gateway.charge(request)
    other = await gateway.charge(msgspec.structs.replace(request, **changes))
    assert (other.state, other.error) == ("unknown", KEY_REUSED)
    assert await gateway.get_charge(account_id, request.key) == first
    assert await times_money_moved(store, account_id, memory) == 1


async def test_requests_that_race_with_one_key_and_differ_move_money_once(
    memory: CountingMemory, store: Store, account_id: str
) -> None:
    request = charge_request(account_id)
    changed = msgspec.structs.replace(request, amount=1)
    gateway = gateway_with(memory)
    outcomes = await asyncio.gather(gateway.charge(request), gateway.charge(changed))
    assert [outcome.state for outcome in outcomes] == ["succeeded", "unknown"]
    assert await times_money_moved(store, account_id, memory) == 1


async def test_metadata_has_no_part_in_what_is_charged(memory: CountingMemory, account_id: str) -> None:
    request = charge_request(account_id, metadata={"order": "1"})
    first = await gateway_with(memory).charge(request)
    assert await gateway_with(memory).charge(msgspec.structs.replace(request, metadata={})) == first


async def test_accounts_have_keys_of_their_own(memory: CountingMemory, account_id: str) -> None:
    gateway = gateway_with(memory)
    request = charge_request(account_id)
    await gateway.charge(request)
    assert (await gateway.get_charge(f"acct_{uuid.uuid4().hex}", request.key)).state == "not_found"


# --- many at once


async def test_charges_that_arrive_together_are_written_together(
    memory: CountingMemory, store: Store, account_id: str
) -> None:
    requests = [charge_request(account_id) for _ in range(200)]
    outcomes = await asyncio.gather(*map(gateway_with(memory).charge, requests))
    assert [outcome.gateway_reference for outcome in outcomes] == [f"ch_{request.key}" for request in requests]
    assert [len(rows) for rows in memory.charge_statements] == [200]
    assert await times_money_moved(store, account_id, memory) == 200


async def test_questions_that_arrive_together_are_asked_together(memory: CountingMemory, account_id: str) -> None:
    gateway = gateway_with(memory)
    requests = [charge_request(account_id) for _ in range(50)]
    await asyncio.gather(*map(gateway.charge, requests))
    outcomes = await asyncio.gather(*[gateway.get_charge(account_id, request.key) for request in requests])
    assert {outcome.state for outcome in outcomes} == {"succeeded"}
    assert memory.questions == 1


async def test_callers_that_go_away_leave_their_charge_and_their_neighbors(
    memory: CountingMemory, account_id: str
) -> None:
    gateway = gateway_with(memory)
    requests = [charge_request(account_id) for _ in range(20)]
    tasks = [asyncio.create_task(gateway.charge(request)) for request in requests]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks[1::2])
    assert {outcome.state for outcome in outcomes} == {"succeeded"}
    left = await asyncio.gather(*[gateway.get_charge(account_id, request.key) for request in requests[::2]])
    assert {outcome.state for outcome in left} == {"succeeded"}


async def test_processes_that_write_the_same_keys_do_not_lock_each_other_out(store: Store, account_id: str) -> None:
    """Without an order of keys common to all, most runs of this end in a deadlock."""
    for _ in range(5):
        requests = [charge_request(account_id) for _ in range(400)]
        orders = (requests, requests[::-1], requests[200:] + requests[:200])
        charges = []
        for order in orders:
            gateway = gateway_with(CountingMemory(store))
            charges += [gateway.charge(request) for request in order]
        outcomes = await asyncio.gather(*charges)
        assert {outcome.state for outcome in outcomes} == {"succeeded"}


async def test_closing_waits_for_what_is_being_written(memory: CountingMemory, account_id: str) -> None:
    gateway = gateway_with(memory)
    request = charge_request(account_id)
    charging = asyncio.create_task(gateway.charge(request))
    await asyncio.sleep(0)
    await gateway.close()
    assert (await gateway_with(memory).get_charge(account_id, request.key)).state == "succeeded"
    assert (await charging).state == "succeeded"


# --- refunds


async def test_a_refund_goes_back_once(memory: CountingMemory, account_id: str) -> None:
    gateway = gateway_with(memory)
    charge = charge_request(account_id)
    await gateway.charge(charge)
    request = refund_request(charge, charge_reference=f"ch_{charge.key}")
    outcomes = await asyncio.gather(*[gateway.refund(request) for _ in range(5)])
    outcomes += [await gateway_with(memory).refund(request), await gateway.get_refund(account_id, request.key)]
    assert {(outcome.state, outcome.gateway_reference) for outcome in outcomes} == {("succeeded", f"re_{request.key}")}
    assert {row.effects for rows in memory.refund_statements for row in rows} == {1}
    other = await gateway.refund(msgspec.structs.replace(request, amount=1))
    assert (other.state, other.failure_message) == ("unknown", KEY_REUSED.message)


@pytest.mark.parametrize(
    ("token", "changes", "message"),
    [
        ("pm_card_visa", {"charge_key": "pa_none"}, "no successful charge"),
        ("pm_card_visa", {"charge_reference": "ch_other"}, "not called 'ch_other'"),
        ("pm_card_visa", {"amount": 2000}, "at most the charge's amount of 1999"),
        ("pm_card_visa", {"amount": 0}, "above zero"),
        ("pm_card_visa", {"currency": "eur"}, "made in usd, not in eur"),
        ("pm_card_chargeDeclinedIncorrectCvc", {}, "no successful charge"),
        ("pm_card_refundFail", {}, "refused to take the money back"),
    ],
)
async def test_a_refund_that_cannot_be_is_an_answer(
    memory: CountingMemory, account_id: str, token: str, changes: dict[str, Any], message: str
) -> None:
    gateway = gateway_with(memory)
    charge = charge_request(account_id, token=token)
    await gateway.charge(charge)
    request = refund_request(charge, **changes)
    outcome = await gateway.refund(request)
    assert outcome.state == "failed"
    assert message in (outcome.failure_message or "")
    assert await gateway.get_refund(account_id, request.key) == outcome
    assert {row.effects for rows in memory.refund_statements for row in rows} == {0}


async def test_what_was_never_asked_is_not_found(memory: CountingMemory, account_id: str) -> None:
    gateway = gateway_with(memory)
    assert (await gateway.get_charge(account_id, "pa_none")).state == "not_found"
    assert (await gateway.get_refund(account_id, "re_none")).state == "not_found"


# --- what may be shown


async def test_cards_are_described_and_debits_are_not(memory: CountingMemory) -> None:
    gateway = gateway_with(memory)
    card = gateway.describe("pm_card_visa_chargeDeclinedInsufficientFunds_slow", "card")
    assert card is not None
    assert (card.brand, card.last4) == ("visa", "9995")
    for method in METHODS:
        assert (gateway.describe(method.name, method.type) is not None) == (method.type == "card")


@pytest.mark.parametrize(
    ("token", "method_type", "words"),
    [
        ("pm_none", "card", ["pm_none", "pm_card_visa", "pm_sepaDebit_success", "_failFirst9", "pm_gateway_down"]),
        ("pm_card_visa", "sepa_debit", ["is of type card, not sepa_debit"]),
        ("pm_usBankAccount_success", "card", ["is of type us_bank_account, not card"]),
    ],
)
async def test_tokens_that_cannot_be_are_refused(
    memory: CountingMemory, token: str, method_type: Any, words: list[str]
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        gateway_with(memory).describe(token, method_type)
    assert [(violation.field, violation.reason) for violation in refused.value.violations] == [
        ("token", "parameter_invalid")
    ]
    assert all(word in refused.value.message for word in words)
