"""Bytes that are no request are refused with the field that is wrong."""

from __future__ import annotations

import pytest

from billing.v1.customer_model_pb2 import Address
from billing.v1.customer_service_pb2 import CreateCustomerRequest
from billing.v1.subscription_service_pb2 import CreateSubscriptionRequest, ItemParams
from billing_server.domain.errors import InvalidArgument
from billing_server.wire.codec import parse

BAD_TEXT = b"a\xff"


def test_good_bytes_become_the_request() -> None:
    request = CreateCustomerRequest(name="Jenny", balance=-5)
    assert parse(CreateCustomerRequest, request.SerializeToString()) == request


@pytest.mark.parametrize(
    ("good", "field"),
    [
        (CreateCustomerRequest(email="fine", name="a!", balance=-1), "name"),
        (CreateCustomerRequest(address=Address(line1="fine", city="a!")), "address.city"),
        (CreateCustomerRequest(metadata={"key": "a!"}), "metadata"),
        (CreateSubscriptionRequest(customer="fine", items=[ItemParams(price="a!")]), "items.price"),
    ],
)
def test_text_that_is_not_utf8_is_named(good: CreateCustomerRequest | CreateSubscriptionRequest, field: str) -> None:
    data = good.SerializeToString().replace(b"a!", BAD_TEXT)
    with pytest.raises(InvalidArgument) as refused:
        parse(type(good), data)
    assert refused.value.field == field


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"\x0b", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
def test_other_bytes_are_refused_as_a_whole(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="no billing"):
        parse(CreateCustomerRequest, data)
