"""The service: each request is written down, handed to the processor once, and answered alike ever after."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from billing.gateway.v1.gateway_pb2 import (
    CHARGE_STATUS_PROCESSING,
    CHARGE_STATUS_SUCCEEDED,
    REFUND_STATUS_FAILED,
    REFUND_STATUS_PROCESSING,
    ChargeRequest,
    ChargeResult,
    GetChargeRequest,
    GetRefundRequest,
    RefundRequest,
    RefundResult,
)
from billing.gateway.v1.gateway_pb2_grpc import PaymentGatewayServicer
from examples.payment_gateway.journal import Entry, Journal, Kind
from examples.payment_gateway.processor import Processor

Context = grpc.aio.ServicerContext[Any, Any]


class ExampleGateway(PaymentGatewayServicer):
    """A `PaymentGateway` that keeps the duties which its contract lists."""

    def __init__(self, journal: Journal, processor: Processor) -> None:
        self._journal = journal
        self._processor = processor
        self._under_way: dict[tuple[Kind, str, str], asyncio.Task[bytes]] = {}
        self._refunding = asyncio.Lock()

    def resume(self) -> None:
        """Finish what a crash interrupted. The processor has the keys, so nothing happens twice."""
        for entry in self._journal.undecided():
            self._decide(entry)

    async def drain(self) -> None:
        """Let the processor finish what it has begun."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()))

    async def Charge(self, request: ChargeRequest, context: Context) -> ChargeResult:  # noqa: N802  the contract's name
        """Charge once for the key."""
        if not (request.idempotency_key and request.token and request.amount > 0):
            await _refuse(context, "idempotency_key and token must not be empty, and amount must be above zero")
        entry = await self._begin("charge", request.account, request.idempotency_key, request, None, context)
        return ChargeResult.FromString(await self._decided(entry))

    async def GetCharge(self, request: GetChargeRequest, context: Context) -> ChargeResult:  # noqa: N802  the contract's name
        """Tell what became of a charge."""
        entry = await self._known("charge", request.account, request.idempotency_key, context)
        if entry.result is None:
            self._decide(entry)
            return ChargeResult(status=CHARGE_STATUS_PROCESSING)
        return ChargeResult.FromString(entry.result)

    async def Refund(self, request: RefundRequest, context: Context) -> RefundResult:  # noqa: N802  the contract's name
        """Give money back once for the key."""
        if not (request.idempotency_key and request.charge_reference and request.amount > 0):
            await _refuse(
                context, "idempotency_key and charge_reference must not be empty, and amount must be above zero"
            )
        reference = request.charge_reference
        entry = await self._begin("refund", request.account, request.idempotency_key, request, reference, context)
        return RefundResult.FromString(await self._decided(entry))

    async def GetRefund(self, request: GetRefundRequest, context: Context) -> RefundResult:  # noqa: N802  the contract's name
        """Tell what became of a refund."""
        entry = await self._known("refund", request.account, request.idempotency_key, context)
        if entry.result is None:
            self._decide(entry)
            return RefundResult(status=REFUND_STATUS_PROCESSING)
        return RefundResult.FromString(entry.result)

    async def _begin(
        self,
        kind: Kind,
        account: str,
        key: str,
        request: Message,
        charge_reference: str | None,
        context: Context,
    ) -> Entry:
        """Write the request down before anything happens. A key may not come back with another request."""
        written = request.SerializeToString(deterministic=True)
        entry = self._journal.begin(kind, account, key, written, charge_reference)
        if entry.request != written:
            # Not INVALID_ARGUMENT: that would say that no money moved, and for this key it may have.
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"the key {key} was used for another {kind}")
        return entry

    async def _known(self, kind: Kind, account: str, key: str, context: Context) -> Entry:
        entry = self._journal.find(kind, account, key)
        if entry is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {kind} with the key {key}")
        return entry

    async def _decided(self, entry: Entry) -> bytes:
        """The result; the same for all who wait. One who goes away leaves the work, and the others, in peace."""
        return entry.result if entry.result is not None else await asyncio.shield(self._decide(entry))

    def _decide(self, entry: Entry) -> asyncio.Task[bytes]:
        name = (entry.kind, entry.account, entry.key)
        if name not in self._under_way:
            task = asyncio.create_task(self._ask_processor(entry))
            self._under_way[name] = task
            task.add_done_callback(lambda _: self._under_way.pop(name))
        return self._under_way[name]

    async def _ask_processor(self, entry: Entry) -> bytes:
        if entry.kind == "charge":
            charge = await self._processor.charge(entry.key, ChargeRequest.FromString(entry.request))
            return self._finish(entry, charge, charge.reference)
        request = RefundRequest.FromString(entry.request)
        # One refund at a time, so that two of them cannot both take what is left.
        async with self._refunding:
            refusal = self._refusal(entry.account, request)
            if refusal is None:
                result = await self._processor.refund(entry.key, request)
            else:
                result = RefundResult(status=REFUND_STATUS_FAILED, message=refusal)
            return self._finish(entry, result, request.charge_reference)

    def _finish(self, entry: Entry, result: ChargeResult | RefundResult, charge_reference: str) -> bytes:
        written = result.SerializeToString(deterministic=True)
        self._journal.finish(entry, written, charge_reference or None)
        return written

    def _refusal(self, account: str, request: RefundRequest) -> str | None:
        """Why a refund cannot be: there is no such charge, or less than that is left of it."""
        left, currency = 0, ""
        for entry in self._journal.of_charge(account, request.charge_reference):
            if entry.result is None:
                continue
            if entry.kind == "charge":
                charge = ChargeRequest.FromString(entry.request)
                charged = ChargeResult.FromString(entry.result).status == CHARGE_STATUS_SUCCEEDED
                left, currency = left + (charge.amount if charged else 0), charge.currency
            elif RefundResult.FromString(entry.result).status != REFUND_STATUS_FAILED:
                left -= RefundRequest.FromString(entry.request).amount
        if currency != request.currency:
            return "there is no charge of this reference and currency"
        return None if request.amount <= left else f"only {left} is left of the charge"


async def _refuse(context: Context, reason: str) -> NoReturn:
    """The request can never succeed as it is, and no money moves for it."""
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)
