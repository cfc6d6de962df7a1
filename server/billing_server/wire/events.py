"""Events to the bytes that are stored and streamed.

An event is stored without its id and position, which are known only when its transaction commits; a reader
gets them appended. A batch of a stream is put together from such bytes, without parsing any.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from google.protobuf.json_format import MessageToJson

from billing.v1.event_model_pb2 import Event as EventMessage
from billing.v1.event_model_pb2 import EventBatch
from billing.v1.event_service_pb2 import ConsumeResponse, Redelivery
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.event import Cause, Event
from billing_server.wire.attributes import as_shown, struct_bytes
from billing_server.wire.encoding import ENCODERS, shown_id
from billing_server.wire.framing import sized, sized_timestamp, tag_of, varint
from billing_server.wire.pairs import EVENT_OBJECTS

ID_PREFIX: Final = "evt_"
ACCOUNT_CHARACTERS: Final = 10
"""How many characters of the account's id, counted from its end, stand in the ids of its events."""
POSITION_DIGITS: Final = 12
_POSITIONS_END: Final = 10**POSITION_DIGITS

_FIELDS: Final = EventMessage.DESCRIPTOR.fields_by_name
_ID: Final = tag_of(_FIELDS["id"])
_POSITION: Final = tag_of(_FIELDS["position"])
_TYPE: Final = tag_of(_FIELDS["type"])
_CREATED: Final = tag_of(_FIELDS["created"])
_ACCOUNT: Final = tag_of(_FIELDS["account"])
_CUSTOMER: Final = tag_of(_FIELDS["customer"])
_OBJECT_ID: Final = tag_of(_FIELDS["object_id"])
_PREVIOUS: Final = tag_of(_FIELDS["previous_attributes"])
_CAUSE: Final = tag_of(_FIELDS["cause"])
_OBJECTS: Final = {struct: tag_of(_FIELDS[name]) for struct, name in EVENT_OBJECTS.items()}

_BATCH_FIELDS: Final = EventBatch.DESCRIPTOR.fields_by_name
_EVENTS: Final = tag_of(_BATCH_FIELDS["events"])
_HEAD: Final = tag_of(_BATCH_FIELDS["head_position"])
_CAUGHT_UP: Final = tag_of(_BATCH_FIELDS["caught_up"]) + b"\x01"

_CONSUMED_FIELDS: Final = ConsumeResponse.DESCRIPTOR.fields_by_name
assert [tag_of(_CONSUMED_FIELDS[name]) for name in _BATCH_FIELDS] == [tag_of(field) for field in _BATCH_FIELDS.values()]
_REDELIVERIES: Final = tag_of(_CONSUMED_FIELDS["redeliveries"])
_TRIED_POSITION: Final = tag_of(Redelivery.DESCRIPTOR.fields_by_name["position"])
_TRIES: Final = tag_of(Redelivery.DESCRIPTOR.fields_by_name["tries"])


Known = dict[tuple[int, int], bytes]
"""Objects that are serialized already, sized: by identity and by the moment at which they are seen.

Several events often tell of the same object in the same version: a payment alone makes three of its invoice. Valid
for as long as the events themselves are kept, because an identity may be given to another object later.
"""


def encode_event(account_id: str, event: Event, known: Known | None = None) -> bytes:
    """The serialized event, without its id and position. Its object is shown as at the event's time.

    `known` is what events of the same transaction share.
    """
    obj: Any = event.object
    struct = type(obj)
    parts = [
        _type_bytes(event.type),
        _CREATED,
        sized_timestamp(event.created),
        _account_bytes(account_id),
    ]
    if event.customer:
        parts += (_CUSTOMER, sized(event.customer.encode()))
    identity = shown_id(obj)
    if identity:
        parts += (_OBJECT_ID, sized(identity.encode()))
    if event.previous_attributes is not None:
        parts += (_PREVIOUS, sized(struct_bytes(struct, as_shown(obj, event.previous_attributes))))
    parts += (_CAUSE, _cause_bytes(event.cause))
    seen_as = (id(obj), event.created)
    shown = None if known is None else known.get(seen_as)
    if shown is None:
        shown = sized(ENCODERS[struct].serialize(obj, event.created))
        if known is not None:
            known[seen_as] = shown
    parts += (_OBJECTS[struct], shown)
    return b"".join(parts)


# What most events of a transaction have in common is put together once.


@lru_cache(maxsize=256)
def _type_bytes(type_: str) -> bytes:
    return _TYPE + sized(type_.encode())


