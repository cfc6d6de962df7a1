"""Recorded objects back to structs: what an event's message shows of its object.

The way back from `encoding`. What messages do not show (versions, the engine's own notes) is as in a new object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf.message import Message

from billing.v1.event_model_pb2 import Event as EventMessage
from billing_server.wire.encoding import ENCODERS
from billing_server.wire.pairs import EVENT_OBJECTS, RENAMED
from billing_server.wire.plans import Member
from billing_server.wire.shapes import Shape, fields_of

Struct = TypeVar("Struct", bound=msgspec.Struct)
Recall = Callable[[Any], Any]

_ZEROS: Final[Mapping[str, Any]] = {
    "text": "",
    "integer": 0,
    "boolean": False,
    "decimal": Decimal(0),
    "list": (),
    "map": {},
}


class _Recaller:
    """Reads the messages of one struct. Its readers are made when they are first needed."""

    __slots__ = ("_absent", "_members", "_readers", "_struct")

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        members = [member for member in ENCODERS[struct].plan.members if member.name not in RENAMED]
        shown = {member.name for member in members}
        self._struct = struct
        self._members = {member.wire_name: member for member in members}
        self._readers: dict[str, Recall] = {}
        self._absent = {member.name: _absent(member) for member in members}
        for field in fields_of(struct):
            if field.name not in shown and field.required:
                self._absent[field.name] = _zero(field.shape)

    def read(self, message: Message) -> Any:
        """The struct that a message shows."""
        found = dict(self._absent)
        for descriptor, value in message.ListFields():
            member = self._members.get(descriptor.name)
            if member is not None:
                found[member.name] = self._reader(member)(value)
        return self._struct(**found)

    def _reader(self, member: Member) -> Recall:
        reader = self._readers.get(member.wire_name)
        if reader is None:
            reader = self._readers[member.wire_name] = _reader(member)
        return reader


def _absent(member: Member) -> Any:
    """What a field that is not in the message stands for: nothing, or the zero value."""
    if member.shape.nullable:
        return None
    if member.shape.kind == "choice":
        return member.literals.get(0, member.default)
    if member.shape.kind == "struct":
        return member.default
    return _ZEROS[member.shape.kind]


def _zero(shape: Shape) -> Any:
    if shape.nullable:
        return None
    return shape.choices[0] if shape.kind == "choice" else _ZEROS[shape.kind]


def _reader(member: Member) -> Recall:
    shape = member.shape
    if shape.element is None:
        return _single(shape, member)
    read = _single(shape.element, member)
    if shape.kind == "list":
        return lambda values: tuple(map(read, values))
    return lambda values: {key: read(value) for key, value in values.items()}


def _single(shape: Shape, member: Member) -> Recall:
    if member.instant:
        return lambda timestamp: timestamp.seconds
    if shape.kind == "choice":
        return dict(member.literals).__getitem__
    if shape.kind == "decimal":
        return Decimal
    if shape.struct is not None:
        return _recaller(shape.struct).read
    return lambda value: value


_RECALLERS: dict[type[msgspec.Struct], _Recaller] = {}


def _recaller(struct: type[msgspec.Struct]) -> _Recaller:
    recaller = _RECALLERS.get(struct)
    if recaller is None:
        recaller = _RECALLERS[struct] = _Recaller(struct)
    return recaller


def recall(struct: type[Struct], message: Message) -> Struct:
    """The object of this kind that a message shows."""
    found: Struct = _recaller(struct).read(message)
    return found


def recall_object(struct: type[Struct], stored: bytes) -> Struct:
    """The object of a recorded event, from the bytes that are stored of it."""
    event = EventMessage.FromString(stored)
    return recall(struct, getattr(event, EVENT_OBJECTS[struct]))
