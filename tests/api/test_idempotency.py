"""Idempotency keys: the same request has one effect and one answer, however often and however it is sent."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.account_service_pb2 import CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest
from billing.v1.catalog_service_pb2 import CreateProductRequest, ListProductsRequest
from billing.v1.customer_service_pb2 import (
    CreateCustomerRequest,
    GetCustomerRequest,
    ListCustomersRequest,
    UpdateCustomerRequest,
)
from billing.v1.invoice_service_pb2 import ListInvoicesRequest
from billing.v1.payment_service_pb2 import ListPaymentAttemptsRequest
from billing.v1.subscription_model_pb2 import PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE
from billing.v1.subscription_service_pb2 import ListSubscriptionsRequest
from billing.v1.test_clock_service_pb2 import (
    AdvanceTestClockRequest,
    CreateTestClockRequest,
    DeleteTestClockRequest,
    ListTestClocksRequest,
)
from billing_server.bootstrap import Server
from tests.api.held_answers import HeldAnswers
from tests.api.world import subscribed
from tests.serving import Caller, new_caller, refused, status_of

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
ABORTED = grpc.StatusCode.ABORTED
FAILED = grpc.StatusCode.FAILED_PRECONDITION


async def test_a_repeated_request_has_one_effect_and_the_same_answer(caller: Caller) -> None:
    request = CreateCustomerRequest(name="Ada", metadata={"a": "1", "b": "2"})
    metadata = caller.metadata(idempotency_key="k 1!")
    first = await caller.customers.CreateCustomer(request, metadata=metadata)
    await caller.customers.UpdateCustomer(UpdateCustomerRequest(id=first.id, name="Bo"), metadata=caller.login)
    assert await caller.customers.CreateCustomer(request, metadata=metadata) == first
    customers = await caller.customers.ListCustomers(ListCustomersRequest(), metadata=caller.login)
    assert [customer.id for customer in customers.customers] == [first.id]


async def test_another_request_with_a_used_key_is_refused(caller: Caller) -> None:
    metadata = caller.metadata(idempotency_key="k")
    await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=metadata)
    with refused(INVALID, "IDEMPOTENCY_MISMATCH"):
        await caller.customers.CreateCustomer(CreateCustomerRequest(name="Bo"), metadata=metadata)
    with refused(INVALID, "IDEMPOTENCY_MISMATCH"):
        await caller.catalog.CreateProduct(CreateProductRequest(name="Ada"), metadata=metadata)
    with refused(INVALID, "IDEMPOTENCY_MISMATCH"):
        await caller.test_clocks.CreateTestClock(CreateTestClockRequest(name="Ada"), metadata=metadata)


async def test_keys_belong_to_their_account(server: Server, caller: Caller) -> None:
    metadata = (("idempotency-key", "shared"),)
    mine = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login + metadata)
    other = await new_caller(server)
    theirs = await other.customers.CreateCustomer(CreateCustomerRequest(name="Bo"), metadata=other.login + metadata)
    await other.close()
    assert mine.id != theirs.id


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_keys_have_limits(caller: Caller, key: str) -> None:
    with refused(INVALID, "PARAMETER_INVALID"):
        await caller.customers.CreateCustomer(CreateCustomerRequest(), metadata=caller.metadata(idempotency_key=key))


async def test_reading_takes_no_notice_of_keys(caller: Caller) -> None:
    customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
    metadata = caller.metadata(idempotency_key="r")
    for name in ("Ada", "Bo"):
        await caller.customers.UpdateCustomer(UpdateCustomerRequest(id=customer.id, name=name), metadata=caller.login)
        found = await caller.customers.GetCustomer(GetCustomerRequest(id=customer.id), metadata=metadata)
        assert found.name == name


async def test_concurrent_requests_with_one_key_have_one_effect(caller: Caller) -> None:
    metadata = caller.metadata(idempotency_key="same")

    async def create() -> str | None:
        try:
            request = CreateCustomerRequest(name="Ada")
            return (await caller.customers.CreateCustomer(request, metadata=metadata)).id
        except grpc.aio.AioRpcError as error:
            assert error.code() == ABORTED
            return None

    ids = {found for found in await asyncio.gather(*(create() for _ in range(30))) if found}
    customers = await caller.customers.ListCustomers(ListCustomersRequest(), metadata=caller.login)
    assert ids == {customer.id for customer in customers.customers}
    assert len(ids) == 1


async def test_concurrent_changes_of_the_pages_have_one_effect(caller: Caller) -> None:
    metadata = caller.metadata(idempotency_key="same")
    request = CreateProductRequest(name="Gold")
    made = await asyncio.gather(*(caller.catalog.CreateProduct(request, metadata=metadata) for _ in range(10)))
    products = await caller.catalog.ListProducts(ListProductsRequest(), metadata=caller.login)
    assert {product.id for product in made} == {product.id for product in products.products}
    assert len(products.products) == 1


async def test_a_repeated_subscription_is_charged_once(caller: Caller) -> None:
    customer, _, request = await subscribed(caller)
    metadata = caller.metadata(idempotency_key="subscribe")
    first = await caller.subscriptions.CreateSubscription(request, metadata=metadata)
    second = await caller.subscriptions.CreateSubscription(request, metadata=metadata)
    assert first == second
    invoices = await caller.invoices.ListInvoices(ListInvoicesRequest(customer=customer), metadata=caller.login)
    assert len(invoices.invoices) == 1
    wanted = ListPaymentAttemptsRequest(invoice=invoices.invoices[0].id)
    attempts = await caller.payments.ListPaymentAttempts(wanted, metadata=caller.login)
    assert len(attempts.payment_attempts) == 1


async def test_a_request_whose_charge_is_under_way_is_not_begun_again(
    server: Server, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = HeldAnswers(server, monkeypatch)
    customer, _, request = await subscribed(caller)
    metadata = caller.metadata(idempotency_key="slow")
    first = asyncio.ensure_future(caller.subscriptions.CreateSubscription(request, metadata=metadata))
    await answers.until_charged(customer)
    with refused(ABORTED, "IDEMPOTENCY_KEY_IN_USE"):
        await caller.subscriptions.CreateSubscription(request, metadata=metadata)
    answers.release()
    made = await first
    assert await caller.subscriptions.CreateSubscription(request, metadata=metadata) == made
    wanted = ListSubscriptionsRequest(customer=customer)
    subscriptions = await caller.subscriptions.ListSubscriptions(wanted, metadata=caller.login)
    assert [found.id for found in subscriptions.subscriptions] == [made.id]


async def test_a_refusal_after_a_charge_is_repeated_in_the_same_words(caller: Caller) -> None:
    _, _, request = await subscribed(caller, "pm_card_chargeCustomerFail")
    request.payment_behavior = PAYMENT_BEHAVIOR_ERROR_IF_INCOMPLETE
    metadata = caller.metadata(idempotency_key="declined")
    statuses = []
    for _ in range(2):
        with refused(FAILED, "CARD_DECLINED") as caught:
            await caller.subscriptions.CreateSubscription(request, metadata=metadata)
        statuses.append(status_of(caught[0]))
    assert statuses[0] == statuses[1]


async def test_a_refusal_without_effect_may_be_mended(caller: Caller) -> None:
    metadata = caller.metadata(idempotency_key="k")
    with refused(NOT_FOUND, "RESOURCE_MISSING"):
        await caller.customers.UpdateCustomer(UpdateCustomerRequest(id="cus_none", name="Ada"), metadata=metadata)
    await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=metadata)


async def test_a_repeated_key_gives_its_secret_to_the_same_caller_only(server: Server, caller: Caller) -> None:
    request = CreateApiKeyRequest(name="reader", scopes=["events:read", "events:read"])
    metadata = (("idempotency-key", "make"),)
    first = await caller.accounts.CreateApiKey(request, metadata=caller.login + metadata)
    assert first == await caller.accounts.CreateApiKey(request, metadata=caller.login + metadata)
    assert first.secret.startswith("sk_")
    assert first.secret.endswith(first.api_key.last_four)
    assert list(first.api_key.scopes) == ["events:read"]
    other = await new_caller(server, account_id=caller.account_id)
    again = await other.accounts.CreateApiKey(request, metadata=other.login + metadata)
    await other.close()
    assert (again.api_key, again.secret) == (first.api_key, "")
    keys = await caller.accounts.ListApiKeys(ListApiKeysRequest(), metadata=caller.login)
    assert len(keys.api_keys) == 3


async def test_revoking_twice_changes_nothing(caller: Caller) -> None:
    request = CreateApiKeyRequest(name="reader", scopes=["events:read"])
    made = await caller.accounts.CreateApiKey(request, metadata=caller.login)
    revoke = RevokeApiKeyRequest(id=made.api_key.id)
    first = await caller.accounts.RevokeApiKey(revoke, metadata=caller.metadata(idempotency_key="k"))
    assert first.HasField("revoked_at")
    assert first == await caller.accounts.RevokeApiKey(revoke, metadata=caller.metadata(idempotency_key="k"))
    assert first == await caller.accounts.RevokeApiKey(revoke, metadata=caller.login)


async def test_test_clocks_are_made_moved_and_deleted_once(caller: Caller) -> None:
    create = CreateTestClockRequest(name="a year", frozen_time=Timestamp(seconds=1_735_689_600))
    metadata = caller.metadata(idempotency_key="create")
    clock = await caller.test_clocks.CreateTestClock(create, metadata=metadata)
    assert clock == await caller.test_clocks.CreateTestClock(create, metadata=metadata)
    clocks = await caller.test_clocks.ListTestClocks(ListTestClocksRequest(), metadata=caller.login)
    assert len(clocks.test_clocks) == 1
    advance = AdvanceTestClockRequest(id=clock.id, frozen_time=Timestamp(seconds=1_738_368_000))
    for _ in range(2):
        moves = caller.test_clocks.AdvanceTestClock(advance, metadata=caller.metadata(idempotency_key="move"))
        progress = [message async for message in moves]
        assert progress[-1].done
        assert progress[-1].frozen_time == advance.frozen_time
    with refused(INVALID, "TEST_CLOCK_BACKWARDS"):
        [message async for message in caller.test_clocks.AdvanceTestClock(advance, metadata=caller.login)]
    delete = DeleteTestClockRequest(id=clock.id)
    for _ in range(2):
        await caller.test_clocks.DeleteTestClock(delete, metadata=caller.metadata(idempotency_key="delete"))
    with refused(NOT_FOUND, "RESOURCE_MISSING"):
        await caller.test_clocks.DeleteTestClock(delete, metadata=caller.login)
