"""Objects to messages, by plans made at import.

Objects become bytes field by field, without a message in between: each field has a writer that makes its bytes, and
what is not set costs one comparison. That is about a quarter of the work of building a message and serializing it, of
which a billing run does a lot. Who wants the message reads it from the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

import msgspec
from google.protobuf.message import Message

from billing.v1.invoice_model_pb2 import Invoice as InvoiceMessage
from billing.v1.subscription_model_pb2 import Subscription as SubscriptionMessage
from billing.v1.subscription_model_pb2 import SubscriptionItem as SubscriptionItemMessage
from billing_server.domain import cycle
from billing_server.domain.etag import etag_of
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription, SubscriptionItem
from billing_server.wire.compiled import SHORT, Field, Write, writer_of
from billing_server.wire.framing import length_tag, signed, sized, sized_timestamp, tag_of, varint, varint_tag
from billing_server.wire.pairs import DERIVED, MODELS, NOTHING
from billing_server.wire.plans import Member, Plan, match
from billing_server.wire.shapes import Shape

_KNOWN: Final = 1_024
"""How many written values each field remembers whose values are often the same."""

ALIKE: Final = frozenset({"currency", "description", "price"})
"""Texts that many objects share. Remembering them, versions and instants makes the events of a billing run a fifth
cheaper."""

_KEY: Final = 1
_HELD: Final = 2
"""The fields of a map's entry."""

_INVOICE_ID: Final = tag_of(InvoiceMessage.DESCRIPTOR.fields_by_name["id"])
_OVERDUE: Final = tag_of(InvoiceMessage.DESCRIPTOR.fields_by_name["overdue"]) + b"\x01"
_ANCHOR: Final = tag_of(SubscriptionMessage.DESCRIPTOR.fields_by_name["billing_cycle_anchor"])
_ITEMS: Final = tag_of(SubscriptionMessage.DESCRIPTOR.fields_by_name["items"])
_ITEM_START: Final = tag_of(SubscriptionItemMessage.DESCRIPTOR.fields_by_name["current_period_start"])
_ITEM_END: Final = tag_of(SubscriptionItemMessage.DESCRIPTOR.fields_by_name["current_period_end"])

_WRITTEN_APART: Final[Mapping[type[msgspec.Struct], frozenset[str]]] = {
    Invoice: frozenset({"id"}),
    Subscription: frozenset({"billing_cycle_anchor", "items"}),
}
"""Fields that `_FINISHES` write, because what they show depends on more than their own values."""


def shown_id(obj: Any) -> str:
    """The id that callers see: an upcoming invoice has none (semantics 9)."""
    return "" if type(obj) is Invoice and obj.billing_reason == "upcoming" else obj.id


def _id_and_overdue(invoice: Invoice, now: int | None) -> bytes:
    """Overdue depends on the moment of looking (decision 5)."""
    identity = shown_id(invoice)
    written = _INVOICE_ID + sized(identity.encode()) if identity else b""
    return written + _OVERDUE if now is not None and invoice.overdue(now) else written


def _anchor_and_items(subscription: Subscription, now: int | None) -> bytes:
    """Items share the period of their subscription, and show it; the anchor follows `cancel_at` (semantics 1 and 4)."""
    del now
    anchor = _ANCHOR + sized_timestamp(cycle.shown_anchor(subscription))
    start, end = subscription.current_period_start, subscription.current_period_end
    period = b"".join((_ITEM_START, sized_timestamp(start), _ITEM_END, sized_timestamp(end)))
    encoder = ENCODERS[SubscriptionItem]
    return anchor + b"".join([_ITEMS + sized(encoder.serialize(item) + period) for item in subscription.items])


_FINISHES: Final[Mapping[type[msgspec.Struct], Callable[[Any, int | None], bytes]]] = {
    Invoice: _id_and_overdue,
    Subscription: _anchor_and_items,
}
"""What stands behind a message's own fields, which may come in any order."""


class ModelEncoder:
    """Encodes the objects of one struct. Its writer is filled in once all encoders exist."""

    __slots__ = ("_finish", "_message_type", "_write", "plan")

    def __init__(self, plan: Plan, message_type: type[Message]) -> None:
        self.plan = plan
        self._message_type = message_type
        self._finish = _FINISHES.get(plan.struct)
        self._write: Write = writer_of(())

    def fill(self, encoders: Mapping[type[msgspec.Struct], ModelEncoder]) -> None:
        """Make the writer, which may need the encoders of nested structs."""
        apart = _WRITTEN_APART.get(self.plan.struct, NOTHING)
        self._write = writer_of([_field(member, encoders) for member in self.plan.members if member.name not in apart])

    def serialize(self, obj: Any, now: int | None = None) -> bytes:
        """The message's bytes, as it is seen at `now` (UTC seconds). Zero values and None are left out."""
        written = self._write(obj)
        return written if self._finish is None else written + self._finish(obj, now)

    def message(self, obj: msgspec.Struct, now: int | None = None) -> Message:
        """The message of an object, as it is seen at `now` (UTC seconds)."""
        return self._message_type.FromString(self.serialize(obj, now))


