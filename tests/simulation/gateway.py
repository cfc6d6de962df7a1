"""A simulated gateway: its ledger is the witness of the money, its answers come late, never, or twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from billing_server.domain.commands import ChargeOutcome, RefundOutcome
from billing_server.domain.payment import PaymentAttempt, PaymentError, Refund
from tests.simulation.plan import Plan

LATENCY_SECONDS: Final = 1
LATE_SECONDS: Final = 40
"""Longer than a call may take, shorter than a lease: the answer finds nobody, or everything settled."""
TIMEOUT_SECONDS: Final = 20

Answer = Callable[[ChargeOutcome | RefundOutcome], None]
At = Callable[[int, Callable[[], None]], None]

UNKNOWN: Final = ChargeOutcome(state="unknown")
UNKNOWN_REFUND: Final = RefundOutcome(state="unknown")


def declined(decline_code: str) -> ChargeOutcome:
    """What the bank says when it does not pay."""
    error = PaymentError(code="card_declined", decline_code=decline_code, message=decline_code)
    return ChargeOutcome(state="failed", error=error)


class SimulatedGateway:
    """Moves money once for a key. `at` makes something happen some seconds from now."""

    def __init__(self, plan: Plan, at: At) -> None:
        self._plan = plan
        self._at = at
        self._calls: Counter[str] = Counter()
        self._deciding: Counter[str] = Counter()
        self.away = False
        self.outcomes: dict[str, ChargeOutcome] = {}
        self.refunds: dict[str, RefundOutcome] = {}
        self.charged: dict[str, PaymentAttempt] = {}
        self.given_back: Counter[str] = Counter()
        self.times: Counter[tuple[str, int]] = Counter()
        """How often money moved for an invoice's attempt."""

    def _fault(self, call: str, key: str) -> str | None:
        self._calls[f"{call}:{key}"] += 1
        if self.away:
            return "request lost"
        about = f"{call}:{key}:{self._calls[f'{call}:{key}']}"
        return self._plan.throw(about, "request lost", "answer lost", "late", "twice", "deciding")

    def charge(self, attempt: PaymentAttempt, answer: Answer) -> None:
        """Charge, and answer some time."""
        key = attempt.id
        if self._plan.plant == "charge-twice" and self._calls[f"charge:{key}"]:
            key += "x"

        def effect() -> None:
            self._deciding[key] -= 1
            self._charge(key, attempt)

        self._ask("charge", key, effect, lambda: self.outcomes[key], UNKNOWN, answer)

    def get_charge(self, key: str, answer: Answer) -> None:
        """Tell what became of a charge."""
        known = self.outcomes.get(key, ChargeOutcome(state="unknown" if self._deciding[key] else "not_found"))
        self._tell("get_charge", key, known, UNKNOWN, answer)

    def refund(self, refund: Refund, answer: Answer) -> None:
        """Give back, and answer some time."""
        key = refund.id

        def effect() -> None:
            self._deciding[key] -= 1
            if key not in self.refunds:
                self.refunds[key] = RefundOutcome(state="succeeded", gateway_reference=f"re_{key}")
                self.given_back[refund.attempt] += refund.amount

        self._ask("refund", key, effect, lambda: self.refunds[key], UNKNOWN_REFUND, answer)

    def get_refund(self, key: str, answer: Answer) -> None:
        """Tell what became of a refund."""
        known = self.refunds.get(key, RefundOutcome(state="unknown" if self._deciding[key] else "not_found"))
        self._tell("get_refund", key, known, UNKNOWN_REFUND, answer)

    def _ask(
        self,
        call: str,
        key: str,
        effect: Callable[[], None],
        outcome: Callable[[], ChargeOutcome | RefundOutcome],
        nothing: ChargeOutcome | RefundOutcome,
        answer: Answer,
    ) -> None:
        fault = self._fault(call, key)
        if fault == "request lost":
            self._at(TIMEOUT_SECONDS, lambda: answer(nothing))
            return
        wait = LATE_SECONDS if fault == "late" else LATENCY_SECONDS
        for _ in range(2 if fault == "twice" else 1):
            self._deciding[key] += 1
            self._at(wait, effect)
        if fault in ("late", "answer lost", "deciding"):
            self._at(TIMEOUT_SECONDS, lambda: answer(nothing))
        if fault not in ("answer lost", "deciding"):
            self._at(wait, lambda: answer(outcome()))
        if fault == "twice":
            self._at(wait + 1, lambda: answer(outcome()))

    def _tell(
        self,
        call: str,
        key: str,
        known: ChargeOutcome | RefundOutcome,
        nothing: ChargeOutcome | RefundOutcome,
        answer: Answer,
    ) -> None:
        fault = self._fault(call, key)
        if fault in ("request lost", "answer lost", "deciding"):
            known = nothing
        self._at(LATENCY_SECONDS, lambda: answer(known))

    def _charge(self, key: str, attempt: PaymentAttempt) -> None:
        if key in self.outcomes:
            return
        self.outcomes[key] = self._decide(key, attempt)
        if self.outcomes[key].state == "succeeded":
            self.charged[key] = attempt
            about = attempt.invoice, attempt.number
            self.times[about] += 1
            assert self.times[about] == 1, f"attempt {attempt.number} of {attempt.invoice} was charged again"

    def _decide(self, key: str, attempt: PaymentAttempt) -> ChargeOutcome:
        told = self._plan.throw(f"card:{key}", "declined", "lost card", "asks")
        if attempt.token == "bad" or told == "declined":
            return declined("insufficient_funds")
        if told == "lost card":
            return declined("lost_card")
        if told == "asks" and not attempt.authenticated:
            return (
                declined("authentication_required") if attempt.off_session else ChargeOutcome(state="requires_action")
            )
        return ChargeOutcome(state="succeeded", gateway_reference=f"ch_{key}")
