"""The cashier: asks the payment gateway, outside any transaction, and brings the outcome back (promises 1 to 5)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

from billing_server.domain.commands import ChargeOutcome, Command, RefundOutcome, SettleAttempt, SettleRefund
from billing_server.domain.event import Cause
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.engine.group_commit import GroupCommit
from billing_server.engine.work import Answered, Origin, Work
from billing_server.gateways.port import ChargeRequest, PaymentGateway, RefundRequest
from billing_server.store.errors import StoreError

LOGGER = logging.getLogger(__name__)

GATEWAY_SECONDS_MAX = 30.0
"""How long one question to the gateway may take; shorter than the lease of a charge."""

CONCURRENT_MAX = 512

SETTLE_PAUSES: Final = (0.2, 1.0, 3.0)
"""Seconds between the tries to write an outcome down while the database is away; later its lease ends."""

_GATEWAY = Cause(kind="gateway")
_NO_CHARGE_ANSWER: Final = ChargeOutcome(state="unknown")
_NO_REFUND_ANSWER: Final = RefundOutcome(state="unknown")

Outcome = TypeVar("Outcome", ChargeOutcome, RefundOutcome)


class Cashier:
    """Carries out what decisions have begun: charges and refunds."""

    def __init__(self, gateway: PaymentGateway, group: GroupCommit) -> None:
        self._gateway = gateway
        self._group = group
        self._free = asyncio.Semaphore(CONCURRENT_MAX)
        self.outcomes: dict[str, int] = {}
        self.failures = 0
        """Outcomes that could not be written down; they are asked for again when their leases end."""

    # --- charges

    async def charge(self, account_id: str, attempt: PaymentAttempt, origin: Origin | None = None) -> Answered:
        """Make the charge of a committed attempt and settle it. Whatever the gateway says, it is written down.

        Raises StoreError when it could not be; the attempt's lease then ends, and its outcome is looked up.
        """
        request = _charge_request(account_id, attempt)
        outcome = await self._answer(attempt.id, lambda: self._gateway.charge(request), _NO_CHARGE_ANSWER)
        if outcome.state == "not_found":
            LOGGER.error("the gateway answered not_found to the charge %s, which it was asked to make", attempt.id)
            outcome = _NO_CHARGE_ANSWER
        return await self._settle(account_id, attempt, outcome, origin)

    async def look_up(self, account_id: str, attempt: PaymentAttempt) -> None:
        """Find out what became of a charge whose outcome is unknown, and settle it."""
        key = attempt.id
        outcome = await self._answer(key, lambda: self._gateway.get_charge(account_id, key), _NO_CHARGE_ANSWER)
        await self._settle(account_id, attempt, outcome, None)

    async def _settle(
        self, account_id: str, attempt: PaymentAttempt, outcome: ChargeOutcome, origin: Origin | None
    ) -> Answered:
        """Write an outcome down, then make the charges and refunds that follow from it."""
        self.outcomes[outcome.state] = self.outcomes.get(outcome.state, 0) + 1
        command = SettleAttempt(
            customer=attempt.customer,
            invoice=attempt.invoice,
            subscription=attempt.subscription,
            attempt=attempt.id,
            outcome=outcome,
        )
        answered = await self._submit(account_id, command, origin)
        await self._follow(account_id, answered)
        return answered

    # --- refunds

    async def refund(self, account_id: str, refund: Refund, origin: Origin | None = None) -> Answered:
        """Make a committed refund and settle it. Raises StoreError, as `charge` does."""
        request = _refund_request(account_id, refund)
        outcome = await self._answer(refund.id, lambda: self._gateway.refund(request), _NO_REFUND_ANSWER)
        if outcome.state == "not_found":
            LOGGER.error("the gateway answered not_found to the refund %s, which it was asked to make", refund.id)
            outcome = _NO_REFUND_ANSWER
        return await self._settle_refund(account_id, refund, outcome, origin)

    async def look_up_refund(self, account_id: str, refund: Refund) -> None:
        """Find out what became of a refund whose outcome is unknown, and settle it."""
        key = refund.id
        outcome = await self._answer(key, lambda: self._gateway.get_refund(account_id, key), _NO_REFUND_ANSWER)
        await self._settle_refund(account_id, refund, outcome, None)

    async def _settle_refund(
        self, account_id: str, refund: Refund, outcome: RefundOutcome, origin: Origin | None
    ) -> Answered:
        command = SettleRefund(customer=refund.customer, invoice=refund.invoice, refund=refund.id, outcome=outcome)
        answered = await self._submit(account_id, command, origin)
        await self._follow(account_id, answered)
        return answered

    # --- both

    async def carry_out(
        self, account_id: str, charges: Iterable[PaymentAttempt], refunds: Iterable[Refund] = ()
    ) -> None:
        """Make all these charges and refunds, side by side, and settle them.

        One that fails harms no other. Raises StoreError when outcomes could not be written down, after all ended.
        """
        await self._side_by_side(
            *(self.charge(account_id, attempt) for attempt in charges),
            *(self.refund(account_id, refund) for refund in refunds),
        )

    async def look_up_all(self, account_id: str, charges: Iterable[PaymentAttempt], refunds: Iterable[Refund]) -> None:
        """Find out what became of all these charges and refunds; fails as `carry_out` does."""
        await self._side_by_side(
            *(self.look_up(account_id, attempt) for attempt in charges),
            *(self.look_up_refund(account_id, refund) for refund in refunds),
        )

    async def _side_by_side(self, *works: Coroutine[Any, Any, object]) -> None:
        results = await asyncio.gather(*works, return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        for failure in failures:
            self.failures += 1
            LOGGER.error("an outcome was not written down; it is asked for again: %r", failure)
        for failure in failures:
            if isinstance(failure, StoreError):
                raise failure

    async def _follow(self, account_id: str, settled: Answered) -> None:
        """Make what follows from a settlement; whether that works changes nothing about the settlement itself."""
        if settled.charges or settled.refunds:
            with contextlib.suppress(StoreError):
                await self.carry_out(account_id, settled.charges, settled.refunds)

    async def _submit(self, account_id: str, command: Command, origin: Origin | None) -> Answered:
        """Have an outcome written down; it is known only here, so a database that is away is waited for."""
        for pause in SETTLE_PAUSES:
            try:
                return await self._group.submit(account_id, _settlement(command, origin))
            except StoreError as error:
                LOGGER.warning("an outcome could not be written down yet: %s", error)
                await asyncio.sleep(pause)
        return await self._group.submit(account_id, _settlement(command, origin))

    async def _answer(self, about: str, ask: Callable[[], Awaitable[Outcome]], no_answer: Outcome) -> Outcome:
        """What the gateway says; whatever goes wrong, money may have moved: unknown, never failed (promise 2)."""
        try:
            async with self._free, asyncio.timeout(GATEWAY_SECONDS_MAX):
                return await ask()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            LOGGER.warning("the gateway broke off its answer about %s", about)
        except Exception as error:  # noqa: BLE001  # no answer is no outcome; it is asked for again later
            LOGGER.warning("the gateway did not answer about %s: %r", about, error)
        return no_answer


def _settlement(command: Command, origin: Origin | None) -> Work:
    return Work(command, _GATEWAY, asyncio.get_running_loop().create_future(), origin=origin)


def _charge_request(account_id: str, attempt: PaymentAttempt) -> ChargeRequest:
    return ChargeRequest(
        account_id=account_id,
        key=attempt.id,
        customer=attempt.customer,
        invoice=attempt.invoice,
        attempt=attempt.number,
        amount=attempt.amount,
        currency=attempt.currency,
        token=attempt.token or "",
        off_session=attempt.off_session,
        authenticated=attempt.authenticated,
        statement_descriptor=attempt.statement_descriptor,
    )


def _refund_request(account_id: str, refund: Refund) -> RefundRequest:
    return RefundRequest(
        account_id=account_id,
        key=refund.id,
        charge_key=refund.attempt,
        charge_reference=refund.charge_reference,
        amount=refund.amount,
        currency=refund.currency,
        reason=refund.reason,
    )
