"""The server refuses to start when domain and protos do not fit together."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest
from google.protobuf.message import Message

from billing.v1 import catalog_model_pb2, customer_model_pb2, subscription_model_pb2, test_clock_model_pb2
from billing_server.wire.pairs import NOTHING
from billing_server.wire.plans import MismatchError, check_decodable, match
from billing_server.wire.shapes import shape_of


class Address(msgspec.Struct):
    line1: str | None = None
    line2: str | None = None
    city: str | None = None
    state: str | None = None
    postal_code: str | None = None
    country: str | None = None


class AddressWithMore(Address):
    planet: str | None = None


class AddressWithLess(msgspec.Struct):
    line1: str | None = None


class AddressOfNumbers(Address):
    postal_code: int | None = None  # type: ignore[assignment]


class PauseWithOtherChoices(msgspec.Struct):
    behavior: Literal["void", "explode"]
    resumes_at: int | None = None


class PauseWithText(msgspec.Struct):
    behavior: Literal["void", "keep_as_draft", "mark_uncollectible"]
    resumes_at: str | None = None


class TransformWithDefault(msgspec.Struct):
    round: Literal["up", "down"]
    divide_by: int = 10


class TransformOfNothing(msgspec.Struct):
    round: Literal["up", "down"]
    divide_by: int | None = None


CASES: list[tuple[type[msgspec.Struct], type[Message], frozenset[str], str]] = [
    (AddressWithMore, customer_model_pb2.Address, NOTHING, "planet is not in billing.v1.Address"),
    (AddressWithLess, customer_model_pb2.Address, NOTHING, "city is not in AddressWithLess"),
    (Address, customer_model_pb2.Address, frozenset({"planet"}), "has no field 'planet' to keep internal"),
    (AddressOfNumbers, customer_model_pb2.Address, NOTHING, "a integer has no such type"),
    (PauseWithOtherChoices, subscription_model_pb2.PauseCollection, NOTHING, "explode"),
    (PauseWithText, subscription_model_pb2.PauseCollection, NOTHING, "instant"),
    (TransformOfNothing, catalog_model_pb2.TransformQuantity, NOTHING, "zero and none differ"),
]


@pytest.mark.parametrize(("struct", "message", "internal", "words"), CASES)
def test_a_mismatch_is_named(
    struct: type[msgspec.Struct], message: type[Message], internal: frozenset[str], words: str
) -> None:
    with pytest.raises(MismatchError, match=words):
        match(struct, message, internal=internal, derived=NOTHING)


def test_requests_must_tell_absence_from_defaults() -> None:
    plan = match(TransformWithDefault, catalog_model_pb2.TransformQuantity, internal=NOTHING, derived=NOTHING)
    with pytest.raises(MismatchError, match="divide_by needs `optional`: its default is 10"):
        check_decodable(plan)


def test_every_mismatch_is_told_at_once() -> None:
    with pytest.raises(MismatchError, match=r"line1.*frozen_time"):
        match(AddressWithLess, test_clock_model_pb2.TestClock, internal=NOTHING, derived=NOTHING)


@pytest.mark.parametrize("annotation", [float, list[str], dict[int, str], str | int])
def test_annotations_without_a_form_on_the_wire(annotation: object) -> None:
    with pytest.raises(TypeError, match="the wire has no form"):
        shape_of(annotation)
