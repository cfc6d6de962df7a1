"""A payment gateway whose answers are held back until a test lets them go, however long it takes to get there."""

from __future__ import annotations

import asyncio

import pytest

from billing_server.bootstrap import Server
from billing_server.domain.commands import ChargeOutcome
from billing_server.gateways.port import ChargeRequest


class HeldAnswers:
    """What a server's gateway was asked to charge, and has charged, without having said so yet."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.customers: list[str] = []
        self._asked = asyncio.Condition()
        self._released = asyncio.Event()
        self._charge = server.engine.gateway.charge
        monkeypatch.setattr(server.engine.gateway, "charge", self._held)

    async def _held(self, request: ChargeRequest) -> ChargeOutcome:
        outcome = await self._charge(request)
        async with self._asked:
            self.customers.append(request.customer)
            self._asked.notify_all()
        await self._released.wait()
        return outcome

    async def until_charged(self, customer: str) -> None:
        """Wait until a customer has been charged."""
        async with asyncio.timeout(60), self._asked:
            await self._asked.wait_for(lambda: customer in self.customers)

    def release(self) -> None:
        """Answer, now and from now on."""
        self._released.set()
