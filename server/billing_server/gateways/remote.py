"""The user's own payment gateway: a client of `billing.gateway.v1.PaymentGateway`.

How gRPC's statuses are read:

    OK                  what the result says; not decided, unspecified or unknown to us: `unknown`
    INVALID_ARGUMENT    on Charge and Refund: this request is refused, no money moved and none will: `failed`
    NOT_FOUND           on GetCharge and GetRefund: `not_found`
    all others          `unknown`

UNAUTHENTICATED, PERMISSION_DENIED and their like also mean that no money moved, most probably. They are a
mistake in how the two services are set up, though, not a fault of the customers: as `unknown` their charges are
made after the mistake is mended, while as `failed` every customer would be dunned for it.

A call is never sent a second time from here; whether that is safe is for the engine to decide, after asking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, NoReturn, TypeVar

import grpc
import msgspec

from billing.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from billing_server.domain.commands import ChargeOutcome, RefundOutcome
from billing_server.domain.customer import Card, PaymentMethodType
from billing_server.domain.errors import invalid
from billing_server.domain.payment import PaymentError
from billing_server.gateways.port import ChargeRequest, RefundRequest

TIMEOUT_SECONDS: Final = 20.0
"""How long a call may take. Well below the lease of an attempt, so that nobody asks about it meanwhile."""

TOKEN_CHARACTERS_MAX: Final = 500
_TEXT_CHARACTERS_MAX: Final = 500
_MESSAGE_BYTES_MAX: Final = 64 * 1024

_CODES: Final = frozenset(
    {
        "card_declined",
        "expired_card",
        "incorrect_cvc",
        "incorrect_number",
        "processing_error",
        "authentication_required",
    }
)
"""The codes that the contract knows. Any other is a decline, and tells what the issuer said."""

_OPTIONS: Final = (
    # Neither the library nor what DNS says may send a charge again.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    # A gateway that was restarted is found again within seconds, not minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)

_log = logging.getLogger(__name__)
Message = TypeVar("Message")


class GatewayTls(msgspec.Struct, frozen=True, kw_only=True):
    """How the gateway proves itself, and the engine to it; PEM. None: the system's authorities, no certificate."""

    authorities: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None


class RemoteGateway:
    """A `PaymentGateway` at HOST:PORT, over TLS or, without `tls`, in plaintext. Make it in a running loop."""

    def __init__(self, target: str, *, timeout_seconds: float = TIMEOUT_SECONDS, tls: GatewayTls | None = None) -> None:
        self._target = target
        self._timeout_seconds = timeout_seconds
        self._channel = _open(target, tls)
        self._stub = gateway_pb2_grpc.PaymentGatewayStub(self._channel)

    async def charge(self, request: ChargeRequest) -> ChargeOutcome:
        """Have the charge made, once for its key."""
        call = self._stub.Charge(_charge_message(request), timeout=self._timeout_seconds)
        try:
            result = await _received(call)
        except grpc.aio.AioRpcError as error:
            return self._refused_charge(error, request.key)
        return _charge_outcome(result, off_session=request.off_session)

    async def get_charge(self, account_id: str, key: str) -> ChargeOutcome:
        """Ask what became of a charge."""
        message = gateway_pb2.GetChargeRequest(idempotency_key=key, account=account_id)
        try:
            result = await _received(self._stub.GetCharge(message, timeout=self._timeout_seconds))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return ChargeOutcome(state="not_found")
            self._note("GetCharge", key, error)
            return ChargeOutcome(state="unknown")
        return _charge_outcome(result, off_session=False)

    async def refund(self, request: RefundRequest) -> RefundOutcome:
        """Have money given back, once for the request's key."""
        call = self._stub.Refund(_refund_message(request), timeout=self._timeout_seconds)
        try:
            return _refund_outcome(await _received(call))
        except grpc.aio.AioRpcError as error:
            self._note("Refund", request.key, error)
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                return RefundOutcome(state="unknown")
            reason = _text(error.details()) or "the payment gateway refused the refund"
            return RefundOutcome(state="failed", failure_message=reason)

    async def get_refund(self, account_id: str, key: str) -> RefundOutcome:
        """Ask what became of a refund."""
        message = gateway_pb2.GetRefundRequest(idempotency_key=key, account=account_id)
        try:
            return _refund_outcome(await _received(self._stub.GetRefund(message, timeout=self._timeout_seconds)))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return RefundOutcome(state="not_found")
            self._note("GetRefund", key, error)
            return RefundOutcome(state="unknown")

    def describe(self, token: str, method_type: PaymentMethodType) -> Card | None:  # noqa: ARG002  the port's
        """None: only the gateway knows its tokens. Raises InvalidArgument for what cannot be one."""
        if not token or len(token) > TOKEN_CHARACTERS_MAX or not token.isprintable():
            raise invalid(
                "token",
                "parameter_invalid",
                f"a token has 1 to {TOKEN_CHARACTERS_MAX} printable characters; send the one that your payment "
                "gateway knows the payment method by",
            )
        return None

    async def close(self) -> None:
        """Give calls under way their time, then close the connection: what is not answered by then is `unknown`."""
        await self._channel.close(grace=self._timeout_seconds)

    def _refused_charge(self, error: grpc.aio.AioRpcError, key: str) -> ChargeOutcome:
        self._note("Charge", key, error)
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            return ChargeOutcome(state="unknown")
        reason = _text(error.details()) or "the payment gateway refused the charge"
        refusal = PaymentError(type="api_error", code="processing_error", message=reason)
        return ChargeOutcome(state="failed", error=refusal)

    def _note(self, method: str, key: str, error: grpc.aio.AioRpcError) -> None:
        _log.warning(
            "%s of %s at the payment gateway %s: %s %s",
            method,
            key,
            self._target,
            error.code().name,
            _text(error.details()),
        )


