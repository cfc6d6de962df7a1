"""Requests to commands, by plans made at import.

What a request leaves out keeps the command's default. In updates a field changes when it is set, or, with an
`update_mask`, when the mask names it; a field that the mask names and the request does not set is cleared.
Every violation is found before the request is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

from billing_server.wire import values
from billing_server.wire.pairs import COMMANDS, INPUTS, MODELS, NOTHING
from billing_server.wire.plans import Member, MismatchError, Plan, check_decodable, match
from billing_server.wire.shapes import Shape
from billing_server.wire.values import Refusals

Struct = TypeVar("Struct", bound=msgspec.Struct)
Read = Callable[[Any, str, Refusals], Any]

MASK = "update_mask"

_EMPTY: Mapping[str, Any] = {"list": (), "map": {}}


class RequestDecoder:
    """Decodes messages into one struct. Its readers are filled in once all decoders exist."""

    __slots__ = ("_absent", "_fields", "_readers", "_required", "_updatable", "plan")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._fields = {member.wire_name: member for member in plan.members}
        self._readers: dict[str, Read] = {}
        required = [member for member in plan.members if member.required]
        self._required = tuple(member.name for member in required if not member.shape.nullable)
        self._absent = {member.name: None for member in required if member.shape.nullable}
        self._updatable = {member.wire_name for member in plan.members if member.shape.unsettable}

    def fill(self, decoders: Mapping[type[msgspec.Struct], RequestDecoder]) -> None:
        """Make the readers, which may need the decoders of nested structs."""
        self._readers = {name: _reader(member, decoders) for name, member in self._fields.items()}

    def read(self, message: Message, prefix: str, refusals: Refusals, extra: Mapping[str, Any]) -> Any:
        """The struct of a message. It means nothing when a refusal was added."""
        mask = self._mask(message, refusals) if MASK in message.DESCRIPTOR.fields_by_name else None
        found: dict[str, Any] = {**self._absent, **extra}
        for descriptor, value in message.ListFields():
            name = descriptor.name
            if name == MASK or (mask is not None and name in self._updatable and name not in mask):
                continue
            found[self._fields[name].name] = self._readers[name](value, prefix + name, refusals)
        for name in sorted((mask or frozenset()).difference(found)):
            found[name] = self._cleared(self._fields[name], prefix, refusals)
        missing = [name for name in self._required if name not in found]
        for name in missing:
            refusals.add(prefix + name, "parameter_missing", "is required")
        return None if missing else self.plan.struct(**found)

    def _mask(self, message: Any, refusals: Refusals) -> frozenset[str] | None:
        """The updatable fields that the mask names; None without a mask."""
        if not message.HasField(MASK):
            return None
        paths = frozenset(message.update_mask.paths)
        for path in sorted(paths - self._updatable):
            refusals.add(
                MASK,
                "parameter_unknown",
                f"'{path}' cannot be updated; valid paths are {', '.join(sorted(self._updatable))}",
            )
        return paths & self._updatable

    @staticmethod
    def _cleared(member: Member, prefix: str, refusals: Refusals) -> Any:
        if not member.shape.nullable and member.shape.kind not in _EMPTY:
            refusals.add(
                prefix + member.wire_name,
                "parameter_invalid_empty",
                "is named in update_mask but not set, and cannot be cleared",
            )
        return _EMPTY.get(member.shape.kind)


def _reader(member: Member, decoders: Mapping[type[msgspec.Struct], RequestDecoder]) -> Read:
    shape = member.shape
    if shape.element is None:
        return _single_reader(shape, member, decoders)
    read = _single_reader(shape.element, member, decoders)
    if shape.kind == "list":
        return lambda found, path, refusals: tuple(
            read(value, f"{path}[{index}]", refusals) for index, value in enumerate(found)
        )
    if shape.element.kind == "text":
        # A value may be empty: in an update of metadata that removes its key.
        read = values.text

    def read_map(found: Any, path: str, refusals: Refusals) -> dict[str, Any]:
        return {
            values.text(key, path, refusals): read(value, f'{path}["{key}"]', refusals) for key, value in found.items()
        }

    return read_map


def _single_reader(shape: Shape, member: Member, decoders: Mapping[type[msgspec.Struct], RequestDecoder]) -> Read:
    if shape.struct is not None:
        decoder = decoders[shape.struct]
        return lambda message, path, refusals: decoder.read(message, f"{path}.", refusals, {})
    if member.instant:
        return values.instant
    if shape.kind == "choice":
        return _choice_reader(member)
    if shape.kind == "decimal":
        return values.decimal
    if shape.kind == "text":
        return _text_reader(shape)
    return _as_it_is


def _as_it_is(value: Any, path: str, refusals: Refusals) -> Any:
    """Integers and booleans: protobuf has checked them, the domain judges them."""
    del path, refusals
    return value


def _text_reader(shape: Shape) -> Read:
    """Reads text that was set explicitly: an empty one clears the field, where it can be cleared."""

    def read(value: str, path: str, refusals: Refusals) -> str | None:
        if value:
            return values.text(value, path, refusals)
        if not shape.nullable:
            refusals.add(path, "parameter_invalid_empty", "must not be empty")
        return None

    return read


def _choice_reader(member: Member) -> Read:
    """Reads an enum that was set explicitly: UNSPECIFIED clears the field, where it can be cleared."""
    literals = dict(member.literals)
    nullable = member.shape.nullable

    def read(number: int, path: str, refusals: Refusals) -> str | None:
        literal = literals.get(number)
        if literal is None and (number or not nullable):
            values.unknown_number(member.descriptor, path, refusals)
        return literal

    return read


def _decoders() -> dict[type[msgspec.Struct], RequestDecoder]:
    """Decoders of commands, and of every struct that a command holds."""
    decoders: dict[type[msgspec.Struct], RequestDecoder] = {}
    waiting = list(COMMANDS)
    while waiting:
        struct = waiting.pop()
        if struct in decoders:
            continue
        plan = _plan(struct)
        decoders[struct] = RequestDecoder(plan)
        held = (member.shape.element or member.shape for member in plan.members)
        waiting += [shape.struct for shape in held if shape.struct is not None]
    for decoder in decoders.values():
        decoder.fill(decoders)
    return decoders


def _plan(struct: type[msgspec.Struct]) -> Plan:
    """The checked plan of a struct that comes in."""
    if struct in COMMANDS:
        message, internal = COMMANDS[struct], NOTHING
    elif struct in INPUTS:
        message, internal = INPUTS[struct], NOTHING
    else:
        message, internal = MODELS[struct]
    derived = frozenset({MASK}) & frozenset(message.DESCRIPTOR.fields_by_name)
    plan = match(struct, message, internal=internal, derived=derived)
    check_decodable(plan)
    updates = struct in COMMANDS and any(member.shape.unsettable for member in plan.members)
    if updates != bool(derived):
        raise MismatchError(f"{plan.message.full_name}: updates have an update_mask, and nothing else has")
    return plan


DECODERS: Mapping[type[msgspec.Struct], RequestDecoder] = _decoders()
"""A decoder for every command with a request, and for every struct inside of one."""


def decode(request: Message, command_type: type[Struct], **extra: Any) -> Struct:
    """The command that a request asks for. `extra` gives fields of the command that requests do not have.

    Raises:
        InvalidArgument: with all violations: required fields that are missing, values that no field like
            theirs can have, mask paths that name no field, cleared fields that need a value.
    """
    decoder = DECODERS[command_type]
    if request.DESCRIPTOR is not decoder.plan.message:
        raise TypeError(f"{request.DESCRIPTOR.full_name} is no request for {command_type.__name__}")
    refusals = Refusals()
    command: Struct = decoder.read(request, "", refusals, extra)
    refusals.raise_any()
    return command
