"""SubscriptionService.CreateSubscriptions: many subscriptions by one stream, each by itself.

What shares a message is asked of the engine at the same time, and so shares transactions there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from billing.v1.errors_pb2 import ErrorReason
from billing.v1.subscription_service_pb2 import (
    CreateSubscriptionRefusal,
    CreateSubscriptionResult,
    CreateSubscriptionsResponse,
    CreateSubscriptionViolation,
)
from billing_server.api import replay
from billing_server.api.call import Call, check_idempotency_key
from billing_server.api.conveyor import convey
from billing_server.api.endpoints import Edge, Endpoint, path_of, response_of
from billing_server.api.failures import status_told
from billing_server.domain import commands as c
from billing_server.domain.errors import DomainError, invalid
from billing_server.engine.work import Answer, Caller
from billing_server.wire.codec import decode, serialize
from billing_server.wire.framing import elements

SUBSCRIPTIONS_MAX: Final = 100
"""Subscriptions in a message."""

MESSAGES_AT_ONCE: Final = 4
"""Messages of a stream on their way: enough for transactions worth having, few enough for others to get between."""

_SINGLE: Final = path_of("SubscriptionService/CreateSubscription")
"""Each one is a call of this method as far as its idempotency key goes, so that either may repeat the other."""

_REASON_PREFIX: Final = "ERROR_REASON_"
_RESULTS: Final = CreateSubscriptionsResponse.DESCRIPTOR.fields_by_name["results"]
_SUBSCRIPTION: Final = CreateSubscriptionResult.DESCRIPTOR.fields_by_name["subscription"]


async def _create(edge: Edge, call: Call, messages: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    async for answer in convey(messages, lambda message: _answer(edge, call, message), MESSAGES_AT_ONCE):
        yield answer


async def _answer(edge: Edge, call: Call, message: Any) -> bytes:
    """What becomes of the subscriptions of a message. Raises InvalidArgument when it holds none, or too many."""
    wanted = message.subscriptions
    if not 1 <= len(wanted) <= SUBSCRIPTIONS_MAX:
        description = f"a message holds 1 to {SUBSCRIPTIONS_MAX}, not {len(wanted)}"
        raise invalid("subscriptions", "parameter_invalid", description)
    keys = Counter(one.idempotency_key for one in wanted)
    prepared = [_prepared(call, one, once=keys[one.idempotency_key] == 1) for one in wanted]
    asked = [one for one in prepared if not isinstance(one, DomainError)]
    outcomes = iter(await edge.engine.execute_all(call.account_id, asked))
    results = [_result(call, one if isinstance(one, DomainError) else next(outcomes)) for one in prepared]
    return elements(_RESULTS, results)


def _prepared(call: Call, wanted: Any, *, once: bool) -> tuple[c.CreateSubscription, Caller] | DomainError:
    """What to ask the engine for, or why not to."""
    try:
        if not wanted.idempotency_key:
            raise invalid("idempotency_key", "parameter_missing", "is required")
        key = check_idempotency_key(wanted.idempotency_key, "idempotency_key")
        if not once:
            raise invalid("idempotency_key", "parameter_invalid", "stands only once in a message")
        command: c.CreateSubscription = decode(wanted.request, c.CreateSubscription)
    except DomainError as refusal:
        return refusal
    return command, Caller(
        method=_SINGLE[1:],
        request_id=call.request_id,
        idempotency_key=key,
        request_hash=replay.request_hash(_SINGLE, wanted.request),
        encode=_kept,
        encode_refusal=replay.keep_refusal,
    )


def _result(call: Call, outcome: Answer | BaseException) -> bytes:
    """A serialized CreateSubscriptionResult: the subscription, or why there is none."""
    try:
        if isinstance(outcome, BaseException):
            raise outcome
        return elements(_SUBSCRIPTION, [response_of(outcome, _encode)])
    except Exception as error:  # noqa: BLE001  # what goes wrong with one must not harm the others
        return CreateSubscriptionResult(refusal=_refusal(status_told(call, error))).SerializeToString()


def _kept(result: msgspec.Struct, now: int) -> bytes:
    return replay.keep_response(_encode(result, now))


def _encode(result: msgspec.Struct, now: int | None) -> bytes:
    return serialize(result, now)


def _refusal(status: Status) -> CreateSubscriptionRefusal:
    """What the status of a refused call says."""
    info, wrong, retry = ErrorInfo(), BadRequest(), RetryInfo()
    refusal = CreateSubscriptionRefusal(message=status.message)
    for detail in status.details:
        for kind in (info, wrong, retry):
            detail.Unpack(kind)
    if retry.HasField("retry_delay"):
        refusal.retry_after.CopyFrom(retry.retry_delay)
    refusal.reason = _reason(info.reason)
    refusal.decline_code = info.metadata.get("decline_code", "")
    for violation in wrong.field_violations:
        refusal.violations.append(
            CreateSubscriptionViolation(
                field=violation.field, reason=_reason(violation.reason), description=violation.description
            )
        )
    return refusal


def _reason(name: str) -> ErrorReason.ValueType:
    return ErrorReason.Value(_REASON_PREFIX + name)


ENDPOINTS: Final = (Endpoint(path_of("SubscriptionService/CreateSubscriptions"), conversing=_create),)
