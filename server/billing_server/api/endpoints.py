"""Methods out of rows: commands, reads and lists differ only in what a row names."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from billing_server.api import paging, replay
from billing_server.api.call import Call
from billing_server.api.keys import KeyRing
from billing_server.domain.commands import Command
from billing_server.domain.consumer import Consumer, Opening, Step
from billing_server.domain.errors import InvalidArgument, Violation
from billing_server.domain.invoice import Invoice
from billing_server.domain.test_clock import TestClock
from billing_server.engine.engine import Engine
from billing_server.engine.reads import AccountReads
from billing_server.engine.work import Answer, Caller
from billing_server.store.listing import Cursor, Filter
from billing_server.store.view import View
from billing_server.wire.codec import check, decode, serialize
from billing_server.wire.contract import METHODS
from billing_server.wire.framing import elements

_PACKAGE: Final = "/billing.v1."
_CURSORS: Final[msgspec.msgpack.Decoder[Cursor]] = msgspec.msgpack.Decoder(
    tuple[paging.CursorInteger, Annotated[str, msgspec.Meta(pattern=r"^[0-9a-z_-]{1,64}$")]]
)

T = TypeVar("T", bound=msgspec.Struct)


class EventStreams(Protocol):
    """Sends an account's events as serialized batches; see `billing_server.delivery.streams`."""

    def follow(self, account_id: str, request: Any) -> AsyncIterator[bytes]:
        """Batches until the reader goes away. Raises refusals before the first one."""


class Consuming(Protocol):
    """Delivers to durable consumers; see `billing_server.delivery.consumers`."""

    def consume(
        self, account_id: str, opening: Opening, consumer: Consumer, steps: AsyncIterator[Step]
    ) -> AsyncGenerator[bytes, None]:
        """Serialized responses until the steps end."""


class Edge:
    """What the methods work with."""

    def __init__(self, engine: Engine, key_ring: KeyRing, event_streams: EventStreams, consumers: Consuming) -> None:
        self.engine = engine
        self.key_ring = key_ring
        self.event_streams = event_streams
        self.consumers = consumers

    def view(self, call: Call) -> AbstractAsyncContextManager[View]:
        """Reading of the caller's account."""
        return self.engine.store.view(call.account_id)

    def reads(self, call: Call) -> AccountReads:
        """Reading of single objects of the caller's account, together with what others read of it."""
        return self.engine.reads.of(call.account_id)


Unary = Callable[[Edge, Call, Any], Awaitable[bytes]]
Streaming = Callable[[Edge, Call, Any], AsyncIterator[bytes]]
Gathering = Callable[[Edge, Call, AsyncIterator[Any]], Awaitable[bytes]]
Conversing = Callable[[Edge, Call, AsyncIterator[Any]], AsyncIterator[bytes]]
EncodeResult = Callable[[msgspec.Struct, int | None], bytes]
"""Makes the serialized response of a result, as it is seen at a moment."""

Refine = Callable[[Edge, Any], Any]


class Endpoint(msgspec.Struct, frozen=True):
    """One method: its path, and what carries it out. Exactly one of the ways is set."""

    path: str
    unary: Unary | None = None
    streaming: Streaming | None = None
    gathering: Gathering | None = None
    conversing: Conversing | None = None


def path_of(name: str) -> str:
    """The path of a method written as "InvoiceService/PayInvoice". Raises KeyError when there is none."""
    path = _PACKAGE + name
    return METHODS[path].path


def caller_of(call: Call, request: Message, encode_result: EncodeResult) -> Caller:
    """Who asks the engine, and how it keeps the answer."""
    keyed = call.idempotency_key is not None
    return Caller(
        method=call.name,
        request_id=call.request_id,
        idempotency_key=call.idempotency_key,
        request_hash=replay.request_hash(call.method.path, request) if keyed else b"",
        encode=lambda result, now: replay.keep_response(encode_result(result, now)),
        encode_refusal=replay.keep_refusal,
    )


def response_of(answer: Answer, encode_result: EncodeResult) -> bytes:
    """The serialized response of an answer, new or kept. Raises Refused when a refusal was kept."""
    if answer.replay is not None:
        return replay.replayed(answer.replay)
    if answer.result is None:
        raise AssertionError("an answer without a result")
    return encode_result(answer.result, answer.now)


