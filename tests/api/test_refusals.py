"""What refusals look like: codes, reasons, fields, details; etags and update masks on the way."""

from __future__ import annotations

import logging

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc.error_details_pb2 import BadRequest, PreconditionFailure, ResourceInfo, RetryInfo

from billing.v1.catalog_model_pb2 import Price
from billing.v1.catalog_service_pb2 import CreatePriceRequest, GetPriceRequest
from billing.v1.customer_service_pb2 import (
    AttachPaymentMethodRequest,
    CreateCustomerRequest,
    GetCustomerRequest,
    ListCustomersRequest,
    UpdateCustomerRequest,
)
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing.v1.invoice_service_pb2 import ListInvoicesRequest, PayInvoiceRequest, VoidInvoiceRequest
from billing.v1.subscription_model_pb2 import PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE
from billing.v1.subscription_service_pb2 import (
    CreateSubscriptionRequest,
    ItemParams,
    PreviewSubscriptionInvoiceRequest,
)
from billing_server.bootstrap import Server
from tests.api.world import new_price, subscribed
from tests.serving import Caller, detail_of, info_of, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT
FAILED = grpc.StatusCode.FAILED_PRECONDITION


async def test_all_violations_are_told_at_once(caller: Caller) -> None:
    request = CreateSubscriptionRequest(items=[ItemParams(quantity=1)], trial_period_days=9999)
    with refused(INVALID, "PARAMETER_MISSING") as caught:
        await caller.subscriptions.CreateSubscription(request, metadata=caller.login)
    violations = detail_of(caught[0], BadRequest).field_violations
    assert {violation.field for violation in violations} >= {"customer", "items[0].price"}
    assert all(violation.reason and violation.description for violation in violations)


async def test_text_that_is_not_utf8_is_refused_with_its_field(caller: Caller) -> None:
    name = CreateCustomerRequest.DESCRIPTOR.fields_by_name["name"].number
    with refused(INVALID, "PARAMETER_INVALID") as caught:
        await caller.raw("/billing.v1.CustomerService/CreateCustomer", bytes((name << 3 | 2, 2, 0xC3, 0x28)))
    assert [violation.field for violation in detail_of(caught[0], BadRequest).field_violations] == ["name"]


