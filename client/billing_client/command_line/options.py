"""Options that many commands share, and how their texts are read. What cannot be read is a usage error."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from billing_client.command_line.rendering import enum_words
from billing_client.instants import parse_instant
from billing_client.money import parse_money, parse_unit_amount

Identifier = Annotated[str, typer.Argument(help="Id of the object.", show_default=False)]
Limit = Annotated[int, typer.Option(help="Most objects to list; 0 lists all.", min=0)]
Metadata = Annotated[list[str] | None, typer.Option("--metadata", help="KEY=VALUE of one's own; may be repeated.")]
CustomerFilter = Annotated[str, typer.Option("--customer", help="Only those of this customer.")]

LIST_LIMIT = 50

Request = TypeVar("Request", bound=Message)


class ProtoEnum(Protocol):
    """An enum of the contract."""

    @property
    def DESCRIPTOR(self) -> EnumDescriptor:  # noqa: N802  (protobuf's name)
        """What protobuf knows of it."""


def pairs(texts: Sequence[str] | None, option: str = "--metadata") -> dict[str, str]:
    """KEY=VALUE texts as a dictionary."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE.", param_hint=option)
        found[key] = value
    return found


def enum_value(kind: ProtoEnum, text: str, option: str) -> Any:
    """The value of an enum by its word; 0 for an empty text."""
    if not text:
        return 0
    words = enum_words(kind.DESCRIPTOR)
    word = text.strip().lower().replace("-", "_")
    if word not in words:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(words)}.", param_hint=option)
    return words[word]


def money(text: str, currency: str, option: str) -> int:
    """Minor units of an amount that was typed in major ones."""
    try:
        return parse_money(text, currency)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None


def unit_amount(text: str, currency: str, option: str) -> str:
    """The price of a unit, typed in major units, as the contract has it."""
    try:
        return parse_unit_amount(text, currency)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None


def instant(text: str, option: str, now: int | None = None) -> Timestamp:
    """An instant that was typed; steps count from `now`, by default the real time."""
    try:
        return Timestamp(seconds=parse_instant(text, int(time.time()) if now is None else now))
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint=option) from None


def read_json(path: str, request: Request) -> Request:
    """A request from a file with protobuf's JSON, or from standard input for "-"."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        return Parse(text, request)
    except (OSError, ParseError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}.", param_hint="--from") from None
