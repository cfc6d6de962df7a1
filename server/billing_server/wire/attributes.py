"""What objects were before: the `previous_attributes` of events, as bytes of a google.protobuf.Struct.

Names are those of the object's message, values have the forms of protobuf's JSON: 64-bit integers, decimals
and times are text, enum values go by name, and null says that the field was not set. Internal fields are left
out. Items of subscriptions show the period of their subscription here too, so they change when it does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from billing_server.domain import cycle
from billing_server.domain.subscription import Subscription, SubscriptionItem
from billing_server.wire.compiled import Field, writer_of
from billing_server.wire.encoding import ALIKE, ENCODERS, decimal_text
from billing_server.wire.framing import double, double_tag, sized, tag_of
from billing_server.wire.plans import Member, Plan
from billing_server.wire.shapes import Shape

ToBytes = Callable[[Any], bytes]

_KINDS: Final = Value.DESCRIPTOR.fields_by_name
_NULL: Final = tag_of(_KINDS["null_value"]) + b"\x00"
_TRUE: Final = tag_of(_KINDS["bool_value"]) + b"\x01"
_FALSE: Final = tag_of(_KINDS["bool_value"]) + b"\x00"
_NUMBER: Final = double_tag(_KINDS["number_value"].number)
_TEXT: Final = tag_of(_KINDS["string_value"])
_STRUCT: Final = tag_of(_KINDS["struct_value"])
_LIST: Final = tag_of(_KINDS["list_value"])
_ENTRY: Final = tag_of(Struct.DESCRIPTOR.fields_by_name["fields"])
_ELEMENT: Final = tag_of(ListValue.DESCRIPTOR.fields_by_name["values"])
_KEY: Final = b"\x0a"
_HELD: Final = b"\x12"

_KNOWN: Final = 1_024
"""How many written values each attribute remembers whose values are often the same: a billing run writes the same few
moments, quantities and prices again and again."""

_REPEATED: Final = frozenset({"choice", "boolean", "integer"})
"""The kinds of values that are remembered, beside instants and texts that many objects share."""


class _Item(NamedTuple):
    """An item of a subscription in one of its periods."""

    item: SubscriptionItem
    start: int
    end: int


def struct_bytes(struct: type[msgspec.Struct], attributes: Mapping[str, Any]) -> bytes:
    """A serialized google.protobuf.Struct of attributes of `struct`, by their names there."""
    writers = _WRITERS[struct]
    return b"".join([writers[name](value) for name, value in attributes.items() if name in writers])


_PERIOD: Final = ("current_period_start", "current_period_end")
_OF_ANCHOR: Final = (
    "billing_cycle_anchor",
    "cancel_at",
    "current_period_start",
    "interval",
    "interval_count",
    "status",
)
"""What decides the anchor that is shown."""


def as_shown(obj: msgspec.Struct, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attributes together with those that callers saw change because of them: the items' period, and the anchor."""
    if not isinstance(obj, Subscription):
        return attributes
    shown = dict(attributes)
    if not attributes.keys().isdisjoint(("items", *_PERIOD)):
        start, end = (attributes.get(name, getattr(obj, name)) for name in _PERIOD)
        shown["items"] = [_Item(item, start, end) for item in attributes.get("items", obj.items)]
    ends = obj.cancel_at is not None or attributes.get("cancel_at") is not None
    if ends and not attributes.keys().isdisjoint(_OF_ANCHOR):
        before = msgspec.structs.replace(obj, **{name: attributes[name] for name in _OF_ANCHOR if name in attributes})
        shown.pop("billing_cycle_anchor", None)
        if cycle.shown_anchor(before) != cycle.shown_anchor(obj):
            shown["billing_cycle_anchor"] = cycle.shown_anchor(before)
    return shown


def _entry(key: bytes, value: bytes) -> bytes:
    return _ENTRY + sized(key + _HELD + sized(value))


def _key(name: str) -> bytes:
    return _KEY + sized(name.encode())


def _text(value: str) -> bytes:
    return _TEXT + sized(value.encode())


def _boolean(value: bool) -> bytes:
    return _TRUE if value else _FALSE


def _number(value: int) -> bytes:
    return _NUMBER + double(value)


def _wide_number(value: int) -> bytes:
    return _text(str(value))


def _decimal(value: Decimal) -> bytes:
    return _text(decimal_text(value))


def _instant(seconds: int) -> bytes:
    return _text(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def _writer(member: Member) -> ToBytes:
    shape = member.shape
    if shape.element is None:
        return _single_writer(shape, member)
    write = _single_writer(shape.element, member)
    if shape.kind == "list":
        return lambda values: _LIST + sized(b"".join([_ELEMENT + sized(write(value)) for value in values]))
    return lambda values: (
        _STRUCT
        + sized(
            b"".join([_entry(_key(key), _NULL if value is None else write(value)) for key, value in values.items()])
        )
    )


def _single_writer(shape: Shape, member: Member) -> ToBytes:
    if member.instant:
        return _instant
    if shape.struct is not None:
        return _nested(shape.struct)
    if shape.kind == "choice":
        return _choice(member)
    if shape.kind == "integer":
        return _wide_number if member.wide else _number
    return _SIMPLE[shape.kind]


_SIMPLE: Mapping[str, ToBytes] = {"text": _text, "boolean": _boolean, "decimal": _decimal}


def _choice(member: Member) -> ToBytes:
    enum = member.descriptor.enum_type
    assert enum is not None
    names = {literal: _text(enum.values_by_number[number].name) for literal, number in member.numbers.items()}
    return names.__getitem__


def _nested(struct: type[msgspec.Struct]) -> ToBytes:
    """Writes a whole object without what is not set, or a mapping of only what changed of one."""

    def write(value: Any) -> bytes:
        if isinstance(value, struct):
            written = _WHOLE[struct](value)
        elif isinstance(value, _Item):
            written = _WHOLE[struct](value.item) + _ITEM_START(value.start) + _ITEM_END(value.end)
        else:
            written = struct_bytes(struct, value)
        return _STRUCT + sized(written)

    return write


def _attribute(name: str, write: ToBytes, *, repeated: bool) -> ToBytes:
    """Writes an attribute with its name; None is null. The bytes of `repeated` values are remembered."""
    key = _key(name) + _HELD

    def attribute(value: Any) -> bytes:
        return _ENTRY + sized(key + sized(_NULL if value is None else write(value)))

    return lru_cache(_KNOWN)(attribute) if repeated else attribute


def _attributes_of(plan: Plan) -> dict[str, ToBytes]:
    """Writers of the attributes that callers see, by their names in the struct."""
    return {
        member.name: _attribute(member.name, _writer(member), repeated=_is_repeated(member))
        for member in plan.members
        if member.name == member.wire_name
    }


def _is_repeated(member: Member) -> bool:
    single = member.shape.element is None and member.shape.struct is None
    return single and (member.instant or member.shape.kind in _REPEATED or member.name in ALIKE)


_WRITERS: Final[Mapping[type[msgspec.Struct], Mapping[str, ToBytes]]] = {
    struct: _attributes_of(encoder.plan) for struct, encoder in ENCODERS.items()
}

_WHOLE: Final[Mapping[type[msgspec.Struct], ToBytes]] = {
    struct: writer_of([Field(name, shows_zero=True, write=write) for name, write in writers.items()])
    for struct, writers in _WRITERS.items()
}

_ITEM_START, _ITEM_END = (_attribute(name, _instant, repeated=True) for name in _PERIOD)
