"""The money outside: a bank that survives every crash of the engine, and the scripted gateway that leads to it.

A token says what happens to the charges made with it, one word per attempt of the invoice, the last word for all
that follow: `decline,decline,succeed`. The words are the keys of `WORDS`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from billing_server.domain.commands import ChargeOutcome, RefundOutcome
from billing_server.domain.customer import Card, PaymentMethodType
from billing_server.domain.payment import PaymentError
from billing_server.gateways.port import ChargeRequest, RefundRequest

Passing = Callable[[str], Awaitable[None]]
"""Called at each step of a charge; a test may stop there."""

INSUFFICIENT: Final = PaymentError(code="card_declined", decline_code="insufficient_funds", message="no money")
LOST: Final = PaymentError(code="card_declined", decline_code="lost_card", message="the card is lost")
UNKNOWN: Final = ChargeOutcome(state="unknown")
SLOW_SECONDS: Final = 0.05


class Bank:
    """What really happened to money, by the key of each request."""

    def __init__(self) -> None:
        self.requests: list[ChargeRequest] = []
        self.refund_requests: list[RefundRequest] = []
        self.questions: Counter[str] = Counter()
        self.outcomes: dict[str, ChargeOutcome] = {}
        self.refunds: dict[str, RefundOutcome] = {}
        self.charged: Counter[str] = Counter()
        self.given_back: Counter[str] = Counter()
        self.down = False
        self.arrived = asyncio.Condition()
        self.released = asyncio.Event()
        """Set when charges that hang may go on."""

    def charge(self, request: ChargeRequest, outcome: ChargeOutcome) -> ChargeOutcome:
        """Do it once for its key; a key that comes again is answered as at first."""
        known = self.outcomes.get(request.key)
        if known is not None:
            return known
        self.outcomes[request.key] = outcome
        if outcome.state == "succeeded":
            self.charged[request.key] += request.amount
        return outcome

    def refund(self, request: RefundRequest) -> RefundOutcome:
        """Give back once for the key."""
        known = self.refunds.get(request.key)
        if known is None:
            known = RefundOutcome(state="succeeded", gateway_reference=f"re_{request.key}")
            self.refunds[request.key] = known
            self.given_back[request.charge_key] += request.amount
        return known

    def forget(self, key: str) -> None:
        """Lose a key, as a gateway does after the key's lifetime; the money stays where it went."""
        self.outcomes.pop(key, None)
        self.refunds.pop(key, None)

    @property
    def effects(self) -> int:
        """How many charges moved money."""
        return len(self.charged)


async def _passing(_step: str) -> None:
    """Nobody stops."""


class ScriptedGateway:
    """A `PaymentGateway` on a bank. `passing` is told before each charge's effect and after it."""

    def __init__(self, bank: Bank, passing: Passing = _passing) -> None:
        self.bank = bank
        self._passing = passing
        self.closed = False

    async def charge(self, request: ChargeRequest) -> ChargeOutcome:
        await self._passing("the gateway is asked to charge")
        self.bank.requests.append(request)
        async with self.bank.arrived:
            self.bank.arrived.notify_all()
        if self.bank.down:
            return UNKNOWN
        words = request.token.split(",")
        word = words[min(request.attempt, len(words)) - 1]
        outcome = await WORDS[word](self.bank, request)
        await self._passing("the gateway has charged")
        return outcome

    async def get_charge(self, account_id: str, key: str) -> ChargeOutcome:
        await self._passing("the gateway is asked about a charge")
        self.bank.questions[key] += 1
        if self.bank.down:
            return UNKNOWN
        return self.bank.outcomes.get(key, ChargeOutcome(state="not_found"))

    async def refund(self, request: RefundRequest) -> RefundOutcome:
        await self._passing("the gateway is asked to refund")
        self.bank.refund_requests.append(request)
        if self.bank.down:
            return RefundOutcome(state="unknown")
        outcome = self.bank.refund(request)
        await self._passing("the gateway has refunded")
        return outcome

    async def get_refund(self, account_id: str, key: str) -> RefundOutcome:
        await self._passing("the gateway is asked about a refund")
        self.bank.questions[key] += 1
        if self.bank.down:
            return RefundOutcome(state="unknown")
        return self.bank.refunds.get(key, RefundOutcome(state="not_found"))

    def describe(self, token: str, method_type: PaymentMethodType) -> Card | None:
        return None

    async def close(self) -> None:
        self.closed = True


# --- what a token's words do


def _succeeded(request: ChargeRequest) -> ChargeOutcome:
    return ChargeOutcome(state="succeeded", gateway_reference=f"ch_{request.key}")


async def _succeed(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    return bank.charge(request, _succeeded(request))


async def _decline(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    return bank.charge(request, ChargeOutcome(state="failed", error=INSUFFICIENT))


async def _decline_for_good(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    return bank.charge(request, ChargeOutcome(state="failed", error=LOST))


async def _requires_action(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    if request.authenticated:
        return bank.charge(request, _succeeded(request))
    return bank.charge(request, ChargeOutcome(state="requires_action"))


async def _hang(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    await bank.released.wait()
    return bank.charge(request, _succeeded(request))


async def _effect_then_timeout(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    bank.charge(request, _succeeded(request))
    raise TimeoutError


async def _decline_then_timeout(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    bank.charge(request, ChargeOutcome(state="failed", error=INSUFFICIENT))
    raise TimeoutError


async def _lost(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    """The first request of a key never arrives."""
    if sum(earlier.key == request.key for earlier in bank.requests) == 1:
        raise ConnectionResetError
    return bank.charge(request, _succeeded(request))


async def _slow(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    outcome = bank.charge(request, _succeeded(request))
    await asyncio.sleep(SLOW_SECONDS)
    return outcome


async def _succeed_and_wait(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    outcome = bank.charge(request, _succeeded(request))
    await bank.released.wait()
    return outcome


async def _decline_and_wait(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    outcome = bank.charge(request, ChargeOutcome(state="failed", error=INSUFFICIENT))
    await bank.released.wait()
    return outcome


async def _duplicate(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    bank.charge(request, _succeeded(request))
    return bank.charge(request, _succeeded(request))


async def _not_found(bank: Bank, request: ChargeRequest) -> ChargeOutcome:
    """An answer that no gateway may give to a charge."""
    return ChargeOutcome(state="not_found")


WORDS: Final[dict[str, Callable[[Bank, ChargeRequest], Awaitable[ChargeOutcome]]]] = {
    "succeed": _succeed,
    "decline": _decline,
    "decline_for_good": _decline_for_good,
    "requires_action": _requires_action,
    "hang": _hang,
    "effect_then_timeout": _effect_then_timeout,
    "decline_then_timeout": _decline_then_timeout,
    "lost": _lost,
    "slow": _slow,
    "succeed_and_wait": _succeed_and_wait,
    "decline_and_wait": _decline_and_wait,
    "duplicate": _duplicate,
    "not_found": _not_found,
}


class FreshKeys(ScriptedGateway):
    """A planted bug: each request is made with a key of its own, so that nothing is recognized when it comes again."""

    async def charge(self, request: ChargeRequest) -> ChargeOutcome:
        fresh = f"{request.key}#{len(self.bank.requests)}"
        return await super().charge(msgspec.structs.replace(request, key=fresh))