async def test_an_unknown_object_is_named(caller: Caller) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "RESOURCE_MISSING") as caught:
        await caller.customers.GetCustomer(GetCustomerRequest(id="cus_none"), metadata=caller.login)
    info = detail_of(caught[0], ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("customer", "cus_none")
    assert info_of(caught[0]).domain == "billing.v1"


async def test_a_stale_etag_loses(caller: Caller) -> None:
    customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
    stale = UpdateCustomerRequest(id=customer.id, name="Bo", etag=customer.etag)
    updated = await caller.customers.UpdateCustomer(stale, metadata=caller.login)
    assert updated.etag != customer.etag
    with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        await caller.customers.UpdateCustomer(stale, metadata=caller.login)
    fresh = UpdateCustomerRequest(id=customer.id, name="Cy", etag=updated.etag)
    assert (await caller.customers.UpdateCustomer(fresh, metadata=caller.login)).name == "Cy"


async def test_a_mask_names_what_changes_and_clears(caller: Caller) -> None:
    create = CreateCustomerRequest(name="Ada", email="ada@example.com", phone="+1 415 555 2671")
    customer = await caller.customers.CreateCustomer(create, metadata=caller.login)
    request = UpdateCustomerRequest(
        id=customer.id, name="Bo", phone="+1 415 555 2672", update_mask=FieldMask(paths=["name", "email"])
    )
    updated = await caller.customers.UpdateCustomer(request, metadata=caller.login)
    assert (updated.name, updated.email, updated.phone) == ("Bo", "", "+1 415 555 2671")
    wrong = UpdateCustomerRequest(id=customer.id, update_mask=FieldMask(paths=["created"]))
    with refused(INVALID, "PARAMETER_UNKNOWN") as caught:
        await caller.customers.UpdateCustomer(wrong, metadata=caller.login)
    assert detail_of(caught[0], BadRequest).field_violations[0].field == "update_mask"


async def test_a_declined_card_comes_with_its_decline_code(caller: Caller) -> None:
    _, _, request = await subscribed(caller, "pm_card_visa_chargeDeclinedInsufficientFunds")
    request.payment_behavior = PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE
    with refused(FAILED, "CARD_DECLINED") as caught:
        await caller.subscriptions.CreateSubscription(request, metadata=caller.login)
    assert info_of(caught[0]).metadata["decline_code"] == "insufficient_funds"
    assert detail_of(caught[0], PreconditionFailure).violations[0].type == "CARD_DECLINED"


async def test_a_wrong_state_names_its_object(caller: Caller) -> None:
    customer, _, request = await subscribed(caller)
    await caller.subscriptions.CreateSubscription(request, metadata=caller.login)
    listed = await caller.invoices.ListInvoices(ListInvoicesRequest(customer=customer), metadata=caller.login)
    invoice = listed.invoices[0].id
    with refused(FAILED, "INVOICE_STATE_INVALID") as caught:
        await caller.invoices.VoidInvoice(VoidInvoiceRequest(id=invoice), metadata=caller.login)
    assert detail_of(caught[0], PreconditionFailure).violations[0].subject == invoice


async def test_an_unknown_outcome_is_aborted_with_a_time_to_retry(caller: Caller) -> None:
    customer, _, request = await subscribed(caller, "pm_gateway_down")
    await caller.subscriptions.CreateSubscription(request, metadata=caller.login)
    listed = await caller.invoices.ListInvoices(ListInvoicesRequest(customer=customer), metadata=caller.login)
    with refused(grpc.StatusCode.ABORTED, "PAYMENT_IN_PROGRESS") as caught:
        await caller.invoices.PayInvoice(PayInvoiceRequest(id=listed.invoices[0].id), metadata=caller.login)
    assert detail_of(caught[0], RetryInfo).retry_delay.ToNanoseconds() > 0


async def test_a_taken_name_is_told(caller: Caller) -> None:
    product = (await _price_with_key(caller, await _product(caller), "gold")).product
    with refused(grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_ALREADY_EXISTS"):
        await _price_with_key(caller, product, "gold")


async def _product(caller: Caller) -> str:
    price = GetPriceRequest(id=await new_price(caller))
    return (await caller.catalog.GetPrice(price, metadata=caller.login)).product


async def _price_with_key(caller: Caller, product: str, key: str) -> Price:
    request = CreatePriceRequest(product=product, currency="usd", unit_amount="5", lookup_key=key)
    return await caller.catalog.CreatePrice(request, metadata=caller.login)


async def test_card_numbers_never_come_back(caller: Caller) -> None:
    customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
    request = AttachPaymentMethodRequest(customer=customer.id, token="4242424242424242")
    with refused(INVALID, "CARD_NUMBER_REFUSED") as caught:
        await caller.customers.AttachPaymentMethod(request, metadata=caller.login)
    assert "4242424242424242" not in f"{caught[0].details()}{detail_of(caught[0], BadRequest)}"


async def test_a_preview_needs_something_to_preview(caller: Caller) -> None:
    with refused(INVALID, "PARAMETER_MISSING"):
        await caller.subscriptions.PreviewSubscriptionInvoice(
            PreviewSubscriptionInvoiceRequest(), metadata=caller.login
        )


@pytest.mark.parametrize(
    "request_", [StreamEventsRequest(after_position=-1), StreamEventsRequest(batch_max=1001, heartbeat_seconds=-1)]
)
async def test_streams_refuse_wrong_numbers(caller: Caller, request_: StreamEventsRequest) -> None:
    with refused(INVALID, "PARAMETER_INVALID_INTEGER"):
        [batch async for batch in caller.events.StreamEvents(request_, metadata=caller.login)]


async def test_request_ids_are_echoed_or_made(caller: Caller) -> None:
    call = caller.customers.ListCustomers(ListCustomersRequest(), metadata=caller.metadata(x_request_id="my-1"))
    await call
    assert ("x-request-id", "my-1") in tuple(await call.trailing_metadata())
    call = caller.customers.ListCustomers(ListCustomersRequest(), metadata=caller.metadata(x_request_id="bad id"))
    await call
    made = dict(await call.trailing_metadata())["x-request-id"]
    assert str(made).startswith("req_")


async def test_failures_tell_nothing_but_their_id(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("secret internals")

    monkeypatch.setattr(server.engine, "execute", fail)
    with (
        caplog.at_level(logging.ERROR, "billing_server.api.failures"),
        refused(grpc.StatusCode.INTERNAL, "INTERNAL") as caught,
    ):
        metadata = caller.metadata(x_request_id="find-me")
        await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=metadata)
    assert "secret internals" not in str(caught[0])
    assert "find-me" in (caught[0].details() or "")
    assert "secret internals" in caplog.text
    assert caller.secret not in caplog.text


async def test_requests_beyond_the_limit_of_bytes_are_refused(caller: Caller) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.raw("/billing.v1.CustomerService/CreateCustomer", bytes(5 * 1024 * 1024))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
