"""`billing automations runs`: what automations have done, and will do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from billing.v1.automation_model_pb2 import AutomationRun, AutomationRunStatus
from billing.v1.automation_service_pb2 import (
    CancelAutomationRunRequest,
    GetAutomationRunRequest,
    ListAutomationRunsRequest,
)
from billing_client.command_line.options import LIST_LIMIT, CustomerFilter, Identifier, Limit, enum_value
from billing_client.command_line.rendering import cell
from billing_client.command_line.session import Session, run, show
from billing_client.instants import format_timestamp

app = typer.Typer(help="Runs of automations.", no_args_is_help=True)


@app.command("list")
def list_runs(
    context: typer.Context,
    automation: Annotated[str, typer.Option(help="Only those of this automation.")] = "",
    customer: CustomerFilter = "",
    invoice: Annotated[str, typer.Option(help="Only those about this invoice.")] = "",
    subscription: Annotated[str, typer.Option(help="Only those about this subscription or its invoices.")] = "",
    status: Annotated[str, typer.Option(help="Only those in this status, such as running.")] = "",
    test_clock: Annotated[str, typer.Option(help="Only those on this test clock.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List runs, newest first, ended ones too."""
    request = ListAutomationRunsRequest(
        automation=automation,
        customer=customer,
        invoice=invoice,
        subscription=subscription,
        status=enum_value(AutomationRunStatus, status, "--status"),
        test_clock=test_clock,
    )
    run(
        context,
        lambda session: session.list(
            session.client.automations.ListAutomationRuns, request, lambda page: page.automation_runs, limit
        ),
    )


@app.command("show")
def show_run(context: typer.Context, identifier: Identifier) -> None:
    """Show a run as a timeline: what started it, what it did, and what comes next."""

    async def work(session: Session) -> None:
        found = await session.client.automations.GetAutomationRun(GetAutomationRunRequest(id=identifier))
        if session.output.as_json:
            session.output.message(found)
            return
        for name in ("id", "name", "automation", "customer", "invoice", "subscription", "status", "end_reason"):
            text = cell(found, name)
            if text:
                session.output.line(f"{name:<14}{text}")
        session.output.line("")
        for moment, text in timeline(found):
            session.output.line(f"{moment:<22}{text}")

    run(context, work)


def timeline(found: AutomationRun) -> Iterator[tuple[str, str]]:
    """The moments of a run, in their order."""
    yield format_timestamp(found.created), f"started by {found.trigger_event}"
    for step in found.steps:
        explanation = f": {step.explanation}" if step.explanation else ""
        yield format_timestamp(step.executed_at), f"{cell(step, 'type')} {cell(step, 'result')}{explanation}"
        if step.HasField("ended_at") and step.ended_at != step.executed_at:
            tries = "its last try is over" if cell(step, "type") == "start_retry_policy" else "over"
            yield format_timestamp(step.ended_at), f"{cell(step, 'type')}: {tries}"
    if found.HasField("ended_at"):
        yield format_timestamp(found.ended_at), f"ended: {cell(found, 'status')} ({cell(found, 'end_reason')})"
        return
    planned = found.actions[found.step :]
    if found.HasField("retrying_since"):
        yield "", f"retrying since {format_timestamp(found.retrying_since)}, {found.retries_done} tries so far"
        planned = planned[1:]
    for index, action in enumerate(planned):
        at_once = index == 0 and found.HasField("next_action_at")
        moment = format_timestamp(found.next_action_at) if at_once else ""
        after = "" if at_once or not action.delay_seconds else f" {_length(action.delay_seconds)} after that"
        before = f" {_length(action.before_due_seconds)} before the due date" if action.before_due_seconds else ""
        yield moment, f"to come: {cell(action, 'type')}{after}{before}"


def _length(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


@app.command()
def cancel(context: typer.Context, identifier: Identifier) -> None:
    """End a run: none of its actions happens any more."""
    request = CancelAutomationRunRequest(id=identifier)
    show(context, lambda client: client.automations.CancelAutomationRun(request))