def _open(target: str, tls: GatewayTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.certificate)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


async def _received(call: Awaitable[Message]) -> Message:
    """The answer of a call. A call that the closing channel canceled is told apart from our being canceled."""
    task = asyncio.current_task()
    try:
        return await call
    except asyncio.CancelledError:
        if task is not None and task.cancelling():
            raise
        _fail_canceled()


def _fail_canceled() -> NoReturn:
    raise grpc.aio.AioRpcError(
        grpc.StatusCode.CANCELLED, grpc.aio.Metadata(), grpc.aio.Metadata(), "the connection was closed"
    )


def _charge_message(request: ChargeRequest) -> gateway_pb2.ChargeRequest:
    return gateway_pb2.ChargeRequest(
        idempotency_key=request.key,
        account=request.account_id,
        customer=request.customer,
        invoice=request.invoice,
        attempt=request.attempt,
        amount=request.amount,
        currency=request.currency,
        token=request.token,
        off_session=request.off_session,
        statement_descriptor=request.statement_descriptor or "",
        metadata=request.metadata,
        authenticated=request.authenticated,
    )


def _refund_message(request: RefundRequest) -> gateway_pb2.RefundRequest:
    """A gateway that gave its charge no name is taken to know it by the key."""
    return gateway_pb2.RefundRequest(
        idempotency_key=request.key,
        account=request.account_id,
        charge_reference=request.charge_reference or request.charge_key,
        amount=request.amount,
        currency=request.currency,
        reason=request.reason,
        metadata=request.metadata,
    )


def _charge_outcome(result: gateway_pb2.ChargeResult, *, off_session: bool) -> ChargeOutcome:
    reference = result.reference or None
    match result.status:
        case gateway_pb2.CHARGE_STATUS_SUCCEEDED:
            return ChargeOutcome(state="succeeded", gateway_reference=reference)
        case gateway_pb2.CHARGE_STATUS_FAILED:
            return ChargeOutcome(state="failed", error=_decline(result), gateway_reference=reference)
        case gateway_pb2.CHARGE_STATUS_REQUIRES_ACTION:
            # Without the customer it is a decline like any other, of the kind that a retry cannot mend.
            told = bool(result.code or result.decline_code)
            error = _authentication_error(result) if off_session or told else None
            return ChargeOutcome(state="requires_action", error=error, gateway_reference=reference)
        case _:
            return ChargeOutcome(state="unknown", gateway_reference=reference)


def _decline(result: gateway_pb2.ChargeResult) -> PaymentError:
    code, decline_code = _text(result.code), _text(result.decline_code)
    if code not in _CODES:
        code, decline_code = "card_declined", decline_code or code
    message = _text(result.message) or "the payment gateway declined the charge"
    return PaymentError(code=code, decline_code=decline_code, message=message)


def _authentication_error(result: gateway_pb2.ChargeResult) -> PaymentError:
    return PaymentError(
        code="authentication_required",
        decline_code="authentication_required",
        message=_text(result.message) or "the customer has to authenticate the payment",
    )


def _refund_outcome(result: gateway_pb2.RefundResult) -> RefundOutcome:
    reference = result.reference or None
    match result.status:
        case gateway_pb2.REFUND_STATUS_SUCCEEDED:
            return RefundOutcome(state="succeeded", gateway_reference=reference)
        case gateway_pb2.REFUND_STATUS_FAILED:
            message = _text(result.message) or "the payment gateway could not give the money back"
            return RefundOutcome(state="failed", gateway_reference=reference, failure_message=message)
        case _:
            return RefundOutcome(state="unknown", gateway_reference=reference)


def _text(text: str | None) -> str | None:
    """A gateway's words, short and without what a database cannot keep; None for none."""
    return (text or "").replace("\0", "")[:_TEXT_CHARACTERS_MAX] or None
