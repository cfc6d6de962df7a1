"""Bytes to requests. Bytes that are no request are refused with the field that is wrong.

Protobuf's own parser only says that it failed. The most likely cause is text that is not UTF-8, so a refused
message is searched for it, field by field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from billing_server.domain.errors import invalid

Request = TypeVar("Request", bound=Message)

_LENGTH_TYPE = 2
_FIXED_LENGTHS = {1: 8, 5: 4}


def parse(message_type: type[Request], data: bytes) -> Request:
    """The request that the bytes stand for.

    Raises:
        InvalidArgument: the bytes are no such request; the violation names the field when it can be told.
    """
    try:
        return message_type.FromString(data)
    except DecodeError:
        descriptor = cast("Descriptor", message_type.DESCRIPTOR)
        field = _first_invalid_text(descriptor, data, "")
    if field is None:
        raise invalid("", "parameter_invalid", f"the bytes are no {message_type.DESCRIPTOR.full_name}")
    raise invalid(field, "parameter_invalid", "must be valid UTF-8 text")


def _first_invalid_text(descriptor: Descriptor, data: bytes, prefix: str) -> str | None:
    """The path of the first text that is not UTF-8; None when there is none."""
    for number, content in _contents(data):
        field = descriptor.fields_by_number.get(number)
        if field is None:
            continue
        path = prefix + field.name
        if field.type == FieldDescriptor.TYPE_STRING and not _is_text(content):
            return path
        if field.message_type is not None:
            found = _first_invalid_text(field.message_type, content, f"{path}.")
            if found is not None:
                return path if field.message_type.GetOptions().map_entry else found
    return None


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _contents(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the fields that have a length; ends where the bytes make no sense."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _LENGTH_TYPE:
            length, at = _varint(data, at)
            yield tag >> 3, data[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(data, at)
        elif kind in _FIXED_LENGTHS:
            at += _FIXED_LENGTHS[kind]
        else:
            return


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The whole number at a place, and the place behind it."""
    number = shift = 0
    while at < len(data):
        group = data[at]
        at += 1
        number |= (group & 127) << shift
        shift += 7
        if group < 128:
            break
    return number, at
