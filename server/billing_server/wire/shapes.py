"""What the fields of the domain's structs are made of, read from their annotations."""

from __future__ import annotations

import types
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

Kind = Literal["text", "integer", "boolean", "decimal", "choice", "struct", "list", "map", "bytes"]

_SIMPLE: dict[object, Kind] = {
    str: "text",
    int: "integer",
    bool: "boolean",
    Decimal: "decimal",
    bytes: "bytes",
}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """One annotation: its kind, whether it may be None or UNSET, and what it contains."""

    kind: Kind
    nullable: bool = False
    unsettable: bool = False
    choices: tuple[str, ...] = ()
    struct: type[msgspec.Struct] | None = None
    element: Shape | None = None


class StructField(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a struct; `default` counts only when it is not required."""

    name: str
    shape: Shape
    required: bool
    default: Any = None


def fields_of(struct: type[msgspec.Struct]) -> tuple[StructField, ...]:
    """The fields of a struct, in its order."""
    hints = get_type_hints(struct)
    return tuple(
        StructField(
            name=field.name,
            shape=shape_of(hints[field.name]),
            required=field.required,
            default=_default(field),
        )
        for field in msgspec.structs.fields(struct)
    )


def shape_of(annotation: object) -> Shape:
    """The shape of an annotation; TypeError when the wire has no form for it."""
    simple = _SIMPLE.get(annotation)
    if simple is not None:
        return Shape(kind=simple)
    origin = get_origin(annotation)
    if origin is Literal:
        return Shape(kind="choice", choices=get_args(annotation))
    if origin in (Union, types.UnionType):
        return _union(annotation)
    if origin is tuple and len(get_args(annotation)) == 2 and get_args(annotation)[1] is Ellipsis:
        return Shape(kind="list", element=shape_of(get_args(annotation)[0]))
    if origin is dict and get_args(annotation)[0] is str:
        return Shape(kind="map", element=shape_of(get_args(annotation)[1]))
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return Shape(kind="struct", struct=annotation)
    raise TypeError(f"the wire has no form for {annotation}")


def _union(annotation: object) -> Shape:
    members = get_args(annotation)
    shapes = [shape_of(member) for member in members if member not in (types.NoneType, UnsetType)]
    if len(shapes) != 1:
        raise TypeError(f"the wire has no form for {annotation}")
    return msgspec.structs.replace(shapes[0], nullable=types.NoneType in members, unsettable=UnsetType in members)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return UNSET if field.default is msgspec.NODEFAULT and not field.required else field.default
