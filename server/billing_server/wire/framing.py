"""Protobuf's wire format, as far as events need it: fields that are put together without building a message.

A stored event gets its position long after it was serialized, and a stream carries thousands of stored events
each second; both only ever append or wrap bytes. The format allows it: fields may stand in any order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from google.protobuf.descriptor import FieldDescriptor

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_SMALL: Final = tuple(bytes((number,)) for number in range(128))
_TWO_BYTES: Final = 1 << 14
_MEDIUM: Final = tuple(bytes((number & 127 | 128, number >> 7)) for number in range(_TWO_BYTES))
"""Numbers of up to two bytes are looked up: they are the lengths of nearly all that is put together here."""

_CONTINUED: Final = tuple(bytes((number & 127 | 128, number >> 7 | 128)) for number in range(_TWO_BYTES))
"""The lowest fourteen bits of larger numbers, such as positions."""

_UNSIGNED: Final = 2**64 - 1
_SECONDS: Final = b"\x08"
"""The tag of a Timestamp's seconds."""

_TIMESTAMPS_KNOWN: Final = 4_096
"""A billing run writes the same few moments again and again."""


def varint(number: int) -> bytes:
    """A whole number from 0, seven bits to a byte, lowest first."""
    if number < 128:
        return _SMALL[number]
    if number < _TWO_BYTES:
        return _MEDIUM[number]
    return _CONTINUED[number % _TWO_BYTES] + varint(number >> 14)


def signed(number: int) -> bytes:
    """A whole number of 64 bits; one below zero takes ten bytes."""
    return varint(number & _UNSIGNED)


def varint_tag(number: int) -> bytes:
    """What stands before the number of field `number`."""
    return varint(number << 3 | _VARINT)


def length_tag(number: int) -> bytes:
    """What stands before the length and the bytes of field `number`: text, a message, or one of a list."""
    return varint(number << 3 | _LENGTH)


def double_tag(number: int) -> bytes:
    """What stands before the eight bytes of the floating-point field `number`."""
    return varint(number << 3 | _FIXED64)


def tag_of(descriptor: FieldDescriptor) -> bytes:
    """The tag of a field: text, messages and lists by length, the rest as varints."""
    by_length = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE)
    tag = length_tag if descriptor.type in by_length else varint_tag
    return tag(descriptor.number)


def sized(content: bytes) -> bytes:
    """Bytes behind their length."""
    return varint(len(content)) + content


@lru_cache(_TIMESTAMPS_KNOWN)
def sized_timestamp(seconds: int) -> bytes:
    """A google.protobuf.Timestamp of UTC seconds, behind its length."""
    return sized(_SECONDS + varint(seconds)) if seconds else b"\x00"


def elements(descriptor: FieldDescriptor, messages: Iterable[bytes]) -> bytes:
    """A field that is a list of messages, of these serialized ones."""
    tag = tag_of(descriptor)
    return b"".join([tag + sized(message) for message in messages])


def double(number: float) -> bytes:
    """The eight bytes of a floating-point number."""
    return struct.pack("<d", number)
