"""Unary calls: keys, deadlines, retries, and errors decoded into the tree."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from billing.v1.account_model_pb2 import Account
from billing.v1.account_service_pb2 import GetAccountRequest
from billing.v1.customer_model_pb2 import Customer
from billing.v1.customer_service_pb2 import CreateCustomerRequest, ListCustomersRequest, ListCustomersResponse
from billing.v1.invoice_service_pb2 import PayInvoiceRequest
from billing_client import (
    BillingClient,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PaymentFailed,
    RetryPolicy,
    ServerFailed,
    idempotency_key,
)
from tests.client.fake_server import Context, FakeServer, refuse


def failing(times: int, code: grpc.StatusCode, reason: str = "", retry_after_seconds: float | None = None) -> Any:
    """A handler that refuses so many times before it answers with a customer."""
    left = [times]

    async def handler(request: CreateCustomerRequest, context: Context) -> Customer:
        if left[0]:
            left[0] -= 1
            await refuse(context, code, "not now", reason, retry_after_seconds=retry_after_seconds)
        return Customer(id="cus_1", email=request.email)

    return handler


async def test_reads_carry_the_key_and_no_idempotency_key(fake: FakeServer, client: BillingClient) -> None:
    async def handler(request: GetAccountRequest, context: Context) -> Account:
        return Account(id="acct_1")

    fake.unary("GetAccount", handler)
    await fake.start()
    assert (await client.account.GetAccount(GetAccountRequest())).id == "acct_1"
    assert fake.keys("authorization") == ["Bearer sk_test"]
    assert fake.keys("idempotency-key") == [""]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, ""),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.ABORTED, "IDEMPOTENCY_KEY_IN_USE"),
        (grpc.StatusCode.ABORTED, "PAYMENT_IN_PROGRESS"),
        (grpc.StatusCode.ABORTED, "TEST_CLOCK_ADVANCING"),
    ],
)
async def test_passing_failures_are_retried_with_the_same_key(
    fake: FakeServer, client: BillingClient, code: grpc.StatusCode, reason: str
) -> None:
    fake.unary("CreateCustomer", failing(2, code, reason))
    await fake.start()
    customer = await client.customers.CreateCustomer(CreateCustomerRequest(email="a@example.com"))
    assert customer.email == "a@example.com"
    keys = fake.keys("idempotency-key")
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


async def test_each_call_has_a_key_of_its_own_and_a_given_key_wins(fake: FakeServer, client: BillingClient) -> None:
    fake.unary("CreateCustomer", failing(0, grpc.StatusCode.UNAVAILABLE))
    await fake.start()
    await client.customers.CreateCustomer(CreateCustomerRequest())
    await client.customers.CreateCustomer(CreateCustomerRequest())
    await client.customers.CreateCustomer(CreateCustomerRequest(), metadata=idempotency_key("order-17"))
    first, second, third = fake.keys("idempotency-key")
    assert first != second
    assert third == "order-17"


@pytest.mark.parametrize("key", ["", "x" * 256, "käse", "line\nbreak"])
def test_keys_that_cannot_be_sent_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        idempotency_key(key)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", Conflict),
        (grpc.StatusCode.ABORTED, "", Conflict),
        (grpc.StatusCode.INVALID_ARGUMENT, "PARAMETER_MISSING", InvalidArgument),
        (grpc.StatusCode.INTERNAL, "INTERNAL", ServerFailed),
    ],
)
async def test_other_failures_are_raised_at_once(
    fake: FakeServer, client: BillingClient, code: grpc.StatusCode, reason: str, kind: type[Exception]
) -> None:
    fake.unary("CreateCustomer", failing(1, code, reason))
    await fake.start()
    with pytest.raises(kind):
        await client.customers.CreateCustomer(CreateCustomerRequest())
    assert len(fake.calls) == 1


async def test_retries_are_bounded(fake: FakeServer, client: BillingClient) -> None:
    fake.unary("CreateCustomer", failing(99, grpc.StatusCode.UNAVAILABLE))
    await fake.start()
    with pytest.raises(ConnectionFailed):
        await client.customers.CreateCustomer(CreateCustomerRequest())
    assert len(fake.calls) == 4


async def test_a_wait_that_the_server_asks_for_is_honoured(fake: FakeServer, client: BillingClient) -> None:
    fake.unary("CreateCustomer", failing(1, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 0.3))
    await fake.start()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await client.customers.CreateCustomer(CreateCustomerRequest())
    # Without being asked, it waits for 0.01 s; clocks are read to a millisecond.
    assert loop.time() - started >= 0.29


async def test_a_wait_beyond_reason_is_told_instead(fake: FakeServer, client: BillingClient) -> None:
    fake.unary("CreateCustomer", failing(1, grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", 3600))
    await fake.start()
    with pytest.raises(ConnectionFailed) as raised:
        await client.customers.CreateCustomer(CreateCustomerRequest())
    assert raised.value.retry_after_seconds == 3600


async def test_a_server_that_is_away_is_waited_for(fake: FakeServer, client: BillingClient) -> None:
    fake.unary("CreateCustomer", failing(0, grpc.StatusCode.UNAVAILABLE))
    async with BillingClient(fake.target, "sk_test") as patient:
        call = patient.customers.CreateCustomer(CreateCustomerRequest(email="late@example.com"))
        await asyncio.sleep(0.2)
        assert not call.done()
        await fake.start()
        assert (await call).email == "late@example.com"


async def test_every_attempt_has_a_deadline(fake: FakeServer) -> None:
    """The server may hear less of one while the machine stands still, or not at all of one that passed meanwhile."""
    attempts = []

    async def handler(request: CreateCustomerRequest, context: Context) -> Customer:
        attempts.append(context.time_remaining())
        if request.name == "never" or len(attempts) == 1:
            await asyncio.sleep(60)
        return Customer(id="cus_1")

    fake.unary("CreateCustomer", handler)
    await fake.start()
    patient = RetryPolicy(attempts_max=50, backoff_seconds_first=0.01, backoff_seconds_max=0.05)
    async with BillingClient(fake.target, "sk_test", retry=patient, timeout_seconds=0.3) as client:
        assert (await client.customers.CreateCustomer(CreateCustomerRequest())).id == "cus_1"
    assert len(attempts) >= 2
    impatient = RetryPolicy(attempts_max=2, backoff_seconds_first=0.01)
    async with BillingClient(fake.target, "sk_test", retry=impatient) as client:
        with pytest.raises(DeadlineExceeded):
            await client.customers.CreateCustomer(CreateCustomerRequest(name="never"), timeout=0.1)
    assert all(seconds < 0.5 for seconds in attempts)


async def test_a_refusal_is_decoded_with_all_its_details(fake: FakeServer, client: BillingClient) -> None:
    async def handler(request: CreateCustomerRequest, context: Context) -> Customer:
        violations = error_details_pb2.BadRequest()
        violations.field_violations.add(field="items", reason="PARAMETER_MISSING", description="give one")
        violations.field_violations.add(field="customer", reason="PARAMETER_MISSING", description="name it")
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "items: give one", "PARAMETER_MISSING", violations)
        return Customer()

    fake.unary("CreateCustomer", handler)
    await fake.start()
    with pytest.raises(InvalidArgument) as raised:
        await client.customers.CreateCustomer(CreateCustomerRequest())
    error = raised.value
    assert (error.reason, error.message) == ("PARAMETER_MISSING", "items: give one")
    assert [violation.field for violation in error.violations] == ["items", "customer"]
    assert error.way_out == "Set the field that the violation names."


async def test_a_decline_tells_its_code(fake: FakeServer, client: BillingClient) -> None:
    async def handler(request: PayInvoiceRequest, context: Context) -> None:
        await refuse(
            context,
            grpc.StatusCode.FAILED_PRECONDITION,
            "declined",
            "CARD_DECLINED",
            decline_code="insufficient_funds",
        )

    fake.unary("PayInvoice", handler)
    await fake.start()
    with pytest.raises(PaymentFailed) as raised:
        await client.invoices.PayInvoice(PayInvoiceRequest(id="in_1"))
    assert raised.value.decline_code == "insufficient_funds"


async def test_an_unknown_id_names_the_object(fake: FakeServer, client: BillingClient) -> None:
    async def handler(request: PayInvoiceRequest, context: Context) -> None:
        resource = error_details_pb2.ResourceInfo(resource_type="invoice", resource_name="in_9")
        await refuse(context, grpc.StatusCode.NOT_FOUND, "no such invoice", "RESOURCE_MISSING", resource)

    fake.unary("PayInvoice", handler)
    await fake.start()
    with pytest.raises(NotFound) as raised:
        await client.invoices.PayInvoice(PayInvoiceRequest(id="in_9"))
    assert raised.value.resource == "in_9"


async def test_lists_are_read_page_by_page(fake: FakeServer, client: BillingClient) -> None:
    async def handler(request: ListCustomersRequest, context: Context) -> ListCustomersResponse:
        start = int(request.page_token or 0)
        ids = range(start, min(start + request.page_size, 5))
        token = str(ids.stop) if ids.stop < 5 else ""
        return ListCustomersResponse(customers=[Customer(id=f"cus_{number}") for number in ids], next_page_token=token)

    fake.unary("ListCustomers", handler)
    await fake.start()
    request = ListCustomersRequest()
    found = [
        customer.id
        async for customer in client.list_all(
            client.customers.ListCustomers, request, lambda page: page.customers, page_size=2
        )
    ]
    assert found == [f"cus_{number}" for number in range(5)]
    assert len(fake.calls) == 3
    assert request == ListCustomersRequest()
