"""What objects were before, in the forms of protobuf's JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_server.domain.account import Account, EmailSettings, Settings
from billing_server.domain.catalog import Price
from billing_server.domain.customer import Customer, Shipping
from billing_server.domain.event import previous_attributes
from billing_server.domain.invoice import Invoice, InvoiceLine
from billing_server.domain.subscription import PauseCollection, Subscription, SubscriptionItem
from billing_server.wire.attributes import as_shown, struct_bytes
from billing_server.wire.codec import encode
from billing_server.wire.pairs import DERIVED, EVENT_OBJECTS
from tests.wire.strategies import structs


def attributes(struct: type[msgspec.Struct], values: dict[str, Any]) -> dict[str, Any]:
    """The attributes as a reader of JSON sees them."""
    found: dict[str, Any] = MessageToDict(Struct.FromString(struct_bytes(struct, values)))
    return found


LINE = InvoiceLine(
    id="il_1",
    type="invoice_item",
    amount=-5,
    description="Credit",
    quantity=None,
    period_start=0,
    period_end=86_400,
)


@pytest.mark.parametrize(
    ("struct", "before", "expected"),
    [
        (Invoice, {"status": "open"}, {"status": "INVOICE_STATUS_OPEN"}),
        (Invoice, {"amount_paid": 9007199254740993}, {"amount_paid": "9007199254740993"}),
        (Invoice, {"attempt_count": 0, "attempted": False}, {"attempt_count": 0, "attempted": False}),
        (Invoice, {"paid_at": None, "number": None}, {"paid_at": None, "number": None}),
        (Invoice, {"due_date": 1738281600}, {"due_date": "2025-01-31T00:00:00Z"}),
        (Invoice, {"retries_done": 1, "version": 2}, {}),
        (
            Invoice,
            {"lines": (LINE,)},
            {
                "lines": [
                    {
                        "id": "il_1",
                        "type": "LINE_TYPE_INVOICE_ITEM",
                        "amount": "-5",
                        "description": "Credit",
                        "period_start": "1970-01-01T00:00:00Z",
                        "period_end": "1970-01-02T00:00:00Z",
                        "proration": False,
                        "discountable": True,
                        "metadata": {},
                    }
                ]
            },
        ),
        (Subscription, {"pause_collection": None}, {"pause_collection": None}),
        (
            Subscription,
            {"pause_collection": PauseCollection(behavior="void")},
            {"pause_collection": {"behavior": "PAUSE_BEHAVIOR_VOID"}},
        ),
        (Customer, {"metadata": {"old": "1", "new": None}}, {"metadata": {"old": "1", "new": None}}),
        (Customer, {"shipping": {"address": {"city": "Ulm"}}}, {"shipping": {"address": {"city": "Ulm"}}}),
        (Customer, {"shipping": Shipping(name="A")}, {"shipping": {"name": "A"}}),
        (Price, {"unit_amount": Decimal("0.50")}, {"unit_amount": "0.5"}),
    ],
)
def test_forms_of_values(struct: type[msgspec.Struct], before: dict[str, Any], expected: dict[str, Any]) -> None:
    assert attributes(struct, before) == expected


def test_of_nested_objects_only_what_changed() -> None:
    old = Account(id="acct_1", created=0, name="A")
    new = msgspec.structs.replace(old, settings=Settings(emails=EmailSettings(receipt=False)), version=2)
    assert attributes(Account, previous_attributes(old, new)) == {"settings": {"emails": {"receipt": True}}}


SUBSCRIPTION = Subscription(
    id="sub_1",
    created=1735689600,
    customer="cus_1",
    status="active",
    currency="usd",
    items=(SubscriptionItem(id="si_1", created=0, price="price_1", quantity=1),),
    interval="month",
    interval_count=1,
    collection_method="charge_automatically",
    start_date=1735689600,
    billing_cycle_anchor=1735689600,
    current_period_start=1735689600,
    current_period_end=1738368000,
)
JANUARY: dict[str, Any] = {"current_period_start": "2025-01-01T00:00:00Z", "current_period_end": "2025-02-01T00:00:00Z"}
FEBRUARY: dict[str, Any] = {"current_period_start": 1738368000, "current_period_end": 1740787200}


def before(old: Subscription, changes: dict[str, Any]) -> dict[str, Any]:
    """What a caller is told that the subscription was before the changes."""
    new = msgspec.structs.replace(old, **changes)
    return attributes(Subscription, dict(as_shown(new, previous_attributes(old, new))))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (FEBRUARY, True),
        ({"current_period_end": 1736899200}, True),
        ({"items": ()}, True),
        ({"description": "Other"}, False),
    ],
)
def test_items_were_shown_with_the_period_of_their_subscription(changes: dict[str, Any], told: bool) -> None:
    item: dict[str, Any] = {
        "id": "si_1",
        "created": "1970-01-01T00:00:00Z",
        "price": "price_1",
        "quantity": "1",
        "metadata": {},
    }
    assert before(SUBSCRIPTION, changes).get("items") == ([item | JANUARY] if told else None)


@pytest.mark.parametrize(
    ("old", "changes", "was"),
    [
        ({}, {"cancel_at": 1736899200}, "2025-01-01T00:00:00Z"),
        ({"cancel_at": 1736899200}, {"cancel_at": None}, "2025-01-15T00:00:00Z"),
        ({"cancel_at": 1736899200}, {"cancel_at": 1737158400}, "2025-01-15T00:00:00Z"),
        ({"cancel_at": 1736899200}, {"status": "canceled"}, None),
        ({}, {"cancel_at": 1738368000}, None),
        ({}, {"cancel_at": 1739577600}, None),
        (FEBRUARY, {"cancel_at": 1739577600}, None),
        ({}, {"billing_cycle_anchor": 1736899200}, "2025-01-01T00:00:00Z"),
    ],
)
def test_the_anchor_follows_an_end_within_the_first_period(
    old: dict[str, Any], changes: dict[str, Any], was: str | None
) -> None:
    assert before(msgspec.structs.replace(SUBSCRIPTION, **old), changes).get("billing_cycle_anchor") == was


@pytest.mark.parametrize("struct", EVENT_OBJECTS, ids=lambda struct: struct.__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whole_objects_look_as_their_messages_in_json(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    obj = data.draw(structs(struct))
    message = MessageToDict(encode(obj), preserving_proto_field_name=True)
    _assert_contains(attributes(struct, msgspec.structs.asdict(obj)), message, struct)


def _assert_contains(found: Any, wanted: Any, struct: type[msgspec.Struct]) -> None:
    """Everything in the message's JSON is in the attributes; etags and derived fields have no old value."""
    if isinstance(wanted, dict):
        derived = {"etag"} | {name for names in DERIVED.values() for name in names}
        for name, value in wanted.items():
            if name in found or name not in derived:
                _assert_contains(found[name], value, struct)
    elif isinstance(wanted, list):
        for one, other in zip(found, wanted, strict=True):
            _assert_contains(one, other, struct)
    else:
        assert found == wanted
