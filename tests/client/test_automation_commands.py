"""`billing automations`: parts as they are typed, timelines, dry runs and backtests as they are shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import account_model_pb2 as accounts
from billing.v1 import automation_model_pb2 as model
from billing.v1 import automation_service_pb2 as service
from billing.v1 import invoice_model_pb2
from billing_client.command_line.automation_parts import action, condition, retry_policy, seconds
from billing_client.command_line.automation_runs import timeline
from tests.client.fake_server import Context, FakeServer, refuse
from tests.client.test_command_line import run

DAY = 86_400
SMART = accounts.RETRY_POLICY_KIND_SMART
CUSTOM = accounts.RETRY_POLICY_KIND_CUSTOM

CONDITIONS: list[tuple[str, model.AutomationCondition]] = [
    (
        "subscription_interval,interval=yearly",
        model.AutomationCondition(
            type=model.AUTOMATION_CONDITION_TYPE_SUBSCRIPTION_INTERVAL,
            interval=model.AUTOMATION_BILLING_INTERVAL_YEARLY,
        ),
    ),
    (
        "invoice-amount,more_than=500.00,less_than=1000",
        model.AutomationCondition(
            type=model.AUTOMATION_CONDITION_TYPE_INVOICE_AMOUNT, more_than=50_000, less_than=100_000
        ),
    ),
    (
        "product,products=prod_1+prod_2",
        model.AutomationCondition(type=model.AUTOMATION_CONDITION_TYPE_PRODUCT, products=["prod_1", "prod_2"]),
    ),
    (
        "customer_metadata,key=tier,value=gold=1",
        model.AutomationCondition(type=model.AUTOMATION_CONDITION_TYPE_CUSTOMER_METADATA, key="tier", value="gold=1"),
    ),
]
ACTIONS: list[tuple[str, model.AutomationAction]] = [
    (
        "start_retry_policy,smart=8/two_months",
        model.AutomationAction(
            type=model.AUTOMATION_ACTION_TYPE_START_RETRY_POLICY,
            retry_policy=accounts.RetryPolicy(kind=SMART, max_retries=8, window=accounts.RETRY_WINDOW_TWO_MONTHS),
        ),
    ),
    (
        "start_retry_policy,smart=4",
        model.AutomationAction(
            type=model.AUTOMATION_ACTION_TYPE_START_RETRY_POLICY,
            retry_policy=accounts.RetryPolicy(kind=SMART, max_retries=4),
        ),
    ),
    (
        "start_retry_policy,days=3",
        model.AutomationAction(
            type=model.AUTOMATION_ACTION_TYPE_START_RETRY_POLICY,
            retry_policy=accounts.RetryPolicy(kind=CUSTOM, retry_days=[3]),
        ),
    ),
    (
        "cancel_subscription,after=7d",
        model.AutomationAction(type=model.AUTOMATION_ACTION_TYPE_CANCEL_SUBSCRIPTION, delay_seconds=7 * DAY),
    ),
    (
        "send_team_email,to=a+b@acme.test,to=c@acme.test,before_due=36h,memo=Look, it is due = now",
        model.AutomationAction(
            type=model.AUTOMATION_ACTION_TYPE_SEND_TEAM_EMAIL,
            recipients=["a+b@acme.test", "c@acme.test"],
            before_due_seconds=129_600,
            memo="Look, it is due = now",
        ),
    ),
    (
        "credit_customer_balance,amount=1000,currency=jpy",
        model.AutomationAction(type=model.AUTOMATION_ACTION_TYPE_CREDIT_CUSTOMER_BALANCE, amount=1000, currency="jpy"),
    ),
    (
        "credit_customer_balance,amount=10.50",
        model.AutomationAction(type=model.AUTOMATION_ACTION_TYPE_CREDIT_CUSTOMER_BALANCE, amount=1050, currency="usd"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), CONDITIONS)
def test_conditions_as_they_are_typed(text: str, expected: model.AutomationCondition) -> None:
    assert condition(text, "usd") == expected


@pytest.mark.parametrize(("text", "expected"), ACTIONS)
def test_actions_as_they_are_typed(text: str, expected: model.AutomationAction) -> None:
    assert action(text, "usd") == expected


@pytest.mark.parametrize(
    "text",
    [
        "cancel",
        "cancel_subscription,later=7d",
        "cancel_subscription,after=7x",
        "start_retry_policy,days=3/x",
        "start_retry_policy,smart=8/forever",
        "create_subscription,quantity=many",
        "credit_customer_balance,amount=x",
    ],
)
def test_actions_that_cannot_be_read(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        action(text, "usd")


def test_lengths_and_policies() -> None:
    assert [seconds(text, "") for text in ("90", "15min", "36h", "2w")] == [90, 900, 129_600, 1_209_600]
    assert retry_policy("8/two_months", "").max_retries == 8
    assert list(retry_policy("3/5/7", "").retry_days) == [3, 5, 7]
    assert retry_policy("", "") == accounts.RetryPolicy(kind=CUSTOM)


def with_account(fake: FakeServer) -> None:
    """The account whose default currency is asked for."""

    async def get(_request: Any, _context: Context) -> accounts.Account:
        return accounts.Account(id="acct_1", settings=accounts.Settings(default_currency="eur"))

    fake.unary("GetAccount", get)


async def test_an_automation_by_its_parts_and_from_a_file(fake: FakeServer, tmp_path: Path) -> None:
    asked: list[service.CreateAutomationRequest] = []

    async def handler(request: service.CreateAutomationRequest, _context: Context) -> model.Automation:
        asked.append(request)
        return model.Automation(id="bauto_1", name=request.name, actions=request.actions)

    with_account(fake)
    fake.unary("CreateAutomation", handler)
    await fake.start()
    typed = ("--trigger", "invoice_overdue", "--condition", "invoice_amount,more_than=500")
    shown = await run(
        fake, "automations", "create", "Late", *typed, "--action", "mark_invoice_uncollectible,after=1d", "--disabled"
    )
    assert shown.exit_code == 0, shown.output
    assert "mark_invoice_uncollectible" in shown.stdout
    assert (asked[0].name, asked[0].trigger, asked[0].conditions[0].more_than) == (
        "Late",
        model.AUTOMATION_TRIGGER_INVOICE_OVERDUE,
        50_000,
    )
    assert asked[0].HasField("enabled")
    assert not asked[0].enabled

    source = tmp_path / "late.json"
    source.write_text(MessageToJson(asked[0]), encoding="utf-8")
    assert (await run(fake, "automations", "create", "--from", str(source), "Later")).exit_code == 0
    again = service.CreateAutomationRequest()
    again.CopyFrom(asked[0])
    again.name = "Later"
    assert asked[1] == again
    source.write_text("{", encoding="utf-8")
    assert (await run(fake, "automations", "create", "--from", str(source))).exit_code == 2


async def test_a_recipe_with_amounts_in_major_units(fake: FakeServer) -> None:
    asked: list[service.CreateAutomationFromRecipeRequest] = []

    async def handler(request: service.CreateAutomationFromRecipeRequest, _context: Context) -> model.Automation:
        asked.append(request)
        return model.Automation(id="bauto_1")

    with_account(fake)
    fake.unary("CreateAutomationFromRecipe", handler)
    await fake.start()
    told = ("--more-than", "600.50", "--recipient", "a@acme.test", "--grace", "2d", "--retries", "1/2")
    assert (await run(fake, "automations", "create-from-recipe", "high_value_overdue_notice", *told)).exit_code == 0
    parameters = asked[0].parameters
    assert (parameters.more_than, list(parameters.recipients), parameters.grace_seconds) == (
        60_050,
        ["a@acme.test"],
        2 * DAY,
    )
    assert list(parameters.retry_policy.retry_days) == [1, 2]
    assert not asked[0].HasField("enabled")


def test_the_timeline_of_a_run_under_way_and_ended() -> None:
    actions = [action(text, "usd") for text in ("start_retry_policy,days=1/1", "cancel_subscription,after=7d")]
    begun = model.AutomationRunStep(
        type=actions[0].type,
        executed_at=Timestamp(seconds=0),
        result=model.AUTOMATION_STEP_RESULT_RETRYING,
    )
    running = model.AutomationRun(
        created=Timestamp(seconds=0),
        trigger_event="invoice.payment_failed",
        status=model.AUTOMATION_RUN_STATUS_RUNNING,
        actions=actions,
        steps=[begun],
        retrying_since=Timestamp(seconds=0),
        retries_done=1,
    )
    assert list(timeline(running)) == [
        ("1970-01-01T00:00:00Z", "started by invoice.payment_failed"),
        ("1970-01-01T00:00:00Z", "start_retry_policy retrying"),
        ("", "retrying since 1970-01-01T00:00:00Z, 1 tries so far"),
        ("", "to come: cancel_subscription 7d after that"),
    ]
    begun.result = model.AUTOMATION_STEP_RESULT_DONE
    begun.ended_at.seconds = 2 * DAY
    waiting = model.AutomationRun(
        created=running.created,
        trigger_event="x",
        actions=actions,
        step=1,
        steps=[begun],
        next_action_at=Timestamp(seconds=9 * DAY),
    )
    assert list(timeline(waiting))[2:] == [
        ("1970-01-03T00:00:00Z", "start_retry_policy: its last try is over"),
        ("1970-01-10T00:00:00Z", "to come: cancel_subscription"),
    ]
    ended = model.AutomationRun(
        created=running.created,
        trigger_event="x",
        actions=actions,
        steps=[begun],
        status=model.AUTOMATION_RUN_STATUS_TERMINATED,
        end_reason=model.AUTOMATION_RUN_END_REASON_INVOICE_PAID,
        ended_at=Timestamp(seconds=3 * DAY),
    )
    assert list(timeline(ended))[-1] == ("1970-01-04T00:00:00Z", "ended: terminated (invoice_paid)")


async def test_a_dry_run_names_its_subject_by_its_id(fake: FakeServer) -> None:
    asked: list[service.DryRunAutomationRequest] = []

    async def handler(request: service.DryRunAutomationRequest, _context: Context) -> service.DryRunAutomationResponse:
        asked.append(request)
        return service.DryRunAutomationResponse(
            trigger=model.AUTOMATION_TRIGGER_INVOICE_OVERDUE,
            obstacles=["its due date is still to come"],
            candidates=[
                service.DryRunCandidate(automation="bauto_1", name="Late", explanation="it is disabled"),
            ],
        )

    fake.unary("DryRunAutomation", handler)
    await fake.start()
    for identity in ("in_1", "sub_1"):
        assert (await run(fake, "automations", "dry-run", identity)).exit_code == 0
    shown = await run(fake, "automations", "dry-run", "cus_1")
    assert shown.exit_code == 0, shown.output
    assert [request.WhichOneof("subject") for request in asked] == ["invoice", "subscription", "customer"]
    assert "When invoice_overdue fires:" in shown.stdout
    assert "It does not fire now: its due date is still to come." in shown.stdout
    assert "Late (bauto_1) does not run: it is disabled." in shown.stdout
    assert "No automation runs; the account's settings apply." in shown.stdout


async def test_a_backtest_shows_runs_as_they_are_found(fake: FakeServer) -> None:
    asked: list[service.BacktestAutomationRequest] = []

    async def stream(
        request: service.BacktestAutomationRequest, context: Context
    ) -> AsyncIterator[service.BacktestAutomationResponse]:
        asked.append(request)
        if request.automation == "bauto_none":
            await refuse(context, grpc.StatusCode.NOT_FOUND, "no automation with id 'bauto_none'", "RESOURCE_MISSING")
        found = service.BacktestRun(
            triggered_at=Timestamp(seconds=0),
            invoice="in_1",
            amount=3100,
            currency="usd",
            steps=[
                service.BacktestStep(
                    type=model.AUTOMATION_ACTION_TYPE_START_RETRY_POLICY,
                    scheduled_at=Timestamp(seconds=0),
                    tries_at=[Timestamp(seconds=DAY)],
                )
            ],
            reality=service.BacktestReality(invoice_status=invoice_model_pb2.INVOICE_STATUS_PAID),
        )
        yield service.BacktestAutomationResponse(runs=[found], summary=service.BacktestSummary(runs=1))
        yield service.BacktestAutomationResponse(summary=service.BacktestSummary(runs=1, events=7), done=True)

    fake.streaming("BacktestAutomation", stream)
    await fake.start()
    shown = await run(fake, "automations", "backtest", "bauto_1", "--start", "2025-01-01", "--customer", "cus_1")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0] == "1970-01-01T00:00:00Z  in_1  31.00 USD"
    assert "start_retry_policy, tries at 1970-01-02T00:00:00Z" in lines[1]
    assert lines[2].strip() == "Really: the settings applied; the invoice is paid"
    assert (asked[0].range.start.seconds, asked[0].customer) == (1_735_689_600, "cus_1")
    machine = (await run(fake, "automations", "backtest", "bauto_1", "--json")).stdout.splitlines()
    assert json.loads(machine[0])["invoice"] == "in_1"
    missing = await run(fake, "automations", "backtest", "bauto_none")
    assert missing.exit_code == 1
    assert "bauto_none" in missing.output
    assert (await run(fake, "automations", "backtest")).exit_code == 2