def command(
    name: str,
    command_type: type[Command],
    *,
    shown: Callable[[Any, int | None], Message] | None = None,
    refine: Refine | None = None,
) -> Endpoint:
    """A method that changes something.

    `shown` makes the response of the engine's result, by default the result's own message; `refine` completes
    the decoded command.
    """

    def encode_result(result: msgspec.Struct, now: int | None) -> bytes:
        return serialize(result, now) if shown is None else shown(result, now).SerializeToString()

    async def run(edge: Edge, call: Call, request: Any) -> bytes:
        wanted: Command = decode(request, command_type)
        if refine is not None:
            wanted = refine(edge, wanted)
        answer = await edge.engine.execute(call.account_id, wanted, caller_of(call, request, encode_result))
        return response_of(answer, encode_result)

    return Endpoint(path_of(name), unary=run)


def nothing(_result: msgspec.Struct, _now: int | None) -> Message:
    """The response of methods that only delete."""
    return Empty()


def get(name: str, noun: type[T], resource_type: str) -> Endpoint:
    """A method that returns the object with an id."""

    async def run(edge: Edge, call: Call, request: Any) -> bytes:
        check(request)
        required(request, "id")
        reads = edge.reads(call)
        found = await reads.get(noun, request.id, resource_type)
        return (await show_all(reads, [found]))[0]

    return Endpoint(path_of(name), unary=run)


def listing(
    name: str,
    field: str,
    wanted: Callable[[Any], Filter[Any]],
    *,
    show: Callable[[View, Sequence[Any]], Awaitable[Sequence[Message]]] | None = None,
) -> Endpoint:
    """A method that lists objects, newest first, into a field of its response.

    `show` makes their messages, by default each object's own.
    """
    path = path_of(name)
    response_type: Any = METHODS[path].response_type
    listed = response_type.DESCRIPTOR.fields_by_name[field]

    async def run(edge: Edge, call: Call, request: Any) -> bytes:
        check(request)
        size = paging.page_size(request)
        after = paging.read_token(path, request, _CURSORS)
        async with edge.view(call) as view:
            page = await view.page(wanted(request), limit=size, after=after)
            if show is None:
                messages = await show_all(view, page.items)
            else:
                messages = [message.SerializeToString() for message in await show(view, page.items)]
        kept = paging.fitting(map(len, messages))
        following = page.next if kept == len(messages) else _cursor_of(page.items[kept - 1])
        response = response_type(next_page_token=paging.make_token(path, request, following))
        rest: bytes = response.SerializeToString()
        return elements(listed, messages[:kept]) + rest

    return Endpoint(path, unary=run)


def _cursor_of(found: Any) -> Cursor:
    return found.created, found.id


async def show_all(view: View | AccountReads, objects: Sequence[Any]) -> list[bytes]:
    """The serialized messages of some objects, as of now; of those on test clocks, as of the clock's time."""
    now = int(time.time())
    moments = await clock_times(view, objects)
    return [serialize(found, moments.get(getattr(found, "test_clock", None), now)) for found in objects]


async def clock_times(view: View | AccountReads, objects: Sequence[Any]) -> Mapping[str | None, int]:
    """What time it is on the test clocks of those objects that depend on it."""
    ids = {found.test_clock for found in objects if isinstance(found, Invoice) and found.test_clock is not None}
    if not ids:
        return {}
    return {clock.id: clock.frozen_time for clock in await view.get_many(TestClock, sorted(ids))}


def required(request: Any, *fields: str) -> None:
    """Refuse a request that lacks one of these fields."""

    present = {descriptor.name for descriptor, _ in request.ListFields()}
    missing = [Violation(field, "parameter_missing", "is required") for field in fields if field not in present]
    if missing:
        raise InvalidArgument(*missing)


def span(request: Any, field: str) -> tuple[int | None, int | None]:
    """Start (inclusive) and end (exclusive) of a TimeRange field."""
    if not request.HasField(field):
        return None, None
    found = getattr(request, field)
    start = found.start.seconds if found.HasField("start") else None
    end = found.end.seconds if found.HasField("end") else None
    return start, end


def choice(request: Any, field: str) -> Any:
    """The domain's word for the value of an enum field; None when it is not set."""
    descriptor = request.DESCRIPTOR.fields_by_name[field]
    number = getattr(request, field)
    return word_of(descriptor.enum_type, number) if number else None


def word_of(enum_type: Any, number: int) -> str:
    """The domain's word for an enum value: its name without the enum's prefix, in lower case."""
    prefix = enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(enum_type.values_by_number[number].name.removeprefix(prefix).lower())


def number_of(enum_type: Any, word: str) -> Any:
    """The enum value for a word of the domain: the way back from `word_of`."""
    prefix = enum_type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return enum_type.values_by_name[prefix + word.upper()].number
