"""What an event shows of its object is read back as it was shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_server.domain.customer import Customer
from billing_server.domain.event import Cause, Event
from billing_server.domain.invoice import Invoice
from billing_server.wire.codec import encode, encode_event
from billing_server.wire.pairs import EVENT_OBJECTS
from billing_server.wire.recalling import recall, recall_object
from tests.wire.strategies import structs


@pytest.mark.parametrize("struct", EVENT_OBJECTS, ids=lambda struct: struct.__name__)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_was_shown_is_read_back(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    item = data.draw(structs(struct))
    message = encode(item)
    assert encode(recall(struct, message)) == _without_etag(message)


def _without_etag(message: Any) -> Any:
    """The version is not read back: a recalled object has the first one."""
    shown = type(message)()
    shown.CopyFrom(message)
    if "etag" in shown.DESCRIPTOR.fields_by_name:
        shown.etag = "v1"
    return shown


def test_the_object_of_a_stored_event() -> None:
    customer = Customer(id="cus_1", created=5, invoice_prefix="ABC", metadata={"tier": "gold"}, deleted=True)
    event = Event("customer.deleted", 9, "cus_1", customer, None, Cause(kind="timer"))
    assert recall_object(Customer, encode_event("acct_1", event)) == customer


def test_what_is_not_shown_is_as_in_a_new_object() -> None:
    invoice = msgspec.convert(
        {
            "id": "in_1",
            "created": 1,
            "customer": "cus_1",
            "currency": "usd",
            "status": "open",
            "billing_reason": "manual",
            "collection_method": "send_invoice",
            "auto_advance": False,
            "period_start": 0,
            "period_end": 1,
            "charging": True,
            "first_failure_at": 7,
        },
        Invoice,
    )
    recalled = recall(Invoice, encode(invoice))
    assert recalled == msgspec.structs.replace(invoice, charging=False, first_failure_at=None)
    assert recalled.auto_advance is False
