"""Requests to begin with, and a memory that counts what goes through it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from billing_server.gateways.port import ChargeRequest, RefundRequest
from billing_server.store.store import Store
from billing_server.store.test_gateway import GatewayRow, RememberedRow


def charge_request(account_id: str, **changes: Any) -> ChargeRequest:
    """A charge that succeeds, with a key of its own."""
    key = f"pa_{uuid.uuid4().hex}"
    request = ChargeRequest(
        account_id=account_id,
        key=key,
        customer="cus_1",
        invoice="in_1",
        attempt=1,
        amount=1999,
        currency="usd",
        token="pm_card_visa",
        off_session=True,
    )
    return msgspec.structs.replace(request, **changes)


def refund_request(charge: ChargeRequest, **changes: Any) -> RefundRequest:
    """A refund of a whole charge, with a key of its own."""
    request = RefundRequest(
        account_id=charge.account_id,
        key=f"re_{uuid.uuid4().hex}",
        charge_key=charge.key,
        charge_reference=None,
        amount=charge.amount,
        currency=charge.currency,
        reason="requested_by_customer",
    )
    return msgspec.structs.replace(request, **changes)


class CountingMemory:
    """The store, with a list of the rows of each statement that wrote charges or refunds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.charge_statements: list[Sequence[GatewayRow]] = []
        self.refund_statements: list[Sequence[GatewayRow]] = []
        self.questions = 0

    async def remember_charges(self, account_id: str, rows: Sequence[GatewayRow]) -> Mapping[str, RememberedRow]:
        self.charge_statements.append(rows)
        return await self._store.remember_charges(account_id, rows)

    async def remember_refunds(self, account_id: str, rows: Sequence[GatewayRow]) -> Mapping[str, RememberedRow]:
        self.refund_statements.append(rows)
        return await self._store.remember_refunds(account_id, rows)

    async def find_charges(self, account_id: str, keys: Sequence[str]) -> Mapping[str, RememberedRow]:
        self.questions += 1
        return await self._store.find_charges(account_id, keys)

    async def find_refunds(self, account_id: str, keys: Sequence[str]) -> Mapping[str, RememberedRow]:
        self.questions += 1
        return await self._store.find_refunds(account_id, keys)


async def times_money_moved(store: Store, account_id: str, *memories: CountingMemory) -> int:
    """How often the charges that were written through some memories took money, by what the database holds."""
    keys = {row.key for memory in memories for rows in memory.charge_statements for row in rows}
    found = await store.find_charges(account_id, sorted(keys))
    return sum(remembered.row.effects for remembered in found.values())
