"""Every way in which a call can fail, as one tree.

    BillingError
    ├── ConnectionFailed     the server is away, starting or draining             UNAVAILABLE, CANCELLED
    ├── DeadlineExceeded     no answer in time: nothing is known of the outcome   DEADLINE_EXCEEDED
    ├── Unauthenticated      the API key does not work                            UNAUTHENTICATED
    │   └── ApiKeyMissing    this client has no key to send
    ├── PermissionDenied     the key lacks a scope                                PERMISSION_DENIED
    ├── NotFound             the account has no such object                       NOT_FOUND
    ├── AlreadyExists        a name, key or prefix is taken                       ALREADY_EXISTS
    ├── InvalidArgument      the request can never succeed as it is               INVALID_ARGUMENT
    ├── WrongState           the object's state forbids it now                    FAILED_PRECONDITION
    │   └── PaymentFailed    the customer's money did not come in
    ├── Conflict             somebody else was faster, or is at work              ABORTED
    ├── LimitReached         too much for now, or for good                        RESOURCE_EXHAUSTED
    ├── PositionOutOfRange   events older, or newer, than those there are         OUT_OF_RANGE
    ├── ClockStuck           a test clock could not bring a customer forward
    ├── Unsupported          the server does not know the method                  UNIMPLEMENTED
    └── ServerFailed         the engine or the transport broke                    INTERNAL and all others

`from_rpc_error` decodes each from the google.rpc.Status that comes with a refusal of the engine. A failure
without one happened on the way, and its `reason` is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from billing.v1 import errors_pb2, options_pb2

ERROR_DOMAIN = "billing.v1"
"""The `domain` of ErrorInfo in refusals of the engine."""

_REASON_PREFIX = "ERROR_REASON_"

_PAYMENT_REASONS = frozenset(
    {
        "CARD_DECLINED",
        "EXPIRED_CARD",
        "INCORRECT_CVC",
        "INCORRECT_NUMBER",
        "PROCESSING_ERROR",
        "AUTHENTICATION_REQUIRED",
        "PAYMENT_OUTCOME_UNKNOWN",
    }
)


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with a request: the path of the field, the reason, and the rule with its way out."""

    field: str
    reason: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is known of a failed call. `BillingError` shows its parts under the same names."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Violation, ...] = ()
    resource: str = ""
    retry_after_seconds: float | None = None
    request_id: str = ""


class BillingError(Exception):
    """A call failed. `str()` of it is one line for people.

    code: the gRPC status code.
    reason: the ErrorReason of the contract without its prefix, such as "CARD_DECLINED"; "" without details.
    message: what the server said.
    violations: every field that is wrong, for InvalidArgument and some others.
    resource: id of the object in the way or missing, if the server named one.
    retry_after_seconds: when a retry makes sense, if the server said so.
    metadata: further facts of ErrorInfo.
    request_id: under which the server's log knows the call, if it said so.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal
        self.code = refusal.code
        self.reason = refusal.reason
        self.message = refusal.message
        self.violations = refusal.violations
        self.resource = refusal.resource
        self.retry_after_seconds = refusal.retry_after_seconds
        self.metadata = refusal.metadata
        self.request_id = refusal.request_id

    @property
    def way_out(self) -> str:
        """What the contract says can be done about the reason; "" when there is none."""
        return way_out(self.reason)

    def __str__(self) -> str:
        return self.message or self.code.name


class ConnectionFailed(BillingError):
    """The server could not be reached, went away, or has no database at the moment."""


class DeadlineExceeded(BillingError):
    """No answer came in time. Whether the request was carried out is not known: repeat it with the same
    idempotency key to find out."""


class Unauthenticated(BillingError):
    """The API key is unknown or revoked."""


class ApiKeyMissing(Unauthenticated):
    """No API key was given, and none was found."""


class PermissionDenied(BillingError):
    """The API key lacks the scope that the method needs."""


class NotFound(BillingError):
    """The account has no object with this id."""


class AlreadyExists(BillingError):
    """A name, key or prefix is taken."""


class InvalidArgument(BillingError):
    """The request breaks rules whatever the state is; `violations` names all of them."""


class WrongState(BillingError):
    """The state of an object forbids the request now."""


class PaymentFailed(WrongState):
    """The money did not come in. `decline_code` is the issuer's word, such as "insufficient_funds", or ""."""

    @property
    def decline_code(self) -> str:
        """The word of the card's issuer; empty when it said nothing."""
        return self.metadata.get("decline_code", "")


