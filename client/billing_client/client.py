"""The client: one object with a stub for each service, and what plain stubs cannot do.

async with BillingClient() as client:
    customer = await client.customers.CreateCustomer(CreateCustomerRequest(email="jenny@example.com"))
    async for event in client.events(after_position=0):
        ...
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from datetime import datetime
from types import TracebackType

from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.account_service_pb2_grpc import AccountServiceStub
from billing.v1.automation_service_pb2 import BacktestAutomationRequest, BacktestAutomationResponse
from billing.v1.automation_service_pb2_grpc import AutomationServiceStub
from billing.v1.catalog_service_pb2_grpc import CatalogServiceStub
from billing.v1.customer_service_pb2_grpc import CustomerServiceStub
from billing.v1.event_service_pb2 import CreateConsumerRequest
from billing.v1.event_service_pb2_grpc import EventServiceStub
from billing.v1.invoice_service_pb2_grpc import InvoiceServiceStub
from billing.v1.meter_model_pb2 import MeterEvent
from billing.v1.meter_service_pb2 import ReportMeterEventsResponse
from billing.v1.meter_service_pb2_grpc import MeterServiceStub
from billing.v1.payment_service_pb2_grpc import PaymentServiceStub
from billing.v1.schedule_service_pb2_grpc import SubscriptionScheduleServiceStub
from billing.v1.subscription_service_pb2 import CreateSubscriptionResult, SubscriptionToCreate
from billing.v1.subscription_service_pb2_grpc import SubscriptionServiceStub
from billing.v1.test_clock_service_pb2 import AdvanceTestClockProgress, AdvanceTestClockRequest
from billing.v1.test_clock_service_pb2_grpc import TestClockServiceStub
from billing.v1.webhook_service_pb2_grpc import WebhookServiceStub
from billing_client import backtests, clocks, imports, usage
from billing_client import pages as paging
from billing_client.calls import ConversingCalls, GatheringCalls, StreamCalls, UnaryCalls, idempotency_key
from billing_client.channel import Tls, open_channel
from billing_client.consumers import ConsumerStream
from billing_client.credentials import find_login
from billing_client.events import EventStream
from billing_client.retry import RetryPolicy

DEFAULT_TIMEOUT_SECONDS = 30.0


class BillingClient:
    """A connection to the engine, to be made and used inside a running event loop.

    target: HOST:PORT; None means the address that `make run` left for this checkout, else 127.0.0.1:50051.
    api_key: None means `BILLING_API_KEY`, else the key that `make run` left for this checkout.
    tls: True, False or certificates; None means TLS except on loopback.
    timeout_seconds: deadline of each attempt of a call, unless the call names its own by `timeout`.
    retry: how failed attempts are repeated; changes carry the same idempotency key each time.

    The attributes `account`, `automations`, `catalog`, `customers`, `subscriptions`, `schedules`, `invoices`, `meters`,
    `payments`, `event_log`, `webhooks` and `test_clocks` are the generated stubs of the services. Their unary calls
    raise BillingError. An idempotency key of one's own is given by `metadata=idempotency_key("order-17")`.

    Raises ApiKeyMissing when there is no key.
    """

    def __init__(
        self,
        target: str | None = None,
        api_key: str | None = None,
        *,
        tls: Tls | bool | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
    ) -> None:
        login = find_login(target, api_key)
        self.target = login.target
        self._retry = retry or RetryPolicy()
        authorization = f"Bearer {login.api_key}"
        self._channel = open_channel(
            login.target,
            tls,
            [
                UnaryCalls(authorization, timeout_seconds, self._retry),
                StreamCalls(authorization),
                GatheringCalls(authorization),
                ConversingCalls(authorization),
            ],
        )
        self.account = AccountServiceStub(self._channel)
        self.automations = AutomationServiceStub(self._channel)
        self.catalog = CatalogServiceStub(self._channel)
        self.customers = CustomerServiceStub(self._channel)
        self.subscriptions = SubscriptionServiceStub(self._channel)
        self.schedules = SubscriptionScheduleServiceStub(self._channel)
        self.invoices = InvoiceServiceStub(self._channel)
        self.meters = MeterServiceStub(self._channel)
        self.payments = PaymentServiceStub(self._channel)
        self.event_log = EventServiceStub(self._channel)
        self.webhooks = WebhookServiceStub(self._channel)
        self.test_clocks = TestClockServiceStub(self._channel)

    async def __aenter__(self) -> BillingClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in progress are canceled."""
        await self._channel.close()

    def events(
        self,
        after_position: int | None = None,
        types: Iterable[str] = (),
        *,
        object_ids: Iterable[str] = (),
        customer: str = "",
        batch_max: int = 100,
        heartbeat_seconds: int = 15,
        stop_when_caught_up: bool = False,
    ) -> EventStream:
        """The account's events, without a gap or a repeat, across restarts of the server.

        after_position: begin with the event after this one; 0 begins with the oldest, None with what happens
            from now on.
        types: exact names such as "invoice.paid", or prefixes such as "invoice.*"; none means all.
        stop_when_caught_up: end instead of waiting for live events.
        """
        return EventStream(
            self.event_log,
            self._retry,
            after_position=after_position,
            types=types,
            object_ids=object_ids,
            customer=customer,
            batch_max=batch_max,
            heartbeat_seconds=heartbeat_seconds,
            stop_when_caught_up=stop_when_caught_up,
        )

    def consume(
        self,
        name: str,
        *,
        create: CreateConsumerRequest | None = None,
        batch_max: int = 0,
        unacknowledged_max: int = 0,
        heartbeat_seconds: int = 15,
        stop_when_caught_up: bool = False,
    ) -> ConsumerStream:
        """The events of a durable consumer, whose position the server keeps; across restarts of the server.

        Several such streams, in any processes, share a consumer's work, each customer's events in order.

            async with client.consume("crm", create=CreateConsumerRequest(types=["customer.*"])) as deliveries:
                async for delivery in deliveries:
                    ...
                    delivery.ack()

        or `await client.consume("crm").handle(handler)`.

        create: how the consumer is made when there is none of this name; None refuses then.
        batch_max, unacknowledged_max: limits of this connection; 0 means as the consumer has them.
        stop_when_caught_up: end instead of waiting for live events.
        """
        return ConsumerStream(
            self.event_log,
            self._retry,
            name,
            create=create,
            batch_max=batch_max,
            unacknowledged_max=unacknowledged_max,
            heartbeat_seconds=heartbeat_seconds,
            stop_when_caught_up=stop_when_caught_up,
        )

    def advance_test_clock(
        self, clock: str, to: datetime | int | Timestamp, *, key: str | None = None
    ) -> AsyncGenerator[AdvanceTestClockProgress, None]:
        """Move a test clock forward and tell its progress until it has arrived; across restarts of the server.

        `to` is a datetime with a time zone, Unix seconds or a Timestamp; `key` an idempotency key of one's own.
        Raises ClockStuck, after the last message, when a customer could not be brought forward.
        """
        request = AdvanceTestClockRequest(id=clock, frozen_time=clocks.timestamp(to))
        metadata = idempotency_key(key or str(uuid.uuid4()))
        return clocks.advance(self.test_clocks, self._retry, request, metadata)

    def backtest_automation(
        self, request: BacktestAutomationRequest
    ) -> AsyncGenerator[BacktestAutomationResponse, None]:
        """Try an automation on the recorded events: runs as they are found, and the sums so far.

        The last message has `done`. Nothing is changed, so a backtest that broke off can be made again. Raises
        BillingError.
        """
        return backtests.backtest(self.automations, request)

    async def report_usage(
        self,
        events: Iterable[MeterEvent] | AsyncIterable[MeterEvent],
        *,
        batch_events: int = usage.BATCH_EVENTS,
    ) -> ReportMeterEventsResponse:
        """Report any number of meter events, and tell what became of them; across restarts of the server.

        Events without an identifier get one, so that none counts twice when a broken stream is sent again; then
        `duplicates` counts those that the server had already, too. Raises BillingError; what was stored before
        stays.
        """
        return await usage.report(self.meters, self._retry, events, batch_events)

    def create_subscriptions(
        self, wanted: Iterable[SubscriptionToCreate]
    ) -> AsyncGenerator[tuple[SubscriptionToCreate, CreateSubscriptionResult], None]:
        """Create any number of subscriptions, and tell of each, in order, what became of it; across restarts of the
        server.

            async for one, result in client.create_subscriptions(wanted):
                if result.HasField("refusal"):
                    print(one.idempotency_key, result.refusal.message)

        Their keys keep everything from being there twice, however often `wanted` is run. Raises BillingError when
        the server stays away, or refuses the stream as a whole.
        """
        return imports.create(self.subscriptions, self._retry, wanted)

    def pages(
        self,
        method: Callable[[paging.Request], Awaitable[paging.Response]],
        request: paging.Request,
        page_size: int = paging.PAGE_SIZE_MAX,
    ) -> AsyncIterator[paging.Response]:
        """The pages of a List method, one after the other as they are needed, newest objects first."""
        return paging.pages(method, request, page_size)

    def list_all(
        self,
        method: Callable[[paging.Request], Awaitable[paging.Response]],
        request: paging.Request,
        pick: Callable[[paging.Response], Iterable[paging.Item]],
        page_size: int = paging.PAGE_SIZE,
    ) -> AsyncIterator[paging.Item]:
        """All objects of a List method, page by page as they are needed, newest first.

        list_all(client.invoices.ListInvoices, ListInvoicesRequest(customer=id), lambda page: page.invoices)
        """
        return paging.list_all(method, request, pick, page_size)
