"""Field-by-field plans between structs and messages, matched and checked once, at import.

A plan fails with `MismatchError` when the two sides do not fit: a field on one side only that `pairs` does
not declare, an instant that is no Timestamp, an enum whose values are not exactly the choices of the domain,
or a request field whose absence could not be told from the domain's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, cast

import msgspec
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from msgspec import UNSET

from billing_server.wire.pairs import INPUTS, INSTANTS, MODELS, RENAMED, Internal
from billing_server.wire.shapes import Shape, StructField, fields_of

_TIMESTAMP = "google.protobuf.Timestamp"
_INTEGERS = frozenset({FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64})
_TYPES: Mapping[str, frozenset[int]] = {
    "text": frozenset({FieldDescriptor.TYPE_STRING}),
    "decimal": frozenset({FieldDescriptor.TYPE_STRING}),
    "integer": _INTEGERS,
    "boolean": frozenset({FieldDescriptor.TYPE_BOOL}),
    "choice": frozenset({FieldDescriptor.TYPE_ENUM}),
    "struct": frozenset({FieldDescriptor.TYPE_MESSAGE}),
}
_ZEROS: tuple[object, ...] = (None, UNSET, "", False, 0, (), {}, Decimal(0))
_UNSPECIFIED = "unspecified"


class MismatchError(Exception):
    """Domain and protos do not fit together; the server must not start."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One field on both sides. Enums come with both directions of their values."""

    name: str
    wire_name: str
    shape: Shape
    required: bool
    default: Any
    descriptor: FieldDescriptor
    instant: bool
    numbers: Mapping[str, int] = {}
    literals: Mapping[int, str] = {}

    @property
    def present_when_set(self) -> bool:
        """Whether the message tells "not set" from the zero value."""
        return bool(self.descriptor.has_presence)

    @property
    def wide(self) -> bool:
        """Whether it is a 64-bit integer, which JSON shows as text."""
        return self.descriptor.type == FieldDescriptor.TYPE_INT64


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A struct and a message, matched."""

    struct: type[msgspec.Struct]
    message: Descriptor
    members: tuple[Member, ...]


def match(
    struct: type[msgspec.Struct], message_type: type[Message], *, internal: Internal, derived: frozenset[str]
) -> Plan:
    """Match a struct with a message; `MismatchError` names every field that does not fit."""
    message = cast("Descriptor", message_type.DESCRIPTOR)
    problems: list[str] = []
    members: list[Member] = []
    wire_fields = message.fields_by_name
    fields = fields_of(struct)
    problems += [
        f"{struct.__name__} has no field '{name}' to keep internal"
        for name in sorted(internal - {field.name for field in fields})
    ]
    for field in fields:
        if field.name in internal:
            continue
        wire_name = RENAMED.get(field.name, field.name)
        descriptor = wire_fields.get(wire_name)
        if descriptor is None:
            problems.append(f"{struct.__name__}.{field.name} is not in {message.full_name}, nor internal")
            continue
        try:
            members.append(_member(field, wire_name, descriptor))
        except MismatchError as problem:
            problems.append(f"{struct.__name__}.{field.name} and {message.full_name}.{wire_name}: {problem}")
    left_over = set(wire_fields) - {member.wire_name for member in members} - derived
    problems += [f"{message.full_name}.{name} is not in {struct.__name__}" for name in sorted(left_over)]
    if problems:
        raise MismatchError("; ".join(problems))
    return Plan(struct=struct, message=message, members=tuple(members))


def check_decodable(plan: Plan) -> None:
    """Make sure that what a request leaves out can be told; `MismatchError` names the fields where it cannot.

    A required field is missing at its zero value, so no required field may be a boolean; an optional field at
    its zero value means the domain's default, so that default must be zero or the message must know presence.
    """
    problems = [f"{member.wire_name} {problem}" for member in plan.members if (problem := _undecodable(member))]
    if problems:
        raise MismatchError(f"{plan.message.full_name}: " + "; ".join(problems))


def _undecodable(member: Member) -> str:
    """What keeps a field from being decoded, or nothing."""
    if member.required:
        shown = member.shape.nullable or member.shape.kind not in ("boolean", "list", "map")
        return "" if shown else "is required, but a request cannot show that it is missing"
    if member.present_when_set or member.shape.kind in ("list", "map"):
        return ""
    if member.shape.unsettable:
        return "needs `optional`: it can be left unset"
    if member.shape.kind == "choice" or member.default in _ZEROS:
        return ""
    return f"needs `optional`: its default is {member.default!r}"


def _member(field: StructField, wire_name: str, descriptor: FieldDescriptor) -> Member:
    if field.name in RENAMED:
        return _version(field, wire_name, descriptor)
    shape = field.shape
    single = _single(shape, descriptor)
    held = map_value(descriptor) if shape.kind == "map" else descriptor
    instant = _is_timestamp(held)
    if instant != (single.kind == "integer" and field.name in INSTANTS):
        raise MismatchError("one is an instant, the other is not (see INSTANTS)")
    if not instant and held.type not in _TYPES.get(single.kind, frozenset()):
        raise MismatchError(f"a {single.kind} has no such type in messages")
    if single.struct is not None and held.message_type is not _message_of(single.struct):
        raise MismatchError(f"one holds {single.struct.__name__}, the other another message")
    if single.kind == "integer" and shape.nullable and not descriptor.has_presence:
        raise MismatchError("needs `optional`: zero and none differ")
    numbers = _enum_numbers(held.enum_type, single) if held.enum_type is not None else {}
    return Member(
        name=field.name,
        wire_name=wire_name,
        shape=shape,
        required=field.required,
        default=field.default,
        descriptor=descriptor,
        instant=instant,
        numbers=numbers,
        literals={number: literal for literal, number in numbers.items()},
    )


def _version(field: StructField, wire_name: str, descriptor: FieldDescriptor) -> Member:
    if field.shape.kind != "integer" or descriptor.type != FieldDescriptor.TYPE_STRING:
        raise MismatchError("a version is an integer, an etag a string")
    return Member(
        name=field.name,
        wire_name=wire_name,
        shape=field.shape,
        required=False,
        default=field.default,
        descriptor=descriptor,
        instant=False,
    )


def _single(shape: Shape, descriptor: FieldDescriptor) -> Shape:
    """The shape of a single value; checks that lists, maps and single values meet their like."""
    is_map = is_map_field(descriptor)
    is_list = descriptor.is_repeated and not is_map
    if (shape.kind == "map") != is_map or (shape.kind == "list") != is_list:
        raise MismatchError(f"one is a {shape.kind}, the other is not")
    return shape.element if shape.element is not None else shape


def _is_timestamp(descriptor: FieldDescriptor) -> bool:
    return descriptor.message_type is not None and descriptor.message_type.full_name == _TIMESTAMP


def _message_of(struct: type[msgspec.Struct]) -> object:
    message = MODELS[struct][0] if struct in MODELS else INPUTS[struct]
    return message.DESCRIPTOR


def is_map_field(descriptor: FieldDescriptor) -> bool:
    """Whether a repeated field is a map."""
    return descriptor.message_type is not None and bool(descriptor.message_type.GetOptions().map_entry)


def map_value(descriptor: FieldDescriptor) -> FieldDescriptor:
    """The field that describes the values of a map."""
    assert descriptor.message_type is not None
    return descriptor.message_type.fields_by_name["value"]


def _enum_numbers(enum: EnumDescriptor, shape: Shape) -> dict[str, int]:
    """Numbers of the domain's choices. "unspecified" is a choice of its own only where the domain has it."""
    prefix = _enum_prefix(enum.name)
    numbers = {value.name.removeprefix(prefix).lower(): value.number for value in enum.values}
    if _UNSPECIFIED not in shape.choices:
        numbers.pop(_UNSPECIFIED, None)
    if set(numbers) != set(shape.choices):
        raise MismatchError(f"the values {sorted(set(numbers) ^ set(shape.choices))} are on one side only")
    return numbers


def _enum_prefix(name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).upper().strip("_") + "_"
