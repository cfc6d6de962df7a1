"""The cashier: asks the payment gateway, outside any transaction, and brings the outcome back (promises 1 to 5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from billing_server.domain.commands import ChargeOutcome, Command, RefundOutcome, SettleAttempt, SettleRefund
from billing_server.domain.event import Cause
from billing_server.domain.payment import PaymentAttempt, Refund
from billing_server.engine.group_commit import GroupCommit
from billing_server.engine.work import Answered, Origin, Work
from billing_server.gateways.port import ChargeRequest, PaymentGateway, RefundRequest

LOGGER = logging.getLogger(__name__)

GATEWAY_SECONDS_MAX = 30.0
"""How long one question to the gateway may take; shorter than the lease of a charge."""

CONCURRENT_MAX = 512

_GATEWAY = Cause(kind="gateway")


class Cashier:
    """Carries out what decisions have begun: charges and refunds."""

    def __init__(self, gateway: PaymentGateway, group: GroupCommit) -> None:
        self._gateway = gateway
        self._group = group
        self._free = asyncio.Semaphore(CONCURRENT_MAX)
        self.outcomes: dict[str, int] = {}

    async def charge(self, account_id: str, attempt: PaymentAttempt, origin: Origin | None = None) -> Answered:
        """Make the charge of a committed attempt and settle it. Whatever the gateway says first, it ends settled."""
        while True:
            outcome = await self._ask_to_charge(account_id, attempt)
            answered = await self._settle(account_id, attempt, outcome, origin)
            again = [charge for charge in answered.charges if charge.id == attempt.id]
            if not again:
                return answered

    async def look_up(self, account_id: str, attempt: PaymentAttempt) -> None:
        """Find out what became of a charge whose outcome is unknown, and settle it."""
        outcome = await self._ask_about(account_id, attempt)
        answered = await self._settle(account_id, attempt, outcome, None)
        for charge in answered.charges:
            await self.charge(account_id, charge)
        for refund in answered.refunds:
            await self.refund(account_id, refund)

    async def _settle(
        self, account_id: str, attempt: PaymentAttempt, outcome: ChargeOutcome, origin: Origin | None
    ) -> Answered:
        self.outcomes[outcome.state] = self.outcomes.get(outcome.state, 0) + 1
        command = SettleAttempt(
            customer=attempt.customer,
            invoice=attempt.invoice,
            subscription=attempt.subscription,
            attempt=attempt.id,
            outcome=outcome,
        )
        answered = await self._submit(account_id, command, origin)
        for refund in answered.refunds:
            await self.refund(account_id, refund)
        return answered

    async def _submit(self, account_id: str, command: Command, origin: Origin | None = None) -> Answered:
        promise: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        return await self._group.submit(account_id, Work(command, _GATEWAY, promise, origin=origin))

    async def _ask_to_charge(self, account_id: str, attempt: PaymentAttempt) -> ChargeOutcome:
        request = ChargeRequest(
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
        try:
            async with self._free, asyncio.timeout(GATEWAY_SECONDS_MAX):
                return await self._gateway.charge(request)
        except Exception as error:  # noqa: BLE001  # whatever went wrong, money may have moved: unknown, never failed
            LOGGER.warning("the outcome of charge %s is unknown: %r", attempt.id, error)
            return ChargeOutcome(state="unknown")

    async def _ask_about(self, account_id: str, attempt: PaymentAttempt) -> ChargeOutcome:
        try:
            async with self._free, asyncio.timeout(GATEWAY_SECONDS_MAX):
                return await self._gateway.get_charge(account_id, attempt.id)
        except Exception as error:  # noqa: BLE001  # no answer is no outcome; it is asked again later
            LOGGER.warning("the gateway did not tell of charge %s: %r", attempt.id, error)
            return ChargeOutcome(state="unknown")

    # --- refunds

    async def refund(self, account_id: str, refund: Refund, *, ask_only: bool = False) -> Answered:
        """Make a committed refund, or only ask what became of it, and settle it."""
        while True:
            outcome = await self._ask_for_refund(account_id, refund, ask_only=ask_only)
            command = SettleRefund(
                customer=refund.customer,
                invoice=refund.invoice,
                refund=refund.id,
                outcome=outcome,
            )
            answered = await self._submit(account_id, command)
            if not answered.refunds:
                return answered
            ask_only = False

    async def _ask_for_refund(self, account_id: str, refund: Refund, *, ask_only: bool) -> RefundOutcome:
        request = RefundRequest(
            account_id=account_id,
            key=refund.id,
            charge_key=refund.attempt,
            charge_reference=refund.charge_reference,
            amount=refund.amount,
            currency=refund.currency,
            reason=refund.reason,
        )
        try:
            async with self._free, asyncio.timeout(GATEWAY_SECONDS_MAX):
                if ask_only:
                    return await self._gateway.get_refund(account_id, refund.id)
                return await self._gateway.refund(request)
        except Exception as error:  # noqa: BLE001  # no answer is no outcome; it is asked again later
            LOGGER.warning("the outcome of refund %s is unknown: %r", refund.id, error)
            return RefundOutcome(state="unknown")

    async def carry_out(
        self, account_id: str, charges: Iterable[PaymentAttempt], refunds: Iterable[Refund] = ()
    ) -> None:
        """Make all these charges and refunds, side by side, and settle them."""
        async with asyncio.TaskGroup() as tasks:
            for attempt in charges:
                tasks.create_task(self.charge(account_id, attempt))
            for refund in refunds:
                tasks.create_task(self.refund(account_id, refund))
