"""Stands in for a payment processor, which is what you replace by calls of your own processor's API.

It has what good processors have: it takes an idempotency key, and answers the same for the same key.
What it does is told by the token.
"""

from __future__ import annotations

import asyncio

from billing.gateway.v1.gateway_pb2 import (
    CHARGE_STATUS_FAILED,
    CHARGE_STATUS_REQUIRES_ACTION,
    CHARGE_STATUS_SUCCEEDED,
    REFUND_STATUS_SUCCEEDED,
    ChargeRequest,
    ChargeResult,
    RefundRequest,
    RefundResult,
)

_DECLINES = {
    "demo_declined": ("generic_decline", "the card was declined"),
    "demo_insufficient_funds": ("insufficient_funds", "there is not enough money in the account"),
    "demo_lost_card": ("lost_card", "the card is reported lost"),
}


class Processor:
    """Charges cards, in its imagination. `latency_seconds` is how long it takes for that."""

    def __init__(self, latency_seconds: float = 0.0) -> None:
        self._latency_seconds = latency_seconds

    async def charge(self, key: str, request: ChargeRequest) -> ChargeResult:
        """Charge once for the key."""
        await asyncio.sleep(self._latency_seconds)
        if request.token in _DECLINES:
            decline_code, message = _DECLINES[request.token]
            return ChargeResult(
                status=CHARGE_STATUS_FAILED, code="card_declined", decline_code=decline_code, message=message
            )
        if request.token == "demo_authenticate" and not request.authenticated:  # noqa: S105  it is no secret
            return ChargeResult(status=CHARGE_STATUS_REQUIRES_ACTION)
        return ChargeResult(status=CHARGE_STATUS_SUCCEEDED, reference=f"charge-{key}")

    async def refund(self, key: str, request: RefundRequest) -> RefundResult:
        """Give back money once for the key."""
        await asyncio.sleep(self._latency_seconds)
        return RefundResult(status=REFUND_STATUS_SUCCEEDED, reference=f"refund-{key}-of-{request.charge_reference}")
