"""Events as bytes: stored without a position, read with one, batched without being parsed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.v1.event_model_pb2 import CauseKind, EventBatch
from billing.v1.event_model_pb2 import Event as EventMessage
from billing_server.domain.errors import ResourceMissing
from billing_server.domain.event import Cause, Event
from billing_server.domain.test_clock import TestClock
from billing_server.wire.codec import (
    batch_bytes,
    encode,
    encode_event,
    event_batch_bytes,
    event_id,
    framed,
    framed_one,
    position_of,
    with_position,
)
from billing_server.wire.pairs import EVENT_OBJECTS
from tests.wire.strategies import INSTANT, TEXT, structs

ACCOUNT = "acct_0190aabbccddeeff"
CAUSE = Cause(kind="rpc", method="billing.v1.InvoiceService/PayInvoice", idempotency_key="k", request_id="r")
POSITION = st.integers(1, 2**63 - 1)


@pytest.mark.parametrize("struct", EVENT_OBJECTS, ids=lambda struct: struct.__name__)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_stored_bytes_with_their_position_are_the_event(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    obj: Any = data.draw(structs(struct))
    created, position = data.draw(INSTANT), data.draw(POSITION)
    customer = data.draw(st.none() | TEXT)
    stored = encode_event(ACCOUNT, Event("thing.updated", created, customer, obj, {}, CAUSE))
    event = EventMessage.FromString(with_position(stored, ACCOUNT, position))
    assert (event.id, event.position) == (event_id(ACCOUNT, position), position)
    assert (event.type, event.created.seconds, event.account) == ("thing.updated", created, ACCOUNT)
    announced = getattr(obj, "billing_reason", None) == "upcoming"
    assert (event.customer, event.object_id) == (customer or "", "" if announced else obj.id)
    assert event.HasField("previous_attributes")
    assert (event.cause.kind, event.cause.method) == (CauseKind.CAUSE_KIND_RPC, CAUSE.method)
    assert (event.cause.idempotency_key, event.cause.request_id) == ("k", "r")
    assert event.WhichOneof("object") == EVENT_OBJECTS[struct]
    shown: Message = getattr(event, EVENT_OBJECTS[struct])
    assert shown == encode(obj, created)


def test_only_updates_have_previous_attributes() -> None:
    stored = encode_event(ACCOUNT, Event("thing.created", 0, None, _clock(), None, CAUSE))
    assert not EventMessage.FromString(stored).HasField("previous_attributes")


def _clock() -> TestClock:
    return TestClock(id="clock_1", created=0, name=None, frozen_time=0)


@given(positions=st.lists(POSITION, max_size=5), head=st.integers(0, 2**63 - 1), caught_up=st.booleans())
def test_a_batch_is_put_together_from_stored_bytes(positions: list[int], head: int, caught_up: bool) -> None:
    stored = encode_event(ACCOUNT, Event("thing.created", 7, None, _clock(), None, CAUSE))
    data = event_batch_bytes(ACCOUNT, [(at, stored) for at in positions], head, caught_up=caught_up)
    expected = EventBatch(
        events=[EventMessage.FromString(with_position(stored, ACCOUNT, at)) for at in positions],
        head_position=head,
        caught_up=caught_up,
    )
    assert EventBatch.FromString(data) == expected


@pytest.mark.parametrize("first", [1, 125, 16_381, 2**21 - 3, 10**12 - 7, 10**12 - 2, 2**63 - 9])
def test_events_are_framed_together_as_one_by_one(first: int) -> None:
    stored = [encode_event(ACCOUNT, Event("thing.created", number, None, _clock(), None, CAUSE)) for number in range(6)]
    frames = framed(ACCOUNT, first, stored)
    assert frames == [framed_one(ACCOUNT, first + number, each) for number, each in enumerate(stored)]
    batch = EventBatch.FromString(batch_bytes(frames, 7, caught_up=True))
    assert [event.position for event in batch.events] == list(range(first, first + 6))
    assert [event.id for event in batch.events] == [event_id(ACCOUNT, first + number) for number in range(6)]
    assert [event.created.seconds for event in batch.events] == list(range(6))
    assert (batch.head_position, batch.caught_up) == (7, True)


@given(position=POSITION)
def test_ids_tell_positions(position: int) -> None:
    assert position_of(event_id(ACCOUNT, position), ACCOUNT) == position


def test_ids_look_and_sort_as_documented() -> None:
    assert event_id(ACCOUNT, 42) == "evt_bbccddeeff000000000042"
    assert event_id(ACCOUNT, 9) < event_id(ACCOUNT, 10) < event_id(ACCOUNT, 100_000_000_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evt_",
        "evt_bbccddeeff",
        "evt_bbccddeeff42",
        "evt_bbccddeeff000000000000",
        "evt_bbccddeeff00000000000x",
        "evt_bbccddeeff0000000000٤٢",
        "evt_bbccddeeff99999999999999999999",
        "evt_aaaaaaaaaa000000000042",
        "in_0bbccddeeff000000000042",
        "evt_bbccddeeff0000000000042",
    ],
)
def test_other_texts_are_no_ids_of_the_accounts_events(text: str) -> None:
    with pytest.raises(ResourceMissing):
        position_of(text, ACCOUNT)
