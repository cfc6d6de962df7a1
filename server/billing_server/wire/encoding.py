"""Objects to messages, by plans made at import.

Messages are built from nested dictionaries in one call, which costs a fraction of setting field by field:
protobuf's C code then does the work.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from google.protobuf.message import Message

from billing_server.domain import cycle
from billing_server.domain.etag import etag_of
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription
from billing_server.wire.pairs import DERIVED, MODELS, NOTHING
from billing_server.wire.plans import Member, Plan, match
from billing_server.wire.shapes import Shape

Fields = dict[str, Any]
Convert = Callable[[Any], Any]
Derive = Callable[[Fields, Any, int | None], None]


def _finish_invoice(fields: Fields, invoice: Invoice, now: int | None) -> None:
    """Overdue depends on the moment of looking (decision 5); an upcoming invoice has no id (semantics 9)."""
    if invoice.billing_reason == "upcoming":
        del fields["id"]
    if now is not None and invoice.overdue(now):
        fields["overdue"] = True


def _finish_subscription(fields: Fields, subscription: Subscription, now: int | None) -> None:
    """Items share the period of their subscription, and show it; the anchor follows `cancel_at` (semantics 1 and 4)."""
    del now
    if subscription.cancel_at is not None:
        fields["billing_cycle_anchor"] = {"seconds": cycle.shown_anchor(subscription)}
    for item in fields.get("items", ()):
        item["current_period_start"] = fields["current_period_start"]
        item["current_period_end"] = fields["current_period_end"]


_DERIVATIONS: Mapping[type[msgspec.Struct], Derive] = {
    Invoice: _finish_invoice,
    Subscription: _finish_subscription,
}


class ModelEncoder:
    """Encodes the objects of one struct. Its converters are filled in once all encoders exist."""

    __slots__ = ("_converted", "_derive", "_get_converted", "_get_plain", "_plain", "message_type", "plan")

    def __init__(self, plan: Plan, message_type: type[Message]) -> None:
        self.plan = plan
        self.message_type = message_type
        self._derive = _DERIVATIONS.get(plan.struct)
        plain = [member for member in plan.members if _is_plain(member)]
        self._plain = tuple(member.wire_name for member in plain)
        self._get_plain = _getter([member.name for member in plain])
        self._get_converted = _getter([])
        self._converted: tuple[tuple[str, Convert], ...] = ()

    def fill(self, encoders: Mapping[type[msgspec.Struct], ModelEncoder]) -> None:
        """Make the converters, which may need the encoders of nested structs."""
        members = [member for member in self.plan.members if not _is_plain(member)]
        self._get_converted = _getter([member.name for member in members])
        self._converted = tuple((member.wire_name, _converter(member, encoders)) for member in members)

    def fields(self, obj: Any, now: int | None = None) -> Fields:
        """The message's fields as nested dictionaries. Zero values and None are left out, as on the wire."""
        fields = {name: value for name, value in zip(self._plain, self._get_plain(obj), strict=True) if value}
        for (name, convert), value in zip(self._converted, self._get_converted(obj), strict=True):
            if value is not None:
                fields[name] = convert(value)
        if self._derive is not None:
            self._derive(fields, obj, now)
        return fields

    def message(self, obj: msgspec.Struct, now: int | None = None) -> Message:
        """The message of an object, as seen at `now` (UTC seconds)."""
        return self.message_type(**self.fields(obj, now))


def _is_plain(member: Member) -> bool:
    """Whether values go into the message as they are, and zero values may be left out."""
    held = member.shape.element or member.shape
    plain_kind = held.kind in ("text", "integer", "boolean") and not member.instant
    return plain_kind and member.wire_name == member.name and not member.present_when_set


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A fast reader of attributes; unlike a bare attrgetter it gives a tuple for one name and for none."""
    if not names:
        return lambda _: ()
    if len(names) == 1:
        name = names[0]
        return lambda obj: (getattr(obj, name),)
    return operator.attrgetter(*names)


def _converter(member: Member, encoders: Mapping[type[msgspec.Struct], ModelEncoder]) -> Convert:
    if member.wire_name != member.name:
        return etag_of
    shape = member.shape
    if shape.element is None:
        return _single_converter(shape, member, encoders)
    convert = _single_converter(shape.element, member, encoders)
    if shape.kind == "list":
        return lambda values: [convert(value) for value in values]
    return lambda values: {key: convert(value) for key, value in values.items()}


def _single_converter(shape: Shape, member: Member, encoders: Mapping[type[msgspec.Struct], ModelEncoder]) -> Convert:
    if member.instant:
        return lambda seconds: {"seconds": seconds}
    if shape.kind == "choice":
        return dict(member.numbers).__getitem__
    if shape.kind == "decimal":
        return decimal_text
    if shape.struct is not None:
        return encoders[shape.struct].fields
    return _itself


def _itself(value: Any) -> Any:
    return value


def decimal_text(value: Decimal) -> str:
    """A decimal without an exponent and without trailing zeros behind the point."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


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
