"""The chaos itself: its audit catches planted bugs, so that its silence means something.

Short runs with real processes; `make chaos` is the long one, and `make chaos ARGS='--plant NAME'` tries any plant.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from billing.gateway.v1 import gateway_pb2 as pb
from billing.v1.customer_model_pb2 import Customer
from billing.v1.event_model_pb2 import Event
from tests.chaos import audit
from tests.chaos.audit import Row
from tests.chaos.gateway import Gateway
from tests.chaos.ledger import Entry, Kind, Ledger
from tests.chaos.readers import Reader
from tests.chaos.run import Options, run

# --- real processes


@pytest.mark.parametrize(
    "plants",
    [
        {"forget-key": "answered by .*, and (now )?by"},
        {"forget-event": "no event tells|differs from its newest event|and made set"},
        {
            "skip-event": r"reader \d: after position",
            "early-webhook": r"the receiver \w+ never got \d+ of",
            "early-letter": "was sent, but no letter of it arrived",
            "early-position": r"the consumer \w+: \d+ of \d+ events were never done",
            "disorder": r"the consumer \w+: .* was passed over",
        },
    ],
    ids=" ".join,
)
async def test_planted_bugs_are_caught(plants: dict[str, str]) -> None:
    """Bugs of different rooms do not hide each other, so they share a run."""
    result = await run(Options(seconds=6, seed=1, servers=2, plants=tuple(plants)), lambda _: None)
    for plant, telling in plants.items():
        found = [finding for finding in result.findings if re.search(telling, finding)]
        assert found, f"{plant} was not caught: {result.findings}"


# --- the audit of money, finding by finding


def _entry(key: str, invoice: str = "in_1", attempt: int = 1, amount: int = 100, kind: Kind = "charge") -> Entry:
    charge_key = "pa_1" if kind == "refund" else ""
    return Entry(kind, key, charge_key, invoice, attempt, amount, True, b"", b"")


def _attempt(key: str, state: str = "succeeded", invoice: str = "in_1", number: int = 1, amount: int = 100) -> Row:
    return {"id": key, "invoice": invoice, "number": number, "state": state, "amount": amount}


def _refund(key: str, status: str = "succeeded", amount: int = 100) -> Row:
    return {"id": key, "attempt": "pa_1", "status": status, "amount": amount}


def _invoice(status: str) -> Row:
    return {"id": "in_1", "status": status, "amount_due": 100, "paid_out_of_band": False}


@pytest.mark.parametrize(
    ("entries", "attempts", "telling"),
    [
        ([_entry("pa_1")], [_attempt("pa_1")], []),
        ([_entry("pa_1"), _entry("pa_1x")], [_attempt("pa_1")], ["charged 2 times", "which is no attempt"]),
        ([_entry("pa_1")], [_attempt("pa_1", "failed")], ["which is failed"]),
        ([_entry("pa_1", amount=99)], [_attempt("pa_1")], ["instead of 100"]),
        ([], [_attempt("pa_1")], ["no money moved"]),
        ([], [_attempt("pa_1", "unknown")], ["still unknown"]),
    ],
)
def test_charges_are_compared(entries: Sequence[Entry], attempts: Sequence[Row], telling: Sequence[str]) -> None:
    _told(list(audit.charges(entries, attempts)), telling)


@pytest.mark.parametrize(
    ("entries", "refunds", "telling"),
    [
        ([_entry("re_1", kind="refund")], [_refund("re_1")], []),
        ([], [_refund("re_1")], ["gave back nothing"]),
        ([_entry("re_1", kind="refund")], [_refund("re_1", "failed")], ["but money went back"]),
        ([_entry("re_1", kind="refund")], [], ["which is no refund"]),
        ([], [_refund("re_1", "pending")], ["still pending"]),
    ],
)
def test_refunds_are_compared(entries: Sequence[Entry], refunds: Sequence[Row], telling: Sequence[str]) -> None:
    _told(list(audit.refunds_given(entries, refunds)), telling)


@pytest.mark.parametrize(
    ("status", "refunds", "telling"),
    [
        ("paid", [], []),
        ("void", [_refund("re_1")], []),
        ("void", [], ["in_1 is void, and kept the money"]),
        ("void", [_refund("re_1", amount=99)], ["in_1 is void, and kept the money"]),
        ("void", [_refund("re_1"), _refund("re_2")], ["given back 2 times"]),
    ],
)
def test_money_is_kept_only_for_what_is_paid(status: str, refunds: Sequence[Row], telling: Sequence[str]) -> None:
    found = audit.money_kept([_entry("pa_1")], [_attempt("pa_1")], refunds, [_invoice(status)])
    _told(list(found), telling)


def _told(found: Sequence[str], telling: Sequence[str]) -> None:
    assert len(found) == len(telling), found
    for finding, part in zip(found, telling, strict=True):
        assert part in finding


# --- readers and the ledger


@pytest.mark.parametrize(("positions", "faults"), [((1, 2, 3), 0), ((1, 3), 1), ((1, 1), 1), ((2, 1), 2)])
def test_a_reader_notices_gaps_and_repeats(positions: Sequence[int], faults: int) -> None:
    reader = _read(*positions)
    assert len(reader.faults) == faults


def test_readers_who_saw_other_events_are_told_apart() -> None:
    alike, other = _read(1, 2), _read(1, 2, name="Grace")
    assert audit.readers([alike], _read(1, 2)) == []
    assert audit.readers([other], alike) == ["reader 0 saw another log, up to 2 of 2"]


def _read(*positions: int, name: str = "Ada") -> Reader:
    reader = Reader([], random.Random(0))
    for position in positions:
        customer = Customer(id="cus_1", name=name)
        reader.take(Event(position=position, type="customer.created", object_id="cus_1", customer_object=customer))
    return reader


def test_the_ledger_outlives_its_process_and_notices_other_requests(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "ledger")
    first.enter(_entry("pa_1"))
    first.close()
    second = Ledger(tmp_path / "ledger")
    assert second.enter(_entry("pa_1")) == _entry("pa_1")
    assert second.oddities() == []
    assert second.enter(_entry("pa_1", amount=7)).amount == 100
    second.enter(_entry("pa_1")._replace(request=b"other"))
    assert second.oddities() == ["the charge pa_1 was sent again with other fields"]
    second.close()


async def test_the_gateway_moves_money_once_for_a_key(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    gateway = Gateway(ledger, seed=None)
    request = pb.ChargeRequest(idempotency_key="pa_1", invoice="in_1", attempt=2, amount=5, token="decline,succeed")
    for _ in range(2):
        result = await gateway.Charge(request, None)  # type: ignore[arg-type]  # good manners need no context
        assert result.status == pb.CHARGE_STATUS_SUCCEEDED
    assert [(entry.key, entry.amount, entry.moved) for entry in ledger.entries()] == [("pa_1", 5, True)]
    ledger.close()
