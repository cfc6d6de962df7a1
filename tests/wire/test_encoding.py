"""Objects become messages without losing a visible field, and without showing an internal one."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.v1.invoice_model_pb2 import InvoiceStatus
from billing_server.domain.catalog import Recurring
from billing_server.domain.customer import Customer
from billing_server.domain.etag import etag_of
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription, SubscriptionItem
from billing_server.wire.codec import encode
from billing_server.wire.encoding import decimal_text
from billing_server.wire.pairs import MODELS
from tests.wire.strategies import read_back, shown, structs, visible

INVOICE = Invoice(
    id="in_1",
    created=100,
    customer="cus_1",
    currency="usd",
    status="open",
    billing_reason="manual",
    collection_method="send_invoice",
    auto_advance=True,
    period_start=100,
    period_end=200,
    due_date=1000,
    version=3,
)
SUBSCRIPTION = Subscription(
    id="sub_1",
    created=100,
    customer="cus_1",
    status="past_due",
    currency="usd",
    items=(SubscriptionItem(id="si_1", created=100, price="price_1", quantity=0),),
    interval="month",
    interval_count=1,
    start_date=100,
    billing_cycle_anchor=100,
    current_period_start=0,
    current_period_end=200,
)


@pytest.mark.parametrize("struct", MODELS, ids=lambda struct: struct.__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_visible_field_is_in_the_message(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    obj = data.draw(structs(struct))
    names = visible(struct)
    message = MODELS[struct][0].FromString(encode(obj).SerializeToString())
    if getattr(obj, "billing_reason", None) == "upcoming":
        names -= {"id"}
    assert read_back(message, struct, names) == shown(obj, names)


def test_internal_fields_are_in_no_message() -> None:
    for message, internal in MODELS.values():
        assert not internal & set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(("now", "overdue"), [(None, False), (999, False), (1000, True)])
def test_overdue_depends_on_the_moment(now: int | None, overdue: bool) -> None:
    assert encode(INVOICE, now).overdue is overdue


def test_upcoming_invoices_have_no_id() -> None:
    assert encode(INVOICE).id == "in_1"
    assert encode(msgspec.structs.replace(INVOICE, billing_reason="upcoming")).id == ""


def test_versions_become_etags() -> None:
    assert encode(INVOICE).etag == etag_of(3)


def test_enum_values_carry_the_prefix_of_their_enum() -> None:
    assert encode(INVOICE).status == InvoiceStatus.INVOICE_STATUS_OPEN


def test_items_show_the_period_of_their_subscription() -> None:
    item = encode(SUBSCRIPTION).items[0]
    assert item.HasField("current_period_start")
    assert (item.current_period_start.seconds, item.current_period_end.seconds) == (0, 200)


def test_zero_and_none_differ_where_it_matters() -> None:
    item = encode(SUBSCRIPTION).items[0]
    assert item.HasField("quantity")
    metered = encode(msgspec.structs.replace(SUBSCRIPTION.items[0], quantity=None))
    assert not metered.HasField("quantity")


def test_defaults_of_optional_fields_are_shown() -> None:
    assert encode(Recurring(interval="month")).HasField("interval_count")


def test_none_and_empty_text_look_alike() -> None:
    customer = encode(Customer(id="cus_1", created=0, invoice_prefix="ABC", email=None))
    assert customer.email == ""
    assert customer.HasField("created")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1000", "1000"),
        ("0.50", "0.5"),
        ("1E+3", "1000"),
        ("-2.000", "-2"),
        ("0.000000000001", "0.000000000001"),
    ],
)
def test_decimals_are_written_plainly(value: str, text: str) -> None:
    assert decimal_text(Decimal(value)) == text
