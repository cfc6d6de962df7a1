"""One of everything in an account, and a request for every method that names what is there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import automation_model_pb2 as automations
from billing.v1.automation_service_pb2 import CreateAutomationRequest, ListAutomationRunsRequest
from billing.v1.catalog_model_pb2 import INTERVAL_MONTH, Recurring
from billing.v1.catalog_service_pb2 import CreatePriceRequest, CreateProductRequest, GetPriceRequest
from billing.v1.customer_service_pb2 import AttachPaymentMethodRequest, CreateCustomerRequest
from billing.v1.event_service_pb2 import CreateConsumerRequest, ListEventsRequest
from billing.v1.invoice_service_pb2 import (
    CreateCreditNoteRequest,
    CreateInvoiceItemRequest,
    CreateInvoiceRequest,
    ListInvoicesRequest,
)
from billing.v1.meter_model_pb2 import METER_FORMULA_SUM
from billing.v1.meter_service_pb2 import CreateMeterRequest
from billing.v1.payment_service_pb2 import CreateRefundRequest, ListPaymentAttemptsRequest
from billing.v1.schedule_model_pb2 import PhaseItem
from billing.v1.schedule_service_pb2 import CreateSubscriptionScheduleRequest, PhaseParams
from billing.v1.subscription_service_pb2 import CreateSubscriptionRequest, ItemParams
from billing.v1.test_clock_service_pb2 import CreateTestClockRequest
from billing.v1.webhook_service_pb2 import CreateWebhookEndpointRequest
from billing_server.domain.webhook import WebhookDelivery, delivery_id
from billing_server.wire.contract import METHODS
from tests.serving import Caller, answered

World = Mapping[str, str]
"""Ids by what they are of."""


async def subscribed(
    caller: Caller, token: str = "pm_card_visa", **more: Any
) -> tuple[str, str, CreateSubscriptionRequest]:
    """A customer with a payment method, a monthly price of 15.00, and the request that subscribes them."""
    customer = await caller.customers.CreateCustomer(CreateCustomerRequest(name="Ada"), metadata=caller.login)
    await caller.customers.AttachPaymentMethod(
        AttachPaymentMethodRequest(customer=customer.id, token=token, set_default=True), metadata=caller.login
    )
    price = await new_price(caller)
    request = CreateSubscriptionRequest(customer=customer.id, items=[ItemParams(price=price)], **more)
    return customer.id, price, request


async def new_price(caller: Caller) -> str:
    """A product with a monthly price of 15.00."""
    product = await caller.catalog.CreateProduct(CreateProductRequest(name="Gold"), metadata=caller.login)
    price = await caller.catalog.CreatePrice(
        CreatePriceRequest(
            product=product.id, currency="usd", unit_amount="1500", recurring=Recurring(interval=INTERVAL_MONTH)
        ),
        metadata=caller.login,
    )
    return price.id


async def build(caller: Caller) -> World:
    """Make one of everything."""
    login = caller.login
    automation = await caller.automations.CreateAutomation(
        CreateAutomationRequest(
            name="Welcome",
            trigger=automations.AUTOMATION_TRIGGER_CUSTOMER_CREATED,
            actions=[
                automations.AutomationAction(
                    type=automations.AUTOMATION_ACTION_TYPE_CREDIT_CUSTOMER_BALANCE,
                    delay_seconds=86_400,
                    amount=1000,
                    currency="usd",
                )
            ],
        ),
        metadata=login,
    )
    customer, price, request = await subscribed(caller)
    subscription = await caller.subscriptions.CreateSubscription(request, metadata=login)
    schedule = await caller.schedules.CreateSubscriptionSchedule(
        CreateSubscriptionScheduleRequest(
            customer=customer,
            start_date=Timestamp(seconds=4_000_000_000),
            phases=[PhaseParams(items=[PhaseItem(price=price)], iterations=1)],
        ),
        metadata=login,
    )
    paid = (await caller.invoices.ListInvoices(ListInvoicesRequest(customer=customer), metadata=login)).invoices[0]
    attempts = await caller.payments.ListPaymentAttempts(ListPaymentAttemptsRequest(invoice=paid.id), metadata=login)
    refund = await caller.payments.CreateRefund(
        CreateRefundRequest(payment_intent=paid.payment_intent.id, amount=100), metadata=login
    )
    note = await caller.invoices.CreateCreditNote(
        CreateCreditNoteRequest(invoice=paid.id, amount=100, credit_amount=100), metadata=login
    )
    item = await caller.invoices.CreateInvoiceItem(
        CreateInvoiceItemRequest(customer=customer, amount=500, currency="usd", description="Setup"), metadata=login
    )
    draft = await caller.invoices.CreateInvoice(CreateInvoiceRequest(customer=customer), metadata=login)
    clock = await caller.test_clocks.CreateTestClock(CreateTestClockRequest(name="a clock"), metadata=login)
    meter = await caller.meters.CreateMeter(
        CreateMeterRequest(display_name="Calls", event_name="calls", formula=METER_FORMULA_SUM), metadata=login
    )
    consumer = await caller.events.CreateConsumer(
        CreateConsumerRequest(name=f"consumer_{uuid.uuid4().hex[:22]}"), metadata=login
    )
    runs = await caller.automations.ListAutomationRuns(ListAutomationRunsRequest(customer=customer), metadata=login)
    endpoint = await _endpoint(caller)
    events = await caller.events.ListEvents(ListEventsRequest(page_size=1), metadata=login)
    return {
        "customer": customer,
        "payment_method": paid.payment_intent.payment_method,
        "price": price,
        "subscription": subscription.id,
        "schedule": schedule.id,
        "item": subscription.items[0].id,
        "invoice": paid.id,
        "draft": draft.id,
        "invoice_item": item.id,
        "credit_note": note.id,
        "payment_intent": paid.payment_intent.id,
        "attempt": attempts.payment_attempts[0].id,
        "refund": refund.id,
        "clock": clock.id,
        "meter": meter.id,
        "consumer": consumer.name,
        "event": events.events[0].id,
        "automation": automation.id,
        "automation_run": runs.automation_runs[0].id,
        "webhook_endpoint": endpoint,
        "webhook_delivery": delivery_id(endpoint, 1),
        "api_key": caller.key_id,
        "product": (await _product_of(caller, price)),
    }


async def _endpoint(caller: Caller) -> str:
    """An endpoint that no event is sent to, but with a delivery that failed once."""
    request = CreateWebhookEndpointRequest(url="https://shop.example/billing", event_types=["none.such"])
    made = await caller.webhooks.CreateWebhookEndpoint(request, metadata=caller.login)
    endpoint: str = made.webhook_endpoint.id
    failed = WebhookDelivery(
        id=delivery_id(endpoint, 1),
        created=1_700_000_000,
        endpoint=endpoint,
        event="evt_000000000001",
        position=1,
        event_type="none.such",
        state="failed",
        started_at=1_700_000_000,
        due_at=None,
        settled_at=1_700_000_000,
    )
    async with caller.server.engine.store.webhooks(caller.account_id) as unit:
        await unit.add([failed], {})
    return endpoint


async def _product_of(caller: Caller, price: str) -> str:
    return (await caller.catalog.GetPrice(GetPriceRequest(id=price), metadata=caller.login)).product


_METER_EVENT = {"event_name": "calls", "customer": "$customer", "value": "1", "identifier": "call-1"}
_USED = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}

REQUESTS: Mapping[str, Any] = {
    "AccountService/GetAccount": {},
    "AccountService/UpdateSettings": {"company_name": "Acme"},
    "AccountService/CreateApiKey": {"name": "reader", "scopes": ["api_keys:write"]},
    "AccountService/ListApiKeys": {},
    "AccountService/RevokeApiKey": {"id": "$api_key"},
    "AutomationService/CreateAutomation": {"name": "Mail", "trigger": "AUTOMATION_TRIGGER_SUBSCRIPTION_CANCELED"}
    | {"actions": [{"type": "AUTOMATION_ACTION_TYPE_SEND_CANCELLATION_EMAIL"}]},
    "AutomationService/GetAutomation": {"id": "$automation"},
    "AutomationService/ListAutomations": {"trigger": "AUTOMATION_TRIGGER_CUSTOMER_CREATED"},
    "AutomationService/UpdateAutomation": {"id": "$automation", "name": "Welcome gift"},
    "AutomationService/EnableAutomation": {"id": "$automation"},
    "AutomationService/ReorderAutomations": {"trigger": "AUTOMATION_TRIGGER_CUSTOMER_CREATED", "ids": ["$automation"]},
    "AutomationService/DescribeAutomationCapabilities": {},
    "AutomationService/ListRecipes": {},
    "AutomationService/CreateAutomationFromRecipe": {"recipe": "new_customer_credit"},
    "AutomationService/DryRunAutomation": {"customer": "$customer"},
    "AutomationService/BacktestAutomation": {"automation": "$automation"},
    "AutomationService/GetAutomationRun": {"id": "$automation_run"},
    "AutomationService/ListAutomationRuns": {"automation": "$automation"},
    "CatalogService/CreateProduct": {"name": "Silver"},
    "CatalogService/GetProduct": {"id": "$product"},
    "CatalogService/ListProducts": {},
    "CatalogService/UpdateProduct": {"id": "$product", "name": "Gold plus"},
    "CatalogService/CreatePrice": {"product": "$product", "currency": "usd", "unit_amount": "5"},
    "CatalogService/GetPrice": {"id": "$price"},
    "CatalogService/ListPrices": {"product": "$product"},
    "CatalogService/UpdatePrice": {"id": "$price", "nickname": "monthly"},
    "CustomerService/CreateCustomer": {"name": "Bo", "test_clock": "$clock"},
    "CustomerService/GetCustomer": {"id": "$customer"},
    "CustomerService/ListCustomers": {"test_clock": "$clock"},
    "CustomerService/UpdateCustomer": {"id": "$customer", "name": "Ada L"},
    "CustomerService/AttachPaymentMethod": {"customer": "$customer", "token": "pm_card_visa"},
    "CustomerService/GetPaymentMethod": {"id": "$payment_method"},
    "CustomerService/ListPaymentMethods": {"customer": "$customer"},
    "CustomerService/UpdatePaymentMethod": {"id": "$payment_method", "billing_name": "Ada"},
    "CustomerService/AdjustBalance": {"customer": "$customer", "amount": "-100", "currency": "usd"},
    "CustomerService/ListBalanceTransactions": {"customer": "$customer"},
    "SubscriptionService/CreateSubscription": {"customer": "$customer", "items": [{"price": "$price"}]},
    "SubscriptionService/CreateSubscriptions": {
        "subscriptions": [
            {"idempotency_key": "old-1", "request": {"customer": "$customer", "items": [{"price": "$price"}]}}
        ]
    },
    "SubscriptionService/GetSubscription": {"id": "$subscription"},
    "SubscriptionService/ListSubscriptions": {"customer": "$customer", "price": "$price"},
    "SubscriptionService/UpdateSubscription": {"id": "$subscription", "description": "changed"},
    "SubscriptionService/ResumeSubscription": {"id": "$subscription"},
    "SubscriptionService/PreviewSubscriptionInvoice": {"subscription": "$subscription"},
    "SubscriptionService/ForecastSubscription": {"id": "$subscription", "until": "2031-01-01T00:00:00Z"},
    "SubscriptionScheduleService/CreateSubscriptionSchedule": {"from_subscription": "$subscription"},
    "SubscriptionScheduleService/GetSubscriptionSchedule": {"id": "$schedule"},
    "SubscriptionScheduleService/ListSubscriptionSchedules": {"customer": "$customer"},
    "SubscriptionScheduleService/UpdateSubscriptionSchedule": {"id": "$schedule", "metadata": {"plan": "gold"}},
    "InvoiceService/CreateInvoice": {"customer": "$customer"},
    "InvoiceService/GetInvoice": {"id": "$invoice"},
    "InvoiceService/ListInvoices": {"customer": "$customer", "subscription": "$subscription"},
    "InvoiceService/UpdateInvoice": {"id": "$draft", "footer": "thanks"},
    "InvoiceService/FinalizeInvoice": {"id": "$draft"},
    "InvoiceService/PayInvoice": {"id": "$invoice"},
    "InvoiceService/SendInvoice": {"id": "$invoice"},
    "InvoiceService/VoidInvoice": {"id": "$invoice"},
    "InvoiceService/MarkInvoiceUncollectible": {"id": "$invoice"},
    "InvoiceService/CreateInvoiceItem": {"customer": "$customer", "amount": "5", "currency": "usd"},
    "InvoiceService/GetInvoiceItem": {"id": "$invoice_item"},
    "InvoiceService/ListInvoiceItems": {"customer": "$customer"},
    "InvoiceService/UpdateInvoiceItem": {"id": "$invoice_item", "description": "Set-up"},
    "InvoiceService/CreateCreditNote": {"invoice": "$invoice", "amount": "10", "credit_amount": "10"},
    "InvoiceService/GetCreditNote": {"id": "$credit_note"},
    "InvoiceService/ListCreditNotes": {"invoice": "$invoice"},
    "InvoiceService/VoidCreditNote": {"id": "$credit_note"},
    "MeterService/CreateMeter": {"display_name": "Pages", "event_name": "pages_printed", "formula": 1},
    "MeterService/GetMeter": {"id": "$meter"},
    "MeterService/ListMeters": {},
    "MeterService/UpdateMeter": {"id": "$meter", "display_name": "Calls of the API"},
    "MeterService/ReportMeterEvent": {"event": _METER_EVENT},
    "MeterService/ReportMeterEvents": {"events": [_METER_EVENT]},
    "MeterService/GetUsageSummary": {"meter": "$meter", "customer": "$customer", "range": _USED},
    "MeterService/DeactivateMeter": {"id": "$meter"},
    "MeterService/ReactivateMeter": {"id": "$meter"},
    "PaymentService/GetPaymentIntent": {"id": "$payment_intent"},
    "PaymentService/ListPaymentIntents": {"customer": "$customer"},
    "PaymentService/ConfirmPaymentIntent": {"id": "$payment_intent"},
    "PaymentService/GetPaymentAttempt": {"id": "$attempt"},
    "PaymentService/ListPaymentAttempts": {"invoice": "$invoice"},
    "PaymentService/CreateRefund": {"payment_intent": "$payment_intent", "amount": "1"},
    "PaymentService/GetRefund": {"id": "$refund"},
    "PaymentService/ListRefunds": {"payment_intent": "$payment_intent"},
    "EventService/GetEvent": {"id": "$event"},
    "EventService/ListEvents": {"object_id": "$customer"},
    "EventService/StreamEvents": {"object_ids": ["$customer"], "heartbeat_seconds": 1},
    "EventService/CreateConsumer": {"name": "another", "types": ["invoice.*"]},
    "EventService/GetConsumer": {"name": "$consumer"},
    "EventService/ListConsumers": {},
    "EventService/UpdateConsumer": {"name": "$consumer", "tries_max": 3},
    "EventService/SeekConsumer": {"name": "$consumer", "start": "CONSUMER_START_HEAD"},
    "EventService/Consume": {"opening": {"consumer": "$consumer"}},
    "EventService/ListParkedEvents": {"consumer": "$consumer"},
    "EventService/RetryParkedEvents": {"consumer": "$consumer", "all": True},
    "EventService/DropParkedEvents": {"consumer": "$consumer", "all": True},
    "TestClockService/CreateTestClock": {"name": "another"},
    "TestClockService/GetTestClock": {"id": "$clock"},
    "TestClockService/ListTestClocks": {},
    "TestClockService/AdvanceTestClock": {"id": "$clock", "frozen_time": "2100-01-01T00:00:00Z"},
    "AutomationService/CancelAutomationRun": {"id": "$automation_run"},
    "AutomationService/DisableAutomation": {"id": "$automation", "runs_in_flight": "RUNS_IN_FLIGHT_CANCEL_ALL"},
    "AutomationService/DeleteAutomation": {"id": "$automation"},
    "WebhookService/CreateWebhookEndpoint": {"url": "https://other.example/hooks", "event_types": ["none.such"]},
    "WebhookService/GetWebhookEndpoint": {"id": "$webhook_endpoint"},
    "WebhookService/ListWebhookEndpoints": {},
    "WebhookService/UpdateWebhookEndpoint": {"id": "$webhook_endpoint", "description": "the shop"},
    "WebhookService/RotateWebhookSecret": {"id": "$webhook_endpoint"},
    "WebhookService/GetWebhookDelivery": {"id": "$webhook_delivery"},
    "WebhookService/ListWebhookDeliveries": {"endpoint": "$webhook_endpoint"},
    "WebhookService/RedeliverWebhookDelivery": {"id": "$webhook_delivery"},
    "SubscriptionScheduleService/ReleaseSubscriptionSchedule": {"id": "$schedule"},
    "SubscriptionScheduleService/CancelSubscriptionSchedule": {"id": "$schedule"},
    "SubscriptionService/CancelSubscription": {"id": "$subscription"},
    "InvoiceService/DeleteInvoiceItem": {"id": "$invoice_item"},
    "InvoiceService/DeleteInvoice": {"id": "$draft"},
    "CustomerService/DetachPaymentMethod": {"id": "$payment_method"},
    "CustomerService/DeleteCustomer": {"id": "$customer"},
    "TestClockService/DeleteTestClock": {"id": "$clock"},
    "EventService/DeleteConsumer": {"name": "$consumer"},
    "WebhookService/DeleteWebhookEndpoint": {"id": "$webhook_endpoint"},
}
"""A request for each method, as JSON with `$names` in the place of ids; what destroys stands last."""


def path_of(name: str) -> str:
    """The path of a method of `REQUESTS`."""
    return f"/billing.v1.{name}"


def request_of(name: str, world: World) -> Message:
    """The request of a method with the ids of a world."""
    text = json.dumps(REQUESTS[name])
    for thing in sorted(world, key=len, reverse=True):
        text = text.replace(f'"${thing}"', json.dumps(world[thing]))
    return json_format.Parse(text, METHODS[path_of(name)].request_type())


def names_others(name: str) -> bool:
    """Whether the request of a method names objects."""
    return "$" in json.dumps(REQUESTS[name])


_PREFIXES = {
    "customer": "cus",
    "payment_method": "pm",
    "price": "price",
    "subscription": "sub",
    "schedule": "sub_sched",
    "item": "si",
    "invoice": "in",
    "draft": "in",
    "invoice_item": "ii",
    "credit_note": "cn",
    "payment_intent": "pi",
    "attempt": "pa",
    "refund": "re",
    "clock": "clock",
    "meter": "mtr",
    "consumer": "consumer",
    "automation": "bauto",
    "automation_run": "bautorun",
    "event": "evt",
    "webhook_endpoint": "we",
    "webhook_delivery": "wd",
    "api_key": "key",
    "product": "prod",
}


def unknown_ids(caller: Caller) -> World:
    """Ids that look like those of a world, and are of nothing."""
    unknown = {thing: f"{prefix}_0000000000000000000000" for thing, prefix in _PREFIXES.items()}
    unknown["webhook_delivery"] = f"wd_{0:034d}"
    unknown["event"] = f"evt_{caller.account_id[-10:]}000000099999"
    return unknown


async def call(caller: Caller, name: str, request: bytes, metadata: tuple[tuple[str, str], ...]) -> bytes:
    """Call any method with bytes; of a stream, the first message."""
    path = path_of(name)
    if METHODS[path].gathers and METHODS[path].streams:
        conversing: Any = caller.channel.stream_stream(path)
        return await answered(lambda: first_message(name, conversing(iter([request]), metadata=metadata, timeout=60)))
    if METHODS[path].gathers:
        gathering: Any = caller.channel.stream_unary(path)
        response: bytes = await answered(lambda: gathering(iter([request]), metadata=metadata, timeout=60))
        return response
    if not METHODS[path].streams:
        return await caller.raw(path, request, metadata)
    stub: Any = caller.channel.unary_stream(path)
    return await first_message(name, stub(request, metadata=metadata, timeout=60))


async def first_message(name: str, stream: Any) -> bytes:
    """The first message of a stream, which is broken off then."""
    try:
        first = await stream.read()
    finally:
        stream.cancel()
    assert isinstance(first, bytes), f"{name} ended without a message: {await stream.code()}"
    return first
