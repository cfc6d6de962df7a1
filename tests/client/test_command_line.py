"""The command line: options anywhere, clear errors, exit statuses, tables and JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from typer.testing import CliRunner

from billing.v1 import (
    account_model_pb2,
    automation_model_pb2,
    automation_service_pb2,
    catalog_model_pb2,
    consumer_model_pb2,
    customer_model_pb2,
    event_model_pb2,
    invoice_model_pb2,
    message_model_pb2,
    payment_model_pb2,
    schedule_model_pb2,
    subscription_model_pb2,
    test_clock_model_pb2,
    webhook_model_pb2,
)
from billing.v1.customer_model_pb2 import Customer
from billing.v1.customer_service_pb2 import GetCustomerRequest, ListCustomersRequest, ListCustomersResponse
from billing.v1.event_model_pb2 import Event, EventBatch
from billing.v1.event_service_pb2 import StreamEventsRequest
from billing.v1.invoice_model_pb2 import Invoice, InvoiceLine
from billing.v1.schedule_model_pb2 import PhaseItem, SubscriptionSchedule
from billing.v1.schedule_service_pb2 import CreateSubscriptionScheduleRequest, PhaseDuration, PhaseParams
from billing.v1.subscription_model_pb2 import Subscription
from billing.v1.subscription_service_pb2 import (
    FORECAST_PAYMENTS_FAIL_THEN_SUCCEED,
    ForecastMessage,
    ForecastSubscriptionRequest,
    ForecastSubscriptionResponse,
    GetSubscriptionRequest,
)
from billing_client.command_line import rendering
from billing_client.command_line.main import app, hoist
from tests.client.fake_server import Context, FakeServer, refuse

RUNNER = CliRunner()


async def run(server: FakeServer, *arguments: str, key: str = "sk_test") -> Any:
    """Run a command against the fake server, in a thread because it has an event loop of its own."""

    def invoke() -> Any:
        command = hoist(["--target", server.target, *(["--api-key", key] if key else []), *arguments])
        return RUNNER.invoke(app, command, prog_name="billing", env={"BILLING_DATA_DIR": "/nowhere"})

    return await asyncio.to_thread(invoke)


@pytest.mark.parametrize(
    ("given", "hoisted"),
    [
        (["customers", "list", "--json"], ["--json", "customers", "list"]),
        (["keys", "list", "--target", "a:1", "--limit", "3"], ["--target", "a:1", "keys", "list", "--limit", "3"]),
        (["audit", "--target=a:1", "--no-color"], ["--target=a:1", "--no-color", "audit"]),
        (["products", "create", "--", "--json"], ["products", "create", "--", "--json"]),
        (["audit", "--target"], ["audit", "--target"]),
    ],
)
def test_global_options_may_stand_anywhere(given: Sequence[str], hoisted: list[str]) -> None:
    assert hoist(given) == hoisted


async def test_an_object_as_fields_and_as_json(fake: FakeServer) -> None:
    async def handler(request: GetCustomerRequest, context: Context) -> Customer:
        return Customer(id=request.id, balance=-1050, currency="usd", metadata={"b": "2", "a": "1"}, etag="x")

    fake.unary("GetCustomer", handler)
    await fake.start()
    shown = await run(fake, "customers", "show", "cus_1")
    assert shown.exit_code == 0
    assert "-10.50 USD" in shown.stdout
    assert "a=1, b=2" in shown.stdout
    assert "etag" not in shown.stdout
    machine = json.loads((await run(fake, "customers", "show", "cus_1", "--json")).stdout)
    assert machine["balance"] == "-1050"


async def test_a_list_ends_at_its_limit_and_says_so(fake: FakeServer) -> None:
    async def handler(request: ListCustomersRequest, context: Context) -> ListCustomersResponse:
        start = int(request.page_token or 0)
        page = [Customer(id=f"cus_{start + index}") for index in range(request.page_size)]
        return ListCustomersResponse(customers=page, next_page_token=str(start + request.page_size))

    fake.unary("ListCustomers", handler)
    await fake.start()
    listed = await run(fake, "customers", "list", "--limit", "3", "--json")
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == ["cus_0", "cus_1", "cus_2"]
    assert "--limit 0" in listed.stderr


async def test_an_error_is_one_line_and_exit_status_1(fake: FakeServer) -> None:
    async def handler(request: GetCustomerRequest, context: Context) -> None:
        violations = error_details_pb2.BadRequest()
        violations.field_violations.add(field="id", reason="PARAMETER_MISSING", description="it is required")
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "bad", "PARAMETER_MISSING", violations)

    fake.unary("GetCustomer", handler)
    await fake.start()
    failed = await run(fake, "customers", "show", "x")
    assert failed.exit_code == 1
    assert failed.stderr == "Id: it is required. (parameter_missing) Set the field that the violation names.\n"
    machine = await run(fake, "customers", "show", "x", "--json")
    assert json.loads(machine.stderr)["error"]["reason"] == "PARAMETER_MISSING"


async def test_without_a_server_the_way_out_is_told(fake: FakeServer) -> None:
    await fake.start()
    await fake.stop()
    failed = await run(fake, "account", "show")
    assert failed.exit_code == 1
    assert failed.stderr.startswith(f"No server answers at {fake.target}: start one with `make run`")
    assert len(failed.stderr.splitlines()) == 1


async def test_without_a_key_the_way_out_is_told(fake: FakeServer) -> None:
    await fake.start()
    failed = await run(fake, "account", "show", key="")
    assert failed.exit_code == 1
    assert "set BILLING_API_KEY" in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["customers", "create", "--metadata", "novalue"],
        ["prices", "create", "--product", "prod_1"],
        ["prices", "create", "--product", "prod_1", "--amount", "ten"],
        ["prices", "create", "--product", "prod_1", "--amount", "1", "--interval", "fortnight"],
        ["invoices", "list", "--status", "lost"],
        ["subscriptions", "create", "cus_1", "--price", "price_1=two"],
        ["clock", "create", "--at", "yesterday"],
        ["account", "settings", "--retry-days", "3,x"],
        ["account", "settings", "--retry-days", "3", "--smart-retries", "2"],
        ["replay", "telco", "/nowhere/rows.csv"],
        ["replay", "telco", "--end", "2025-01-31"],
        ["nonsense"],
        ["customers", "show"],
    ],
)
async def test_wrong_usage_is_exit_status_2(fake: FakeServer, arguments: list[str]) -> None:
    await fake.start()
    result = await run(fake, *arguments)
    assert result.exit_code == 2, result.stderr
    assert fake.calls == []


async def test_tail_prints_events_until_it_has_caught_up(fake: FakeServer) -> None:
    async def stream(request: StreamEventsRequest, context: Context) -> AsyncIterator[EventBatch]:
        events = [Event(position=number, type="invoice.paid", object_id=f"in_{number}") for number in (4, 5)]
        yield EventBatch(events=events, head_position=5, caught_up=True)
        await asyncio.sleep(30)

    fake.streaming("StreamEvents", stream)
    await fake.start()
    tail = await run(fake, "events", "tail", "--after", "3")
    assert tail.exit_code == 0
    assert ["in_4" in tail.stdout, "in_5" in tail.stdout] == [True, True]


def test_nested_fields_take_the_currency_of_their_parent() -> None:
    invoice = Invoice(currency="kwd", lines=[InvoiceLine(amount=1500)])
    assert rendering.cell(invoice.lines[0], "amount", "kwd") == "1.500 KWD"
    assert [name for name, _ in rendering.tables(invoice)] == ["lines"]


def test_every_column_exists() -> None:
    modules = [
        account_model_pb2,
        automation_model_pb2,
        automation_service_pb2,
        catalog_model_pb2,
        consumer_model_pb2,
        customer_model_pb2,
        event_model_pb2,
        invoice_model_pb2,
        payment_model_pb2,
        schedule_model_pb2,
        subscription_model_pb2,
        test_clock_model_pb2,
        webhook_model_pb2,
    ]
    kinds = {kind.name: kind for module in modules for kind in module.DESCRIPTOR.message_types_by_name.values()}
    for name in rendering._COLUMNS:
        message = kinds[name]._concrete_class()
        assert [rendering.cell(message, column) is not None for column in rendering.columns_of(name)]


async def test_a_forecast_is_a_timeline_of_events_and_e_mails(fake: FakeServer) -> None:
    asked: list[ForecastSubscriptionRequest] = []

    async def get(request: GetSubscriptionRequest, context: Context) -> Subscription:
        return Subscription(id=request.id, customer="cus_1")

    async def forecast(request: ForecastSubscriptionRequest, context: Context) -> ForecastSubscriptionResponse:
        asked.append(request)
        invoice = Invoice(id="in_1", status=invoice_model_pb2.INVOICE_STATUS_OPEN, amount_due=3100, currency="usd")
        mail = ForecastMessage(
            created=Timestamp(seconds=60),
            kind=message_model_pb2.MESSAGE_KIND_PAYMENT_FAILED,
            recipient="ada@example.com",
            amount=3100,
            currency="usd",
        )
        return ForecastSubscriptionResponse(
            events=[
                Event(type="invoice.finalized", created=Timestamp(seconds=60), invoice=invoice),
                Event(type="invoice.paid", created=Timestamp(seconds=120), invoice=invoice),
            ],
            messages=[mail],
            subscription=Subscription(id=request.id),
        )

    fake.unary("GetSubscription", get)
    fake.unary("ForecastSubscription", forecast)
    await fake.start()
    wanted = ("forecast", "sub_1", "--until", "2031-01-01", "--payments", "fail_then_succeed", "--failures", "2")
    shown = await run(fake, *wanted)
    assert shown.exit_code == 0, shown.output
    first, second, third, *_ = shown.stdout.splitlines()
    assert "invoice.finalized" in first and "status open" in first and "31.00 USD" in first
    assert "00:01:00" in second and "e-mail: payment_failed" in second and "ada@example.com" in second
    assert "31.00 USD" in second
    assert "invoice.paid" in third
    assert "2 events and 1 e-mails" in shown.output
    assert (asked[0].payments, asked[0].failures) == (FORECAST_PAYMENTS_FAIL_THEN_SUCCEED, 2)
    machine = [json.loads(line) for line in (await run(fake, *wanted, "--json")).stdout.splitlines()[:3]]
    assert [line.get("type", line.get("kind")) for line in machine] == [
        "invoice.finalized",
        "MESSAGE_KIND_PAYMENT_FAILED",
        "invoice.paid",
    ]
    assert (await run(fake, *wanted[:4], "--payments", "sometimes")).exit_code == 2


async def test_phases_of_a_schedule_are_typed_in_short(fake: FakeServer) -> None:
    asked: list[CreateSubscriptionScheduleRequest] = []

    async def handler(request: CreateSubscriptionScheduleRequest, context: Context) -> SubscriptionSchedule:
        asked.append(request)
        return SubscriptionSchedule(id="sub_sched_1")

    fake.unary("CreateSubscriptionSchedule", handler)
    await fake.start()
    typed = ("--phase", "price=price_1:2,for=14day,trial", "--phase", "price=price_2,iterations=12,days_until_due=30")
    shown = await run(fake, "schedules", "create", "cus_1", *typed, "--end-behavior", "cancel")
    assert shown.exit_code == 0, shown.output
    taken = await run(fake, "schedules", "create", "sub_1")
    assert taken.exit_code == 0
    assert asked[1] == CreateSubscriptionScheduleRequest(from_subscription="sub_1")
    assert (asked[0].customer, asked[0].end_behavior) == ("cus_1", schedule_model_pb2.SCHEDULE_END_BEHAVIOR_CANCEL)
    assert list(asked[0].phases) == [
        PhaseParams(
            items=[PhaseItem(price="price_1", quantity=2)],
            duration=PhaseDuration(interval=catalog_model_pb2.INTERVAL_DAY, interval_count=14),
            trial=True,
        ),
        PhaseParams(
            items=[PhaseItem(price="price_2")],
            iterations=12,
            collection_method=subscription_model_pb2.COLLECTION_METHOD_SEND_INVOICE,
            days_until_due=30,
        ),
    ]
    for wrong in ("price=price_1,lasts=2", "price=price_1,iterations=many", "price=price_1,trial=yes"):
        assert (await run(fake, "schedules", "create", "cus_1", "--phase", wrong)).exit_code == 2
