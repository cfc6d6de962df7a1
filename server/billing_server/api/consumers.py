"""EventService: durable consumers, the stream that feeds them, and what they have parked."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from billing.v1.consumer_model_pb2 import Consumer as ConsumerMessage
from billing.v1.consumer_model_pb2 import ConsumerProgress, ParkedEvent
from billing.v1.event_model_pb2 import Event as EventMessage
from billing.v1.event_service_pb2 import (
    ConsumeResponse,
    DropParkedEventsResponse,
    ListParkedEventsResponse,
    RetryParkedEventsResponse,
)
from billing_server.api import paging
from billing_server.api.call import Call
from billing_server.api.endpoints import (
    Edge,
    Endpoint,
    caller_of,
    choice,
    listing,
    nothing,
    path_of,
    required,
    response_of,
)
from billing_server.domain import consumer as limits
from billing_server.domain.consumer import Consumer, Declined, Extended, Opening, Step
from billing_server.domain.consumption import REASON_CHARACTERS_MAX
from billing_server.domain.errors import AlreadyExists, InvalidArgument, ResourceMissing, Violation, invalid
from billing_server.domain.etag import etag_of
from billing_server.domain.validation.webhook import event_type_violations
from billing_server.engine.consumers import Dropped, Retried, ShownConsumer, Start
from billing_server.engine.work import Caller
from billing_server.store.consumer import ConsumerFilter, ParkedRow, Progress
from billing_server.store.view import View
from billing_server.wire.codec import check, position_of, with_position

HEARTBEAT_DEFAULT: Final = 15
HEARTBEAT_MAX: Final = 300
POSITIONS_MAX: Final = 10_000
CHOSEN_MAX: Final = 1_000
"""Most parked events that are named at once."""

DELAY_SECONDS_MAX: Final = 3_600
_PARKED: Final = path_of("EventService/ListParkedEvents")
_POSITIONS: Final = msgspec.msgpack.Decoder(paging.CursorInteger)
_BEYOND: Final = 2**63 - 1
_NAME: Final = re.compile(r"[a-z0-9_-]{1,64}")
_RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "ack_timeout_seconds": (limits.ACK_TIMEOUT_SECONDS_DEFAULT, limits.ACK_TIMEOUT_SECONDS_MAX),
    "unacknowledged_max": (limits.UNACKNOWLEDGED_DEFAULT, limits.UNACKNOWLEDGED_MAX),
    "tries_max": (limits.TRIES_DEFAULT, limits.TRIES_MAX),
    "batch_max": (limits.BATCH_DEFAULT, limits.BATCH_MAX),
}
"""Default and largest value of the numbers that a consumer has; the least is 1."""


# --- consumers


def _message(consumer: Consumer, progress: Progress | None) -> ConsumerMessage:
    message = ConsumerMessage(
        name=consumer.id,
        types=consumer.types,
        customer=consumer.customer or "",
        etag=etag_of(consumer.version),
        **{name: getattr(consumer, name) for name in _RANGES},
    )
    message.created.seconds = consumer.created
    if progress is not None:
        message.progress.CopyFrom(
            ConsumerProgress(
                floor_position=progress.floor,
                head_position=progress.head,
                lag=max(0, progress.head - progress.floor),
                unacknowledged=progress.pending,
                parked=progress.parked,
                connections=progress.connections,
                delivered_total=progress.delivered,
                redelivered_total=progress.redelivered,
                acknowledged_total=progress.acknowledged,
            )
        )
    return message


def _encode_shown(result: msgspec.Struct, _now: int | None) -> bytes:
    assert isinstance(result, ShownConsumer)
    return _message(result.consumer, result.progress).SerializeToString()


def _encode_nothing(result: msgspec.Struct, now: int | None) -> bytes:
    return nothing(result, now).SerializeToString()


def _within(request: Any, field: str, largest: int, prefix: str = "") -> list[Violation]:
    """What is wrong with a number that may be 0 for the default."""
    if 0 <= getattr(request, field) <= largest:
        return []
    description = f"must be 1 to {largest}, or 0 for the default"
    return [Violation(prefix + field, "parameter_invalid_integer", description)]


def _start(request: Any, prefix: str = "") -> tuple[Start, int]:
    """Where to begin. Raises InvalidArgument."""
    start: Start = choice(request, "start") or "beginning"
    if request.after_position < 0:
        raise invalid(f"{prefix}after_position", "parameter_invalid_integer", "must be 0 or more")
    if request.after_position and start != "position":
        raise invalid(f"{prefix}after_position", "parameters_exclusive", "goes with CONSUMER_START_POSITION only")
    return start, request.after_position


def _new_consumer(request: Any, prefix: str = "") -> Consumer:
    """The consumer that is to be created. Raises InvalidArgument with all violations."""
    violations = []
    if _NAME.fullmatch(request.name) is None:
        description = 'must be 1 to 64 characters of a to z, 0 to 9, "-" and "_"'
        violations.append(Violation(f"{prefix}name", "parameter_invalid", description))
    violations += event_type_violations(request.types, f"{prefix}types")
    for name, (_, largest) in _RANGES.items():
        violations += _within(request, name, largest, prefix)
    if violations:
        raise InvalidArgument(*violations)
    return Consumer(
        id=request.name,
        created=0,
        types=tuple(request.types),
        customer=request.customer or None,
        **{name: getattr(request, name) or default for name, (default, _) in _RANGES.items()},
    )


async def _create(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "name")
    wanted = _new_consumer(request)
    start, after = _start(request)
    caller = caller_of(call, request, _encode_shown)
    answer = await edge.engine.change_consumer(
        lambda consumers: consumers.create(call.account_id, wanted, start, after, caller)
    )
    return response_of(answer, _encode_shown)


async def _get(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "name")
    async with edge.view(call) as view:
        return (await _shown(view, [await _find(view, request.name, "name")]))[0].SerializeToString()


async def _find(view: View, name: str, field: str) -> Consumer:
    return await view.get(Consumer, name, "consumer", field)


async def _shown(view: View, consumers: Sequence[Consumer]) -> Sequence[ConsumerMessage]:
    progress = await view.consumer_progress([consumer.id for consumer in consumers])
    return [_message(consumer, progress.get(consumer.id)) for consumer in consumers]


async def _update(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "name")
    changes = _changes(request)
    caller = caller_of(call, request, _encode_shown)
    answer = await edge.engine.change_consumer(
        lambda consumers: consumers.update(call.account_id, request.name, changes, request.etag or None, caller)
    )
    return response_of(answer, _encode_shown)


def _changes(request: Any) -> dict[str, int]:
    """New values by their names. Raises InvalidArgument."""
    violations = [violation for name, (_, largest) in _RANGES.items() for violation in _within(request, name, largest)]
    named = list(request.update_mask.paths)
    violations += [
        Violation("update_mask", "parameter_unknown", f"{path!r} is none of {', '.join(_RANGES)}")
        for path in named
        if path not in _RANGES
    ]
    if violations:
        raise InvalidArgument(*violations)
    if request.HasField("update_mask"):
        return {name: getattr(request, name) or _RANGES[name][0] for name in named}
    return {name: getattr(request, name) for name in _RANGES if getattr(request, name)}


async def _seek(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "name", "start")
    start, after = _start(request)
    caller = caller_of(call, request, _encode_shown)
    answer = await edge.engine.change_consumer(
        lambda consumers: consumers.seek(call.account_id, request.name, start, after, caller)
    )
    return response_of(answer, _encode_shown)


async def _delete(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "name")
    caller = caller_of(call, request, _encode_nothing)
    answer = await edge.engine.change_consumer(
        lambda consumers: consumers.delete(call.account_id, request.name, caller)
    )
    return response_of(answer, _encode_nothing)


# --- parked events


async def _list_parked(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    required(request, "consumer")
    size = paging.page_size(request)
    before = paging.read_token(_PARKED, request, _POSITIONS)
    async with edge.view(call) as view:
        await _find(view, request.consumer, "consumer")
        rows = await view.parked_events(request.consumer, before=_BEYOND if before is None else before, limit=size + 1)
        events = await view.events_at([row.event.position for row in rows])
    payloads = {event.position: with_position(event.payload, call.account_id, event.position) for event in events}
    messages = [_parked(row, payloads.get(row.event.position)) for row in rows[:size]]
    kept = paging.fitting(message.ByteSize() for message in messages)
    following = rows[kept - 1].event.position if kept < len(rows) else None
    response = ListParkedEventsResponse(
        parked_events=messages[:kept], next_page_token=paging.make_token(_PARKED, request, following)
    )
    return response.SerializeToString()


def _parked(row: ParkedRow, payload: bytes | None) -> ParkedEvent:
    message = ParkedEvent(
        position=row.event.position, tries=row.event.tries, reason=row.event.reason, retrying=row.retrying
    )
    message.parked_at.seconds = row.parked_at
    if payload is not None:
        message.event.CopyFrom(EventMessage.FromString(payload))
    return message


def _chosen(request: Any) -> list[int] | None:
    """The positions that are meant, None for all. Raises InvalidArgument."""
    required(request, "consumer")
    if request.all == bool(request.positions):
        if request.all:
            raise invalid("positions", "parameters_exclusive", "go without `all`")
        raise invalid("positions", "parameter_missing", "name the events, or set `all`")
    if len(request.positions) > CHOSEN_MAX:
        raise invalid("positions", "parameter_invalid", f"has at most {CHOSEN_MAX} entries")
    return None if request.all else list(request.positions)


def _encode_retried(result: msgspec.Struct, _now: int | None) -> bytes:
    assert isinstance(result, Retried)
    return RetryParkedEventsResponse(retried=result.retried, gone=result.gone).SerializeToString()


async def _retry(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    positions = _chosen(request)
    caller = caller_of(call, request, _encode_retried)
    answer = await edge.engine.change_consumer(
        lambda consumers: consumers.retry(call.account_id, request.consumer, positions, caller)
    )
    return response_of(answer, _encode_retried)


def _encode_dropped(result: msgspec.Struct, _now: int | None) -> bytes:
    assert isinstance(result, Dropped)
    return DropParkedEventsResponse(dropped=result.dropped).SerializeToString()


async def _drop(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    positions = _chosen(request)
    caller = caller_of(call, request, _encode_dropped)
    answer = await edge.engine.change_consumer(
        lambda consumers: consumers.drop(call.account_id, request.consumer, positions, caller)
    )
    return response_of(answer, _encode_dropped)


# --- consuming


async def _consume(edge: Edge, call: Call, messages: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    first = await anext(messages, None)
    if first is None or not first.HasField("opening"):
        raise invalid("opening", "parameter_missing", "stands in the first message")
    opening = first.opening
    check(first)
    _check_opening(opening)
    consumer = await _open(edge, call, opening)
    async with edge.engine.store.view(call.account_id) as view:
        shown = (await _shown(view, [consumer]))[0]
    yield ConsumeResponse(consumer=shown, head_position=shown.progress.head_position).SerializeToString()
    wanted = Opening(
        consumer=opening.consumer,
        batch_max=opening.batch_max or None,
        unacknowledged_max=opening.unacknowledged_max or None,
        heartbeat_seconds=opening.heartbeat_seconds or HEARTBEAT_DEFAULT,
    )
    batches = edge.consumers.consume(call.account_id, wanted, consumer, _steps(call, first, messages))
    try:
        async for batch in batches:
            yield batch
    finally:
        await batches.aclose()


def _check_opening(opening: Any) -> None:
    """Refuse an opening that cannot be understood."""
    violations = []
    if not opening.consumer:
        violations.append(Violation("opening.consumer", "parameter_missing", "is required"))
    for field, largest in (
        ("batch_max", limits.BATCH_MAX),
        ("unacknowledged_max", limits.UNACKNOWLEDGED_MAX),
        ("heartbeat_seconds", HEARTBEAT_MAX),
    ):
        violations += _within(opening, field, largest, "opening.")
    if opening.HasField("create") and opening.create.name not in ("", opening.consumer):
        violations.append(Violation("opening.create.name", "parameter_invalid", "must be the name in `consumer`"))
    if violations:
        raise InvalidArgument(*violations)


async def _open(edge: Edge, call: Call, opening: Any) -> Consumer:
    """The consumer that the stream is about, made when it is missing and wanted."""
    try:
        async with edge.engine.store.view(call.account_id) as view:
            return await _find(view, opening.consumer, "opening.consumer")
    except ResourceMissing:
        if not opening.HasField("create"):
            raise
    opening.create.name = opening.consumer
    prefix = "opening.create."
    wanted = _new_consumer(opening.create, prefix)
    start, after = _start(opening.create, prefix)
    caller = Caller(method=call.name, request_id=call.request_id)
    # Another connection may be faster; it is the same consumer.
    with contextlib.suppress(AlreadyExists):
        await edge.engine.change_consumer(
            lambda consumers: consumers.create(call.account_id, wanted, start, after, caller)
        )
    async with edge.engine.store.view(call.account_id) as view:
        return await _find(view, opening.consumer, "opening.consumer")


async def _steps(call: Call, first: Any, messages: AsyncIterator[Any]) -> AsyncIterator[Step]:
    """What the caller says of its events. Raises InvalidArgument and ResourceMissing."""
    yield _step(call, first)
    async for message in messages:
        if message.HasField("opening"):
            raise invalid("opening", "parameter_invalid", "stands in the first message only")
        check(message)
        yield _step(call, message)


def _step(call: Call, message: Any) -> Step:
    extended = None
    if message.HasField("extend"):
        extend = message.extend
        if not 0 <= extend.seconds <= limits.ACK_TIMEOUT_SECONDS_MAX:
            description = f"must be 1 to {limits.ACK_TIMEOUT_SECONDS_MAX}, or 0 for the default"
            raise invalid("extend.seconds", "parameter_invalid_integer", description)
        extended = Extended(None if extend.all else _positions(call, extend, "extend"), extend.seconds or None)
    return Step(
        acknowledged=_positions(call, message.acknowledge, "acknowledge"),
        through=message.acknowledge.through_position,
        declined=[_declined(call, declined, f"decline[{index}]") for index, declined in enumerate(message.decline)],
        extended=extended,
    )


def _declined(call: Call, declined: Any, path: str) -> Declined:
    if not 0 <= declined.delay_seconds <= DELAY_SECONDS_MAX:
        raise invalid(f"{path}.delay_seconds", "parameter_invalid_integer", f"must be 0 to {DELAY_SECONDS_MAX}")
    if len(declined.reason) > REASON_CHARACTERS_MAX:
        raise invalid(f"{path}.reason", "parameter_invalid", f"has at most {REASON_CHARACTERS_MAX} characters")
    reason = declined.reason or "the consumer declined it"
    return Declined(_positions(call, declined, path), declined.delay_seconds, reason)


def _positions(call: Call, named: Any, path: str) -> list[int]:
    """The positions of events named by positions or ids. Raises InvalidArgument and ResourceMissing."""
    if len(named.positions) + len(named.ids) > POSITIONS_MAX:
        raise invalid(path, "parameter_invalid", f"names at most {POSITIONS_MAX} events")
    return [*named.positions, *(position_of(event_id, call.account_id) for event_id in named.ids)]


ENDPOINTS: Final = (
    Endpoint(path_of("EventService/Consume"), conversing=_consume),
    Endpoint(path_of("EventService/CreateConsumer"), unary=_create),
    Endpoint(path_of("EventService/GetConsumer"), unary=_get),
    listing("EventService/ListConsumers", "consumers", lambda _: ConsumerFilter(), show=_shown),
    Endpoint(path_of("EventService/UpdateConsumer"), unary=_update),
    Endpoint(path_of("EventService/SeekConsumer"), unary=_seek),
    Endpoint(path_of("EventService/DeleteConsumer"), unary=_delete),
    Endpoint(_PARKED, unary=_list_parked),
    Endpoint(path_of("EventService/RetryParkedEvents"), unary=_retry),
    Endpoint(path_of("EventService/DropParkedEvents"), unary=_drop),
)
