"""Random structs of the domain, and an independent reading and writing of messages to compare the wire with.

Nothing here uses the wire's plans: values are found through protobuf's own reflection and compared by the
naming rules alone.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from msgspec import UNSET

from billing_server.domain.calendar import LAST_INSTANT
from billing_server.wire.pairs import INPUTS, INSTANTS, MODELS
from billing_server.wire.shapes import Shape, StructField, fields_of

INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12)
INSTANT = st.integers(0, LAST_INSTANT)
DECIMAL = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9)


def structs(struct: type[msgspec.Struct], *, nonzero: bool = False) -> st.SearchStrategy[Any]:
    """Random objects. With `nonzero`, required fields are never at a zero value, as requests demand."""
    return st.builds(struct, **{field.name: _field_values(field, nonzero) for field in fields_of(struct)})


def _field_values(field: StructField, nonzero: bool) -> st.SearchStrategy[Any]:
    values = _shape_values(field.shape, field.name in INSTANTS, nonzero)
    if nonzero and field.required and field.shape.kind == "integer":
        values = values.filter(bool)
    if field.shape.nullable:
        values = st.none() | values
    return st.just(UNSET) | values if field.shape.unsettable else values


def _shape_values(shape: Shape, instant: bool, nonzero: bool) -> st.SearchStrategy[Any]:
    if shape.struct is not None:
        return structs(shape.struct, nonzero=nonzero)
    if shape.element is not None:
        elements = _shape_values(shape.element, instant, nonzero)
        if shape.kind == "list":
            return st.lists(elements, max_size=2).map(tuple)
        return st.dictionaries(TEXT, elements, max_size=2)
    if shape.kind == "choice":
        return st.sampled_from(shape.choices)
    if shape.kind == "integer":
        return INSTANT if instant else INT32
    simple: dict[str, st.SearchStrategy[Any]] = {
        "text": TEXT,
        "boolean": st.booleans(),
        "decimal": DECIMAL,
        "bytes": st.binary(max_size=4),
    }
    return simple[shape.kind]


def read_back(message: Message, struct: type[msgspec.Struct], names: frozenset[str]) -> dict[str, Any]:
    """The fields `names` of a message, with the values that a struct would have."""
    return {field.name: _value(message, field.name, field.shape) for field in fields_of(struct) if field.name in names}


def shown(obj: msgspec.Struct, names: frozenset[str]) -> dict[str, Any]:
    """The fields `names` of an object, nested structs as mappings, in the form of `read_back`."""
    return {field.name: _shown(getattr(obj, field.name)) for field in fields_of(type(obj)) if field.name in names}


def _shown(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _shown(getattr(value, name)) for name in visible(type(value))}
    if isinstance(value, tuple):
        return tuple(_shown(element) for element in value)
    return value


def visible(struct: type[msgspec.Struct]) -> frozenset[str]:
    """Names that are on both sides, versions apart."""
    message, internal = MODELS[struct] if struct in MODELS else (INPUTS[struct], frozenset[str]())
    names = frozenset(field.name for field in fields_of(struct)) - internal - {"version"}
    assert names <= set(message.DESCRIPTOR.fields_by_name)
    return names


def _value(message: Any, name: str, shape: Shape) -> Any:
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    held = getattr(message, name)
    if shape.kind == "list":
        assert shape.element is not None
        return tuple(_single(element, shape.element, descriptor) for element in held)
    if shape.kind == "map":
        assert shape.element is not None
        return {
            key: _single(value, shape.element, descriptor.message_type.fields_by_name["value"])
            for key, value in held.items()
        }
    if descriptor.has_presence and not message.HasField(name):
        return None
    value = _single(held, shape, descriptor)
    return None if shape.nullable and value == "" else value


def _single(value: Any, shape: Shape, descriptor: Any) -> Any:
    if isinstance(value, Timestamp):
        assert value.nanos == 0
        return value.seconds
    if shape.struct is not None:
        return read_back(value, shape.struct, visible(shape.struct))
    if shape.kind == "decimal":
        return Decimal(value) if value else None
    if shape.kind == "choice":
        name = descriptor.enum_type.values_by_number[value].name
        found = [choice for choice in shape.choices if name.endswith("_" + choice.upper())]
        return max(found, key=len) if found else None
    return value


def write(message: Any, obj: msgspec.Struct) -> None:
    """Fill a request with what a command says, leaving out what is None, UNSET or empty."""
    for field in fields_of(type(obj)):
        value = getattr(obj, field.name)
        if value is not None and value is not UNSET:
            _write_value(message, field.name, value)


def _write_value(message: Any, name: str, value: Any) -> None:
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if isinstance(value, tuple):
        for element in value:
            if isinstance(element, msgspec.Struct):
                write(getattr(message, name).add(), element)
            else:
                getattr(message, name).append(element)
    elif isinstance(value, dict):
        for key, held in value.items():
            getattr(message, name)[key] = str(held)
    elif isinstance(value, msgspec.Struct):
        getattr(message, name).SetInParent()
        write(getattr(message, name), value)
    elif descriptor.message_type is not None:
        getattr(message, name).CopyFrom(Timestamp(seconds=value))
    elif descriptor.enum_type is not None:
        names = [each.name for each in descriptor.enum_type.values if each.name.endswith("_" + value.upper())]
        setattr(message, name, min(names, key=len))
    else:
        setattr(message, name, str(value) if isinstance(value, Decimal) else value)