@lru_cache(maxsize=256)
def _account_bytes(account_id: str) -> bytes:
    return _ACCOUNT + sized(account_id.encode())


@lru_cache(maxsize=256)
def _cause_bytes(cause: Cause) -> bytes:
    return sized(ENCODERS[Cause].serialize(cause))


def with_position(stored: bytes, account_id: str, position: int) -> bytes:
    """The serialized event with its id and position, from what `encode_event` gave."""
    return stored + _position_fields(_id_start(account_id), position)


def event_json(stored: bytes, account_id: str, position: int) -> bytes:
    """The event in protobuf's JSON, as every client of gRPC would write it."""
    message = EventMessage.FromString(with_position(stored, account_id, position))
    return MessageToJson(message, indent=None).encode()


def _id_start(account_id: str) -> bytes:
    """The field of an id up to its digits, as long as these are not more than there is room for."""
    start = (ID_PREFIX + account_id[-ACCOUNT_CHARACTERS:]).encode()
    return _ID + varint(len(start) + POSITION_DIGITS) + start


def _position_fields(id_start: bytes, position: int) -> bytes:
    if position < _POSITIONS_END:
        return b"%b%012d%b%b" % (id_start, position, _POSITION, varint(position))
    more = len(str(position)) - POSITION_DIGITS
    start = id_start[len(_ID) + 1 :]
    return b"".join((_ID, varint(id_start[len(_ID)] + more), start, b"%d" % position, _POSITION, varint(position)))


def framed(account_id: str, first: int, payloads: Sequence[bytes]) -> list[bytes]:
    """Stored events whose positions follow each other from `first` on, each as it stands in a batch."""
    if first + len(payloads) > _POSITIONS_END:
        return [framed_one(account_id, position, stored) for position, stored in enumerate(payloads, first)]
    # A pattern with all that they have in common: a stream replays a hundred thousand of them in a second.
    id_start = _id_start(account_id)
    constant = len(id_start) + POSITION_DIGITS + len(_POSITION)
    start, position_tag, events_tag = (text.replace(b"%", b"%%") for text in (id_start, _POSITION, _EVENTS))
    pattern = events_tag + b"%b%b" + start + b"%012d" + position_tag + b"%b"
    return [
        pattern % (varint(len(stored) + constant + len(at)), stored, position, at)
        for position, stored in enumerate(payloads, first)
        for at in (varint(position),)
    ]


def framed_one(account_id: str, position: int, stored: bytes) -> bytes:
    """One stored event as it stands in a batch."""
    return _EVENTS + sized(with_position(stored, account_id, position))


def batch_bytes(events: Iterable[bytes], head_position: int, *, caught_up: bool) -> bytes:
    """A serialized EventBatch of framed events, in the order of their positions."""
    parts = [*events]
    if head_position:
        parts += (_HEAD, varint(head_position))
    if caught_up:
        parts.append(_CAUGHT_UP)
    return b"".join(parts)


def event_batch_bytes(
    account_id: str, events: Iterable[tuple[int, bytes]], head_position: int, *, caught_up: bool
) -> bytes:
    """A serialized EventBatch of stored events, given in the order of their positions beside them."""
    parts = [framed_one(account_id, position, stored) for position, stored in events]
    return batch_bytes(parts, head_position, caught_up=caught_up)


def redelivery_bytes(tried: Iterable[tuple[int, int]]) -> bytes:
    """What a ConsumeResponse adds to its events: those that were delivered before, as position and tries."""
    return b"".join(
        _REDELIVERIES + sized(_TRIED_POSITION + varint(position) + _TRIES + varint(tries)) for position, tries in tried
    )


def event_id(account_id: str, position: int) -> str:
    """The id of the event at a position: ids sort as their positions do."""
    return f"{ID_PREFIX}{account_id[-ACCOUNT_CHARACTERS:]}{position:0{POSITION_DIGITS}d}"


def position_of(event_id_given: str, account_id: str) -> int:
    """The position that an event's id stands for.

    Raises:
        ResourceMissing: this is no id of an event of the account; whether one is there is not known here.
    """
    digits = event_id_given[len(ID_PREFIX) + len(account_id[-ACCOUNT_CHARACTERS:]) :]
    if digits.isascii() and digits.isdigit():
        position = int(digits)
        if 0 < position < 2**63 and event_id(account_id, position) == event_id_given:
            return position
    raise ResourceMissing("event", event_id_given)