class Conflict(BillingError):
    """Somebody else changed the object, or is at work on it."""


class LimitReached(BillingError):
    """A bound was reached, for the moment when `retry_after_seconds` is set."""


class PositionOutOfRange(BillingError):
    """The events after this position are not kept any more, or the position lies ahead of the log."""


class ClockStuck(BillingError):
    """A test clock could not bring a customer forward; advance it again to retry."""


class Unsupported(BillingError):
    """The server does not know the method: it is older than this client, or no billing engine."""


class ServerFailed(BillingError):
    """The engine, or the connection, broke in a way that has no better name."""


_CLASSES: Mapping[grpc.StatusCode, type[BillingError]] = {
    grpc.StatusCode.UNAVAILABLE: ConnectionFailed,
    grpc.StatusCode.CANCELLED: ConnectionFailed,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.FAILED_PRECONDITION: WrongState,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitReached,
    grpc.StatusCode.OUT_OF_RANGE: PositionOutOfRange,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> BillingError:
    """Decode a failed call into the error of the tree that fits."""
    return from_refusal(_decode(error))


def from_refusal(refusal: Refusal) -> BillingError:
    """The error of the tree that fits what is known of a failed call."""
    if refusal.code is grpc.StatusCode.FAILED_PRECONDITION and refusal.reason in _PAYMENT_REASONS:
        return PaymentFailed(refusal)
    return _CLASSES.get(refusal.code, ServerFailed)(refusal)


def way_out(reason: str) -> str:
    """What the contract says a caller can do about a reason; "" for one that it does not know."""
    value = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name.get(_REASON_PREFIX + reason)
    if value is None:
        return ""
    return value.GetOptions().Extensions[options_pb2.description].way_out


def _decode(error: grpc.aio.AioRpcError) -> Refusal:
    code = error.code()
    message = error.details() or code.name
    request_id = _request_id(error)
    status = _status(error)
    if status is None:
        return Refusal(code=code, message=message, request_id=request_id)
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    resource = error_details_pb2.ResourceInfo()
    precondition = error_details_pb2.PreconditionFailure()
    retry = error_details_pb2.RetryInfo()
    told_to_wait = False
    for detail in status.details:
        for kind in (info, bad_request, resource, precondition, retry):
            if detail.Unpack(kind):
                told_to_wait = told_to_wait or kind is retry
    subjects = [violation.subject for violation in precondition.violations if violation.subject]
    return Refusal(
        code=code,
        message=message,
        reason=info.reason if info.domain == ERROR_DOMAIN else "",
        metadata=dict(info.metadata),
        violations=tuple(
            Violation(violation.field, violation.reason, violation.description)
            for violation in bad_request.field_violations
        ),
        resource=resource.resource_name or next(iter(subjects), ""),
        retry_after_seconds=_seconds(retry) if told_to_wait else None,
        request_id=request_id,
    )


def _seconds(retry: error_details_pb2.RetryInfo) -> float:
    return retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    """The details of a refusal; None where a proxy or the transport made the failure, or garbled them."""
    try:
        return cast(status_pb2.Status | None, rpc_status.from_call(cast(grpc.Call, error)))
    except ValueError:
        return None


def _request_id(error: grpc.aio.AioRpcError) -> str:
    for metadata in (error.trailing_metadata(), error.initial_metadata()):
        for key, value in metadata or ():
            if key == "x-request-id":
                return value if isinstance(value, str) else value.decode()
    return ""
