"""What goes wrong on request: by the token, for demonstrations, and by chance, for tests."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from billing_server.gateways.faults import Call, Fault, SeededFaults
from billing_server.gateways.test import BuiltInGateway
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow
from tests.gateways.samples import CountingMemory, charge_request, refund_request, times_money_moved

# By token: what each charge of one key answers, restarting in between, and what asking answers after each.
SEQUENCES: dict[str, list[tuple[str, str]]] = {
    "pm_card_visa_timeoutAfterEffect": [("unknown", "succeeded"), ("unknown", "succeeded")],
    "pm_card_chargeDeclinedIncorrectCvc_timeoutAfterEffect": [("unknown", "failed"), ("unknown", "failed")],
    "pm_card_visa_timeoutBeforeEffect": [("unknown", "not_found"), ("succeeded", "succeeded")],
    "pm_card_visa_chargeDeclined_timeoutBeforeEffect": [("unknown", "not_found"), ("failed", "failed")],
    "pm_card_visa_slow": [("succeeded", "succeeded"), ("succeeded", "succeeded")],
    "pm_card_visa_duplicate": [("succeeded", "succeeded"), ("succeeded", "succeeded")],
    "pm_gateway_down": [("unknown", "unknown"), ("unknown", "unknown")],
}


@pytest.mark.parametrize("token", SEQUENCES)
async def test_a_token_makes_its_fault_and_money_moves_once(store: Store, account_id: str, token: str) -> None:
    request = charge_request(account_id, token=token)
    memory = CountingMemory(store)
    answers = []
    for _ in SEQUENCES[token]:
        gateway = BuiltInGateway(memory, GatewayRow, late_seconds=0)
        charged = await gateway.charge(request)
        answers.append((charged.state, (await gateway.get_charge(account_id, request.key)).state))
    assert answers == SEQUENCES[token]
    moves = token.startswith("pm_card_visa") and "Declined" not in token
    assert await times_money_moved(store, account_id, memory) == int(moves)


async def test_a_duplicate_reaches_the_gateway_twice(store: Store, account_id: str) -> None:
    request = charge_request(account_id, token="pm_card_visa_duplicate")
    await BuiltInGateway(CountingMemory(store), GatewayRow).charge(request)
    remembered = (await store.find_charges(account_id, [request.key]))[request.key]
    assert (remembered.asked, remembered.row.effects) == (2, 1)


async def test_a_late_answer_keeps_nobody_else_waiting(memory: CountingMemory, account_id: str) -> None:
    gateway = BuiltInGateway(memory, GatewayRow, late_seconds=3600)
    slow = asyncio.create_task(gateway.charge(charge_request(account_id, token="pm_card_visa_slow")))
    assert (await gateway.charge(charge_request(account_id))).state == "succeeded"
    assert not slow.done()
    slow.cancel()


class Scripted:
    """One fault for one kind of call."""

    def __init__(self, call: Call, fault: Fault) -> None:
        self.call = call
        self.fault = fault

    def choose(self, call: Call, key: str) -> Fault | None:
        return self.fault if call == self.call else None


# Call | fault | what the call answers | what is found afterwards
INJECTED: list[tuple[Call, Fault, str, str]] = [
    ("charge", "timeout_before_effect", "unknown", "not_found"),
    ("charge", "down", "unknown", "not_found"),
    ("charge", "timeout_after_effect", "unknown", "succeeded"),
    ("charge", "slow", "succeeded", "succeeded"),
    ("charge", "duplicate", "succeeded", "succeeded"),
    ("refund", "timeout_before_effect", "unknown", "not_found"),
    ("refund", "down", "unknown", "not_found"),
    ("refund", "timeout_after_effect", "unknown", "succeeded"),
    ("refund", "slow", "succeeded", "succeeded"),
    ("refund", "duplicate", "succeeded", "succeeded"),
    ("get_charge", "timeout_before_effect", "succeeded", "unknown"),
    ("get_charge", "timeout_after_effect", "succeeded", "unknown"),
    ("get_charge", "down", "succeeded", "unknown"),
    ("get_charge", "slow", "succeeded", "succeeded"),
    ("get_refund", "timeout_before_effect", "succeeded", "unknown"),
    ("get_refund", "down", "succeeded", "unknown"),
    ("get_refund", "slow", "succeeded", "succeeded"),
]


@pytest.mark.parametrize(("call", "fault", "answer", "found"), INJECTED)
async def test_a_fault_of_each_call(
    memory: CountingMemory, account_id: str, call: Call, fault: Fault, answer: str, found: str
) -> None:
    gateway = BuiltInGateway(memory, GatewayRow, faults=Scripted(call, fault), late_seconds=0)
    charge = charge_request(account_id)
    charged = await gateway.charge(charge)
    if call in ("charge", "get_charge"):
        states = (charged.state, (await gateway.get_charge(account_id, charge.key)).state)
    else:
        request = refund_request(charge)
        refunded = await gateway.refund(request)
        states = (refunded.state, (await gateway.get_refund(account_id, request.key)).state)
    assert states == (answer, found)


async def test_money_moves_once_whatever_goes_wrong(store: Store, account_id: str) -> None:
    """A caller that asks before it sends again gets through, and never pays twice."""
    faults = SeededFaults(
        20_240_229,
        {"timeout_before_effect": 0.2, "timeout_after_effect": 0.2, "slow": 0.1, "duplicate": 0.2, "down": 0.1},
    )
    memory = CountingMemory(store)
    gateway = BuiltInGateway(memory, GatewayRow, faults=faults, late_seconds=0)

    async def pay() -> str:
        request = charge_request(account_id)
        state = (await gateway.charge(request)).state
        while state in ("unknown", "not_found"):
            state = (await gateway.get_charge(account_id, request.key)).state
            if state == "not_found":
                state = (await gateway.charge(request)).state
        return state

    assert Counter(await asyncio.gather(*[pay() for _ in range(100)])) == {"succeeded": 100}
    assert await times_money_moved(store, account_id, memory) == 100


def _throws(seed: int, keys: list[str], probabilities: dict[Fault, float]) -> dict[str, list[Fault | None]]:
    faults = SeededFaults(seed, probabilities)
    throws: dict[str, list[Fault | None]] = {key: [] for key in keys}
    for _ in range(3):
        for key in keys:
            throws[key].append(faults.choose("charge", key))
    return throws


def test_the_same_seed_throws_the_same_in_any_order_of_keys() -> None:
    keys = [f"pa_{number}" for number in range(50)]
    shares: dict[Fault, float] = {"slow": 0.3, "down": 0.3}
    assert _throws(7, keys, shares) == _throws(7, keys[::-1], shares)
    assert _throws(7, keys, shares) != _throws(8, keys, shares)


def test_faults_come_as_often_as_asked_for() -> None:
    keys = [f"pa_{number}" for number in range(1000)]
    thrown = Counter(fault for throws in _throws(1, keys, {"slow": 0.25, "down": 0.5}).values() for fault in throws)
    assert 650 < thrown["slow"] < 850
    assert 1400 < thrown["down"] < 1600
    assert thrown[None] == 3000 - thrown["slow"] - thrown["down"]


@pytest.mark.parametrize("shares", [{"slow": 1.1}, {"slow": -0.1}, {"slow": 0.6, "down": 0.6}])
def test_probabilities_that_cannot_be(shares: dict[Fault, float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        SeededFaults(1, shares)
