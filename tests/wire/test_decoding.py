"""Requests become commands: presence, masks, and every way in which a request can be wrong."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from billing.v1 import (
    account_service_pb2,
    catalog_service_pb2,
    customer_service_pb2,
    event_service_pb2,
    invoice_service_pb2,
    subscription_service_pb2,
)
from billing_server.domain import commands
from billing_server.domain.calendar import LAST_INSTANT
from billing_server.domain.errors import InvalidArgument
from billing_server.domain.subscription import PauseCollection
from billing_server.wire.codec import check, decode
from billing_server.wire.pairs import COMMANDS
from tests.wire.strategies import structs, write


def make(message: type[Any], **fields: Any) -> Any:
    """A message from nested mappings, which its type stub does not know."""
    return message(**fields)


def refusals(request: Message, command: type[msgspec.Struct]) -> dict[str, str]:
    """Fields and reasons of all violations."""
    with pytest.raises(InvalidArgument) as refused:
        decode(request, command)
    return {violation.field: violation.reason for violation in refused.value.violations}


@pytest.mark.parametrize("command_type", COMMANDS, ids=lambda command: command.__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_command_comes_through_its_request(command_type: type[msgspec.Struct], data: st.DataObject) -> None:
    command = data.draw(structs(command_type, nonzero=True))
    request: Any = COMMANDS[command_type]()
    write(request, command)
    if "update_mask" in request.DESCRIPTOR.fields_by_name:
        request.update_mask.CopyFrom(FieldMask(paths=_changed(command)))
    else:
        command = _as_without_mask(command)
    assert decode(request, command_type) == _merged(command)


def _changed(command: msgspec.Struct) -> list[str]:
    """Fields of an update that are not left as they are, modifiers apart."""
    hints = {field.name: field.default for field in msgspec.structs.fields(type(command))}
    return [name for name, default in hints.items() if default is UNSET and getattr(command, name) is not UNSET]


def _merged(command: Any) -> Any:
    """Empty metadata of item changes cannot be told from none, and changes nothing either way."""
    changes = getattr(command, "items", UNSET)
    if isinstance(command, commands.UpdateSubscription) and changes is not UNSET:
        return msgspec.structs.replace(command, items=tuple(_as_without_mask(change) for change in changes))
    return command


def _as_without_mask(obj: Any) -> Any:
    """Without a mask, empty lists and maps are the same as none."""
    empty = {
        field.name: field.default
        for field in msgspec.structs.fields(type(obj))
        if getattr(obj, field.name) in ((), {}) and field.default is UNSET
    }
    return msgspec.structs.replace(obj, **empty)


def test_what_is_left_out_keeps_its_default() -> None:
    request = make(invoice_service_pb2.CreateInvoiceItemRequest, customer="cus_1")
    command = decode(request, commands.CreateInvoiceItem)
    assert command == commands.CreateInvoiceItem(customer="cus_1")
    assert (command.quantity, command.discountable, command.amount) == (1, True, None)


def test_explicit_zero_values_are_kept() -> None:
    request = make(
        invoice_service_pb2.CreateInvoiceItemRequest, customer="cus_1", quantity=0, discountable=False, amount=0
    )
    command = decode(request, commands.CreateInvoiceItem)
    assert (command.quantity, command.discountable, command.amount) == (0, False, 0)


def test_without_a_mask_the_fields_that_are_set_change() -> None:
    request = make(customer_service_pb2.UpdateCustomerRequest, id="cus_1", name="", email="a@b.test", etag="4")
    command = decode(request, commands.UpdateCustomer)
    assert command == commands.UpdateCustomer(id="cus_1", name=None, email="a@b.test", etag="4")


def test_an_empty_value_of_metadata_comes_through_and_removes_its_key() -> None:
    request = make(customer_service_pb2.UpdateCustomerRequest, id="cus_1", metadata={"old": "", "new": "1"})
    command = decode(request, commands.UpdateCustomer)
    assert command == commands.UpdateCustomer(id="cus_1", metadata={"old": "", "new": "1"})


def test_with_a_mask_exactly_the_named_fields_change() -> None:
    request = make(
        customer_service_pb2.UpdateCustomerRequest,
        id="cus_1",
        name="ignored",
        email="a@b.test",
        update_mask=FieldMask(paths=["email", "phone", "address"]),
    )
    command = decode(request, commands.UpdateCustomer)
    assert command == commands.UpdateCustomer(id="cus_1", email="a@b.test", phone=None, address=None)


def test_an_empty_mask_changes_nothing() -> None:
    request = make(customer_service_pb2.UpdateCustomerRequest, id="cus_1", name="ignored", update_mask=FieldMask())
    assert decode(request, commands.UpdateCustomer) == commands.UpdateCustomer(id="cus_1")


def test_parameters_of_a_change_apply_whatever_the_mask() -> None:
    request = make(
        subscription_service_pb2.UpdateSubscriptionRequest,
        id="sub_1",
        proration_behavior="PRORATION_BEHAVIOR_NONE",
        update_mask=FieldMask(paths=["pause_collection"]),
    )
    command = decode(request, commands.UpdateSubscription)
    assert command == commands.UpdateSubscription(id="sub_1", proration_behavior="none", pause_collection=None)


def test_a_mask_clears_lists_and_tables() -> None:
    request = make(
        account_service_pb2.UpdateSettingsRequest, update_mask=FieldMask(paths=["team_users", "exchange_rates"])
    )
    command = decode(request, commands.UpdateSettings)
    assert (command.team_users, command.exchange_rates) == ((), {})


def test_unspecified_is_a_value_where_the_domain_has_it() -> None:
    request = make(catalog_service_pb2.UpdatePriceRequest, id="price_1", tax_behavior="TAX_BEHAVIOR_UNSPECIFIED")
    assert decode(request, commands.UpdatePrice).tax_behavior == "unspecified"


def test_fractions_of_seconds_are_cut_off() -> None:
    request = make(
        subscription_service_pb2.UpdateSubscriptionRequest,
        id="sub_1",
        pause_collection={
            "behavior": "PAUSE_BEHAVIOR_VOID",
            "resumes_at": Timestamp(seconds=5, nanos=999_999_999),
        },
    )
    command = decode(request, commands.UpdateSubscription)
    assert command.pause_collection == PauseCollection(behavior="void", resumes_at=5)


def test_extra_fields_come_from_the_caller() -> None:
    request = make(customer_service_pb2.DeleteCustomerRequest)
    assert decode(request, commands.DeleteCustomer, id="cus_1").id == "cus_1"


def test_a_request_fits_one_command_only() -> None:
    with pytest.raises(TypeError):
        decode(make(customer_service_pb2.DeleteCustomerRequest, id="cus_1"), commands.DetachPaymentMethod)


WRONG: list[tuple[str, Message, type[msgspec.Struct], dict[str, str]]] = [
    (
        "required fields are missing, everywhere at once",
        make(catalog_service_pb2.CreatePriceRequest, recurring={}, transform_quantity={"divide_by": 10}),
        commands.CreatePrice,
        {
            "product": "parameter_missing",
            "currency": "parameter_missing",
            "recurring.interval": "parameter_missing",
            "transform_quantity.round": "parameter_missing",
        },
    ),
    (
        "an item of a list is wrong",
        make(
            subscription_service_pb2.CreateSubscriptionRequest,
            customer="cus_1",
            items=[{"price": "price_1"}, {"quantity": 2}],
        ),
        commands.CreateSubscription,
        {"items[1].price": "parameter_missing"},
    ),
    (
        "an enum value is not known",
        make(subscription_service_pb2.CreateSubscriptionRequest, customer="cus_1", collection_method=99),
        commands.CreateSubscription,
        {"collection_method": "parameter_unknown"},
    ),
    (
        "unspecified clears nothing that needs a value",
        make(
            subscription_service_pb2.UpdateSubscriptionRequest,
            id="sub_1",
            collection_method="COLLECTION_METHOD_UNSPECIFIED",
        ),
        commands.UpdateSubscription,
        {"collection_method": "parameter_unknown"},
    ),
    (
        "empty text clears nothing that needs a value",
        make(catalog_service_pb2.UpdateProductRequest, id="prod_1", name=""),
        commands.UpdateProduct,
        {"name": "parameter_invalid_empty"},
    ),
    (
        "a mask clears nothing that needs a value",
        make(catalog_service_pb2.UpdateProductRequest, id="prod_1", update_mask=FieldMask(paths=["name", "active"])),
        commands.UpdateProduct,
        {"name": "parameter_invalid_empty", "active": "parameter_invalid_empty"},
    ),
    (
        "a mask names what is no field, or none that can be updated",
        make(catalog_service_pb2.UpdateProductRequest, id="prod_1", update_mask=FieldMask(paths=["colour"])),
        commands.UpdateProduct,
        {"update_mask": "parameter_unknown"},
    ),
    (
        "times lie out of range",
        make(
            subscription_service_pb2.CreateSubscriptionRequest,
            customer="cus_1",
            trial_end=Timestamp(seconds=LAST_INSTANT + 1),
            cancel_at=Timestamp(seconds=-1),
            backdate_start_date=Timestamp(nanos=-1),
        ),
        commands.CreateSubscription,
        {
            "trial_end": "time_out_of_range",
            "cancel_at": "time_out_of_range",
            "backdate_start_date": "parameter_invalid",
        },
    ),
    (
        "decimals are malformed",
        make(account_service_pb2.UpdateSettingsRequest, exchange_rates={"eur": "1,08", "gbp": "1e3"}),
        commands.UpdateSettings,
        {'exchange_rates["eur"]': "parameter_invalid", 'exchange_rates["gbp"]': "parameter_invalid"},
    ),
    (
        "text contains NUL",
        make(customer_service_pb2.CreateCustomerRequest, name="a\x00b", metadata={"key": "\x00"}),
        commands.CreateCustomer,
        {"name": "parameter_invalid", 'metadata["key"]': "parameter_invalid"},
    ),
]


@pytest.mark.parametrize(("request_", "command", "expected"), [case[1:] for case in WRONG], ids=[c[0] for c in WRONG])
def test_all_violations_are_told_at_once(
    request_: Message, command: type[msgspec.Struct], expected: dict[str, str]
) -> None:
    assert refusals(request_, command) == expected


def test_a_refused_mask_lists_the_valid_paths() -> None:
    request = make(invoice_service_pb2.UpdateInvoiceItemRequest, id="ii_1", update_mask=FieldMask(paths=["price"]))
    with pytest.raises(InvalidArgument, match="amount, description, discountable, metadata, quantity, unit_amount"):
        decode(request, commands.UpdateInvoiceItem)


@pytest.mark.parametrize("text", ["", "-", ".5", "5.", "NaN", "Infinity", "1_000", " 1", "٣", "1" * 41])
def test_malformed_decimals_are_refused(text: str) -> None:
    request = make(catalog_service_pb2.CreatePriceRequest, product="p", currency="usd", tiers=[{"unit_amount": text}])
    if text:
        assert refusals(request, commands.CreatePrice) == {"tiers[0].unit_amount": "parameter_invalid"}
    else:
        assert decode(request, commands.CreatePrice).tiers[0].unit_amount is None


def test_decimals_are_exact() -> None:
    request = make(catalog_service_pb2.CreatePriceRequest, product="p", currency="usd", unit_amount="0.000000000001")
    assert decode(request, commands.CreatePrice).unit_amount == Decimal("0.000000000001")


def test_requests_without_a_command_are_checked_too() -> None:
    request = make(
        subscription_service_pb2.ListSubscriptionsRequest,
        customer="\x00",
        statuses=[1, 77],
        created={"start": Timestamp(seconds=-5)},
    )
    with pytest.raises(InvalidArgument) as refused:
        check(request)
    assert {violation.field: violation.reason for violation in refused.value.violations} == {
        "customer": "parameter_invalid",
        "statuses[1]": "parameter_unknown",
        "created.start": "time_out_of_range",
    }
    check(make(event_service_pb2.ListEventsRequest, types=["invoice.*"], created={"start": Timestamp(seconds=5)}))
