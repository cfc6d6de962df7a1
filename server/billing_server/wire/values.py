"""Single values of requests: checked, converted, and refused with the field that they stand in.

Text must not contain the NUL character, which PostgreSQL cannot keep. Times are whole seconds from 1970 to
9999: fractions of a second are cut off. Decimals are written with digits and one point, without an exponent.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from billing_server.domain.calendar import LAST_INSTANT
from billing_server.domain.errors import InvalidArgument, Violation
from billing_server.wire.plans import is_map_field, map_value

DECIMAL_LENGTH_MAX: Final = 40
_DECIMAL: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_NANOS_END: Final = 1_000_000_000
_TIMESTAMP: Final = "google.protobuf.Timestamp"


class Refusals:
    """Collects what is wrong with a request, so that its caller is told everything at once."""

    __slots__ = ("violations",)

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, field: str, reason: str, description: str) -> None:
        """Note a violation of `field`, a path such as "items[0].price"."""
        self.violations.append(Violation(field, reason, description))

    def raise_any(self) -> None:
        """Raise `InvalidArgument` with all violations, if there are any."""
        if self.violations:
            raise InvalidArgument(*self.violations)


def text(value: str, path: str, refusals: Refusals) -> str:
    """The text itself."""
    if "\x00" in value:
        refusals.add(path, "parameter_invalid", "must not contain the NUL character")
    return value


def instant(value: Any, path: str, refusals: Refusals) -> int:
    """UTC seconds of a Timestamp, without its fraction."""
    seconds: int = value.seconds
    if not 0 <= value.nanos < _NANOS_END:
        refusals.add(path, "parameter_invalid", "is no valid timestamp: nanos are 0 to 999999999")
    if not 0 <= seconds <= LAST_INSTANT:
        refusals.add(path, "time_out_of_range", "must lie between 1970-01-01 and 9999-12-31")
        return 0
    return seconds


def decimal(value: str, path: str, refusals: Refusals) -> Decimal:
    """The number that a decimal string stands for."""
    if len(value) > DECIMAL_LENGTH_MAX or _DECIMAL.fullmatch(value) is None:
        refusals.add(
            path,
            "parameter_invalid",
            f"must be a decimal number such as '12.5', of at most {DECIMAL_LENGTH_MAX} characters",
        )
        return Decimal(0)
    return Decimal(value)


def unknown_number(descriptor: FieldDescriptor, path: str, refusals: Refusals) -> None:
    """Refuse the number of an enum value that this server does not know, or that says nothing."""
    assert descriptor.enum_type is not None
    known = ", ".join(value.name for value in descriptor.enum_type.values if value.number)
    refusals.add(path, "parameter_unknown", f"must be one of {known}")


def check(request: Message) -> None:
    """Check every value of a request that has no command, such as one of a List or Get method.

    Raises:
        InvalidArgument: with all violations: NUL in text, times out of range, unknown enum values.
    """
    refusals = Refusals()
    _check_fields(request, "", refusals)
    refusals.raise_any()


def _check_fields(message: Message, prefix: str, refusals: Refusals) -> None:
    for descriptor, value in message.ListFields():
        path = prefix + descriptor.name
        if is_map_field(descriptor):
            for key, held in value.items():
                text(key, path, refusals)
                _check_value(map_value(descriptor), held, f'{path}["{key}"]', refusals)
        elif descriptor.is_repeated:
            for index, element in enumerate(value):
                _check_value(descriptor, element, f"{path}[{index}]", refusals)
        else:
            _check_value(descriptor, value, path, refusals)


def _check_value(descriptor: FieldDescriptor, value: Any, path: str, refusals: Refusals) -> None:
    if descriptor.type == FieldDescriptor.TYPE_STRING:
        text(value, path, refusals)
    elif descriptor.enum_type is not None:
        if value not in descriptor.enum_type.values_by_number:
            unknown_number(descriptor, path, refusals)
    elif descriptor.message_type is not None:
        if descriptor.message_type.full_name == _TIMESTAMP:
            instant(value, path, refusals)
        else:
            _check_fields(value, f"{path}.", refusals)
