"""Errors to gRPC statuses with details: the one place that knows how a refusal looks on the wire."""

from __future__ import annotations

import math
from typing import Any, Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status

from billing_server.domain.errors import (
    AlreadyExists,
    DomainError,
    InvalidArgument,
    OutOfRange,
    PaymentFailed,
    ResourceMissing,
    WrongState,
)
from billing_server.store.errors import StoreBusy, StoreTimeout, StoreUnavailable
from billing_server.wire.contract import REASONS

DOMAIN: Final = "billing.v1"
"""The `domain` of each ErrorInfo."""

DETAILS_KEY: Final = "grpc-status-details-bin"
STORE_RETRY_SECONDS: Final = 1
_MESSAGE_CHARACTERS_MAX: Final = 2_000
_VIOLATIONS_MAX: Final = 50

CODES: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


class Unauthenticated(DomainError):
    """There is no API key, or none that works."""

    def __init__(self, message: str) -> None:
        super().__init__("unauthenticated", message)


class ScopeMissing(DomainError):
    """The API key may not do this."""

    def __init__(self, scope: str) -> None:
        super().__init__("scope_missing", f"the API key lacks the scope '{scope}'")


class Unavailable(DomainError):
    """The server cannot work right now; the same request may succeed soon."""

    def __init__(self, message: str, *, retry_after_seconds: float = STORE_RETRY_SECONDS) -> None:
        super().__init__("unavailable", message)
        self.retry_after_seconds = retry_after_seconds


def deadline_exceeded() -> DomainError:
    """The call took longer than it may."""
    return DomainError(
        "deadline_exceeded",
        "the request took longer than its deadline; what it had begun is finished all the same. "
        "Send it again with the same idempotency key and a longer deadline",
    )


def translated(error: Exception) -> DomainError | None:
    """The refusal that an error means to a caller; None for what should never happen."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, StoreTimeout | TimeoutError):
        return deadline_exceeded()
    if isinstance(error, StoreUnavailable | StoreBusy):
        return Unavailable("the database is not available")
    return None


def internal(request_id: str) -> DomainError:
    """What a caller is told of a failure: nothing but the id under which the log has it."""
    return DomainError("internal", f"the engine failed; its log says why under the request id {request_id}")


def status_of(error: DomainError) -> Status:
    """The status of a refusal, with its details."""
    code = getattr(grpc.StatusCode, REASONS[error.reason].grpc_code)
    status = Status(code=code.value[0], message=error.message[:_MESSAGE_CHARACTERS_MAX])
    for detail in _details(error):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _details(error: DomainError) -> list[Message]:
    details: list[Message] = [ErrorInfo(reason=error.reason.upper(), domain=DOMAIN, metadata=_metadata(error))]
    if isinstance(error, InvalidArgument):
        details.append(_bad_request(error))
    elif isinstance(error, ResourceMissing):
        details.append(_resource_info(error.resource_type, error.resource_id, error.message))
        details.append(_field_violation(error))
    elif isinstance(error, WrongState | PaymentFailed):
        subject = error.subject if isinstance(error, WrongState) else ""
        details.append(_precondition_failure(error, subject))
    elif isinstance(error, AlreadyExists):
        details.append(_resource_info("", "", error.message))
        details.append(_field_violation(error))
    elif error.field:
        details.append(_field_violation(error))
    delay = getattr(error, "retry_after_seconds", None)
    if delay is not None:
        details.append(_retry_info(delay))
    return details


def _metadata(error: DomainError) -> dict[str, str]:
    """What machines may want to know besides the reason."""
    found: dict[str, Any] = {"field": error.field}
    if isinstance(error, PaymentFailed):
        found["decline_code"] = error.decline_code
    elif isinstance(error, OutOfRange):
        found["oldest_position"] = error.oldest
        found["newest_position"] = error.newest
    elif isinstance(error, ResourceMissing):
        found["resource_type"] = error.resource_type
    return {name: str(value) for name, value in found.items() if value not in ("", None)}


def _bad_request(error: InvalidArgument) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(
                field=violation.field, description=violation.description, reason=violation.reason.upper()
            )
            for violation in error.violations[:_VIOLATIONS_MAX]
        ]
    )


def _field_violation(error: DomainError) -> BadRequest:
    violation = BadRequest.FieldViolation(field=error.field, description=error.message, reason=error.reason.upper())
    return BadRequest(field_violations=[violation])


def _precondition_failure(error: DomainError, subject: str) -> PreconditionFailure:
    violation = PreconditionFailure.Violation(
        type=error.reason.upper(), subject=subject or error.field, description=error.message
    )
    return PreconditionFailure(violations=[violation])


def _resource_info(resource_type: str, name: str, description: str) -> ResourceInfo:
    return ResourceInfo(resource_type=resource_type, resource_name=name, description=description)


def _retry_info(seconds: float) -> RetryInfo:
    info = RetryInfo()
    fraction, whole = math.modf(seconds)
    info.retry_delay.seconds = int(whole)
    info.retry_delay.nanos = round(fraction * 1_000_000_000)
    return info
