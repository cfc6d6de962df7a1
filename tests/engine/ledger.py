"""The audit: what the bank did against what the engine believes, for all attempts and invoices of a world."""

from __future__ import annotations

from collections import Counter

from billing_server.domain.payment import UNRESOLVED
from billing_server.engine.engine import Engine
from tests.engine.world import World


async def audit(world: World, engine: Engine, *, all_settled: bool = True) -> None:
    """Check promises 1, 2, 4 and 18 for the whole account. Raises AssertionError."""
    bank = world.bank
    attempts = {attempt.id: attempt for attempt in await world.attempts(engine)}
    for key, amount in bank.charged.items():
        assert key in attempts, f"money moved under {key}, which is no attempt"
        assert amount == attempts[key].amount, f"attempt {key} moved {amount} instead of {attempts[key].amount}"
    for attempt in attempts.values():
        if attempt.state == "succeeded":
            assert attempt.id in bank.charged, f"attempt {attempt.id} succeeded without an effect"
        elif attempt.state not in UNRESOLVED:
            assert attempt.id not in bank.charged, f"attempt {attempt.id} is {attempt.state}, but money moved"
        elif all_settled:
            raise AssertionError(f"attempt {attempt.id} is still {attempt.state}")
    _audit_numbers(Counter((attempt.invoice, attempt.number) for attempt in attempts.values()))
    given_back, too_late = Counter[str](), Counter[str]()
    for refund in await world.refunds(engine):
        assert not all_settled or refund.status in ("succeeded", "failed"), f"refund {refund.id} is {refund.status}"
        if refund.status == "succeeded":
            given_back[refund.attempt] += refund.amount
            too_late[refund.attempt] += refund.amount if refund.reason == "late_payment" else 0
    assert not all_settled or given_back == bank.given_back, "refunds differ from what the bank gave back"
    for invoice in await world.invoices(engine):
        kept = sum(bank.charged[i.id] - too_late[i.id] for i in attempts.values() if i.invoice == invoice.id)
        if invoice.status == "paid" and not invoice.paid_out_of_band and invoice.amount_due:
            assert kept == invoice.amount_paid or not all_settled, f"{invoice.id}: kept {kept} of {invoice.amount_paid}"
            assert kept <= invoice.amount_paid, f"invoice {invoice.id} was paid {kept}, not {invoice.amount_paid}"
        elif all_settled:
            assert kept == 0, f"invoice {invoice.id} is {invoice.status}, but {kept} were kept for it"
    await audit_events(world, engine)


def _audit_numbers(numbers: Counter[tuple[str, int]]) -> None:
    repeated = [number for number, times in numbers.items() if times > 1]
    assert not repeated, f"attempts with the same number: {repeated}"


async def audit_events(world: World, engine: Engine) -> None:
    """Positions are dense, from the first to the head."""
    events = await world.events(engine)
    positions = [event.position for event in events]
    assert positions == list(range(1, len(events) + 1)), "the positions of events are not dense"
