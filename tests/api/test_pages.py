"""Lists: pages, tokens that belong to their query, filters."""

from __future__ import annotations

import base64

import grpc
import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.catalog_service_pb2 import CreateProductRequest, ListProductsRequest
from billing.v1.customer_service_pb2 import CreateCustomerRequest, ListCustomersRequest, UpdateCustomerRequest
from billing.v1.event_service_pb2 import GetEventRequest, ListEventsRequest
from billing.v1.invoice_service_pb2 import GetInvoiceRequest, ListInvoicesRequest
from billing.v1.subscription_model_pb2 import COLLECTION_METHOD_SEND_INVOICE
from billing.v1.subscription_service_pb2 import ListSubscriptionsRequest
from billing.v1.test_clock_service_pb2 import AdvanceTestClockRequest, CreateTestClockRequest
from billing.v1.time_range_model_pb2 import TimeRange
from billing_server.api import paging
from tests.api.world import build, subscribed
from tests.serving import Caller, refused

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def customers(caller: Caller, count: int) -> list[str]:
    """Ids of new customers, newest first."""
    made = [
        await caller.customers.CreateCustomer(CreateCustomerRequest(name=f"c{n}"), metadata=caller.login)
        for n in range(count)
    ]
    return [customer.id for customer in reversed(made)]


async def test_pages_follow_each_other_without_gap_or_repeat(caller: Caller) -> None:
    expected = await customers(caller, 7)
    found: list[str] = []
    token = ""
    sizes = []
    while True:
        request = ListCustomersRequest(page_size=3, page_token=token)
        page = await caller.customers.ListCustomers(request, metadata=caller.login)
        found += [customer.id for customer in page.customers]
        sizes.append(len(page.customers))
        token = page.next_page_token
        if len(sizes) == 1:
            # What comes meanwhile belongs to no later page.
            await customers(caller, 1)
        if not token:
            break
    assert (found, sizes) == (expected, [3, 3, 1])


async def test_a_page_has_fifty_objects_unless_told_otherwise(caller: Caller) -> None:
    for n in range(51):
        await caller.catalog.CreateProduct(CreateProductRequest(name=f"p{n}"), metadata=caller.login)
    page = await caller.catalog.ListProducts(ListProductsRequest(), metadata=caller.login)
    assert len(page.products) == 50
    rest = ListProductsRequest(page_token=page.next_page_token, page_size=1000)
    last = await caller.catalog.ListProducts(rest, metadata=caller.login)
    assert (len(last.products), last.next_page_token) == (1, "")


@pytest.mark.parametrize("size", [-1, 1001])
async def test_page_sizes_have_limits(caller: Caller, size: int) -> None:
    with refused(INVALID, "PARAMETER_INVALID_INTEGER"):
        await caller.customers.ListCustomers(ListCustomersRequest(page_size=size), metadata=caller.login)


async def test_tokens_of_other_queries_and_made_up_ones_are_refused(caller: Caller) -> None:
    await customers(caller, 2)
    page = await caller.customers.ListCustomers(ListCustomersRequest(page_size=1), metadata=caller.login)
    token = page.next_page_token
    content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    made_up = [
        base64.urlsafe_b64encode(content[:12] + msgspec.msgpack.encode(cursor)).decode()
        for cursor in ((2**63, "cus_1"), (1, "a\x00b"), ("x", "y"), (1,), None, (-1, "cus_1"))
    ]
    for wrong in ("x", "!", "é", token[:-4], token + "AAAA", *made_up):
        with refused(INVALID, "PAGE_TOKEN_INVALID"):
            request = ListCustomersRequest(page_token=wrong)
            await caller.customers.ListCustomers(request, metadata=caller.login)
    with refused(INVALID, "PAGE_TOKEN_INVALID"):
        other = ListCustomersRequest(page_token=token, email="ada@example.com")
        await caller.customers.ListCustomers(other, metadata=caller.login)
    with refused(INVALID, "PAGE_TOKEN_INVALID"):
        await caller.catalog.ListProducts(ListProductsRequest(page_token=token), metadata=caller.login)
    with refused(INVALID, "PAGE_TOKEN_INVALID"):
        await caller.events.ListEvents(ListEventsRequest(page_token=token), metadata=caller.login)