def _field(member: Member, encoders: Mapping[type[msgspec.Struct], ModelEncoder]) -> Field:
    write, inline, tag = _writer(member, encoders), None, b""
    if member.wire_name == member.name and not member.instant and member.name not in ALIKE:
        inline = member.shape.kind if member.shape.kind in ("text", "integer") else None
        tag = tag_of(member.descriptor)
    return Field(member.name, _shows_zero(member), write, inline, tag)


def _shows_zero(member: Member) -> bool:
    """Whether a value of zero is written, because it is not the same as none."""
    return member.present_when_set or member.shape.kind == "decimal" or member.wire_name != member.name


# --- writers of fields


def _writer(member: Member, encoders: Mapping[type[msgspec.Struct], ModelEncoder]) -> Write:
    number, shape = member.descriptor.number, member.shape
    if member.wire_name != member.name:
        return lru_cache(_KNOWN)(_sized_writer(number, lambda version: etag_of(version).encode()))
    if shape.element is None:
        return _single_writer(number, shape, member, encoders)
    if shape.kind == "list":
        return _list_writer(number, shape.element, member, encoders)
    write_key = _sized_writer(_KEY, str.encode)
    write_held = _single_writer(_HELD, shape.element, member, encoders)
    tag = length_tag(number)
    return lambda values: b"".join([tag + sized(write_key(key) + write_held(value)) for key, value in values.items()])


def _list_writer(
    number: int, element: Shape, member: Member, encoders: Mapping[type[msgspec.Struct], ModelEncoder]
) -> Write:
    if member.descriptor.is_packed:
        return _sized_writer(number, lambda values: b"".join(map(signed, values)))
    write = _single_writer(number, element, member, encoders)
    return lambda values: b"".join(map(write, values))


def _single_writer(
    number: int, shape: Shape, member: Member, encoders: Mapping[type[msgspec.Struct], ModelEncoder]
) -> Write:
    if member.instant:
        tag = length_tag(number)
        return lru_cache(_KNOWN)(lambda seconds: tag + sized_timestamp(seconds))
    if shape.kind == "choice":
        return _choice_writer(number, member)
    if shape.kind == "boolean":
        tag = varint_tag(number)
        return {True: tag + b"\x01", False: tag + b"\x00"}.__getitem__
    if shape.kind == "integer":
        return _integer_writer(number)
    if shape.struct is not None:
        return _sized_writer(number, encoders[shape.struct].serialize)
    write = _sized_writer(number, _CONTENTS[shape.kind])
    return lru_cache(_KNOWN)(write) if member.name in ALIKE else write


def _sized_writer(number: int, content: Write) -> Write:
    """Writes text, a message, or whatever else stands behind its length."""
    tag = length_tag(number)
    heads = tuple(tag + varint(length) for length in range(SHORT))

    def write(value: Any) -> bytes:
        written = content(value)
        length = len(written)
        return (heads[length] if length < SHORT else tag + varint(length)) + written

    return write


def _integer_writer(number: int) -> Write:
    tag = varint_tag(number)
    small = tuple(tag + varint(value) for value in range(SHORT))
    large = lru_cache(_KNOWN)(lambda value: tag + signed(value))
    return lambda value: small[value] if 0 <= value < SHORT else large(value)


def _choice_writer(number: int, member: Member) -> Write:
    """A choice that the message cannot tell from none is not written."""
    tag = varint_tag(number)
    written = {
        literal: tag + varint(value) if value or member.present_when_set else b""
        for literal, value in member.numbers.items()
    }
    return written.__getitem__


def decimal_text(value: Decimal) -> str:
    """A decimal without an exponent and without trailing zeros behind the point."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


_CONTENTS: Final[Mapping[str, Write]] = {
    "text": str.encode,
    "bytes": bytes,
    "decimal": lambda value: decimal_text(value).encode(),
}


def _encoders() -> dict[type[msgspec.Struct], ModelEncoder]:
    encoders = {
        struct: ModelEncoder(
            match(struct, message, internal=internal, derived=DERIVED.get(struct, NOTHING)),
            message,
        )
        for struct, (message, internal) in MODELS.items()
    }
    for encoder in encoders.values():
        encoder.fill(encoders)
    return encoders


ENCODERS: Mapping[type[msgspec.Struct], ModelEncoder] = _encoders()
"""An encoder for every struct of `MODELS`."""