async def test_large_pages_end_before_clients_refuse_them(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = await customers(caller, 5)
    monkeypatch.setattr(paging, "BYTES_MAX", 150)
    found: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = await caller.customers.ListCustomers(ListCustomersRequest(page_token=token), metadata=caller.login)
        found += [customer.id for customer in page.customers]
        token, pages = page.next_page_token, pages + 1
    assert found == expected
    assert pages > 1


async def test_events_are_listed_newest_first_in_pages(caller: Caller) -> None:
    await build(caller)
    positions: list[int] = []
    token = ""
    while not positions or token:
        request = ListEventsRequest(page_size=4, page_token=token)
        page = await caller.events.ListEvents(request, metadata=caller.login)
        positions += [event.position for event in page.events]
        token = page.next_page_token
    assert positions == list(range(len(positions), 0, -1))
    first = await caller.events.ListEvents(ListEventsRequest(page_size=1), metadata=caller.login)
    found = await caller.events.GetEvent(GetEventRequest(id=first.events[0].id), metadata=caller.login)
    assert found == first.events[0]


async def test_events_are_filtered_by_type_object_customer_and_time(caller: Caller) -> None:
    world = await build(caller)

    async def types(**filters: object) -> list[str]:
        request = ListEventsRequest(page_size=1000, **filters)  # type: ignore[arg-type]  # filters of any field
        return [event.type for event in (await caller.events.ListEvents(request, metadata=caller.login)).events]

    everything = await types()
    assert set(await types(types=["invoice.paid", "product.*"])) == {"invoice.paid", "product.created"}
    assert len(await types(types=["invoice.*"])) == sum(type_.startswith("invoice.") for type_ in everything)
    assert set(await types(object_id=world["subscription"])) <= {
        type_ for type_ in everything if type_.startswith("customer.subscription.")
    }
    assert "product.created" not in await types(customer=world["customer"])
    assert await types(created=TimeRange(end=Timestamp(seconds=1))) == []
    assert await types(created=TimeRange(start=Timestamp(seconds=1))) == everything
    assert await types(types=["no.such"]) == []


async def test_a_customer_is_found_by_email_and_span(caller: Caller) -> None:
    create = CreateCustomerRequest(email="ada@example.com")
    ada = await caller.customers.CreateCustomer(create, metadata=caller.login)
    await customers(caller, 1)

    async def found(request: ListCustomersRequest) -> list[str]:
        listed = await caller.customers.ListCustomers(request, metadata=caller.login)
        return [customer.id for customer in listed.customers]

    assert await found(ListCustomersRequest(email="ada@example.com")) == [ada.id]
    assert await found(ListCustomersRequest(created=TimeRange(end=ada.created))) == []
    assert ada.id in await found(ListCustomersRequest(created=TimeRange(start=ada.created)))
    await caller.customers.UpdateCustomer(UpdateCustomerRequest(id=ada.id, email="a@b.com"), metadata=caller.login)
    assert await found(ListCustomersRequest(email="ada@example.com")) == []


async def test_subscriptions_that_ended_are_listed_when_asked_for(caller: Caller) -> None:
    _, price, request = await subscribed(caller)
    live = await caller.subscriptions.CreateSubscription(request, metadata=caller.login)

    async def found(**filters: object) -> list[str]:
        wanted = ListSubscriptionsRequest(**filters)  # type: ignore[arg-type]  # filters of any field
        listed = await caller.subscriptions.ListSubscriptions(wanted, metadata=caller.login)
        return [subscription.id for subscription in listed.subscriptions]

    assert await found() == [live.id]
    assert await found(price=price) == [live.id]
    assert await found(price="price_none") == []
    assert await found(statuses=["SUBSCRIPTION_STATUS_CANCELED"]) == []
    with refused(INVALID, "PARAMETER_INVALID_EMPTY"):
        await found(statuses=[0])
    with refused(INVALID, "PARAMETER_UNKNOWN"):
        await found(statuses=[99])


async def test_invoices_are_overdue_by_the_time_of_their_clock(caller: Caller) -> None:
    begin = 1_735_689_600
    clock = await caller.test_clocks.CreateTestClock(
        CreateTestClockRequest(frozen_time=Timestamp(seconds=begin)), metadata=caller.login
    )
    _, _, request = await subscribed(caller)
    customer = await caller.customers.CreateCustomer(
        CreateCustomerRequest(email="ada@example.com", test_clock=clock.id), metadata=caller.login
    )
    request.customer = customer.id
    request.collection_method = COLLECTION_METHOD_SEND_INVOICE
    request.days_until_due = 3
    subscription = await caller.subscriptions.CreateSubscription(request, metadata=caller.login)
    for days in (1, 10):
        to = Timestamp(seconds=begin + days * 86_400)
        advance = AdvanceTestClockRequest(id=clock.id, frozen_time=to)
        [message async for message in caller.test_clocks.AdvanceTestClock(advance, metadata=caller.login)]
        get = GetInvoiceRequest(id=subscription.latest_invoice)
        invoice = await caller.invoices.GetInvoice(get, metadata=caller.login)
        assert invoice.overdue == (days > 3)
        wanted = ListInvoicesRequest(customer=customer.id, overdue=True)
        listed = await caller.invoices.ListInvoices(wanted, metadata=caller.login)
        assert [found.overdue for found in listed.invoices] == [True] * (days > 3)
