"""`billing automations dry-run` and `backtest`: what automations would do, or would have done. Nothing is changed."""

from __future__ import annotations

from contextlib import aclosing
from typing import Annotated

import typer

from billing.v1.automation_model_pb2 import AutomationTrigger
from billing.v1.automation_service_pb2 import (
    BacktestAutomationRequest,
    BacktestRun,
    BacktestSummary,
    DryRunAutomationRequest,
)
from billing_client.command_line import rendering
from billing_client.command_line.options import CustomerFilter, enum_value, instant, read_json
from billing_client.command_line.session import Session, run
from billing_client.instants import format_timestamp
from billing_client.money import format_money


def dry_run(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(help="Id of an invoice, a subscription or a customer.")],
    trigger: Annotated[str, typer.Option(help="The trigger; else the one that fits the subject.")] = "",
) -> None:
    """Tell which automation would run about something, and of each other one why it would not."""
    request = DryRunAutomationRequest(trigger=enum_value(AutomationTrigger, trigger, "--trigger"))
    if subject.startswith("in_"):
        request.invoice = subject
    elif subject.startswith("sub_"):
        request.subscription = subject
    else:
        request.customer = subject

    async def work(session: Session) -> None:
        found = await session.client.automations.DryRunAutomation(request)
        if session.output.as_json:
            session.output.message(found)
            return
        session.output.line(f"When {rendering.cell(found, 'trigger')} fires:")
        for obstacle in found.obstacles:
            session.output.line(f"  It does not fire now: {obstacle}.")
        for candidate in found.candidates:
            mark = "runs" if candidate.runs else "does not run"
            session.output.line(f"  {candidate.name} ({candidate.automation}) {mark}: {candidate.explanation}.")
            for evaluation in candidate.conditions:
                holds = "holds" if evaluation.holds else "does not hold"
                kind = rendering.cell(evaluation.condition, "type")
                session.output.line(f"    {kind} {holds}: {evaluation.explanation}.")
        if not found.automation:
            session.output.line("  No automation runs; the account's settings apply.")

    run(context, work)


def backtest(
    context: typer.Context,
    automation: Annotated[str, typer.Argument(help="Id of the automation; or give a definition by --from.")] = "",
    source: Annotated[
        str, typer.Option("--from", help="A file with a CreateAutomationRequest as JSON; - is standard input.")
    ] = "",
    start: Annotated[str, typer.Option(help="From when on, such as 2025-01-01.")] = "",
    end: Annotated[str, typer.Option(help="Until when, exclusive.")] = "",
    customer: CustomerFilter = "",
) -> None:
    """Try an automation on the recorded events: the runs that it would have started, and what happened instead."""
    request = BacktestAutomationRequest(customer=customer)
    if bool(automation) == bool(source):
        raise typer.BadParameter("name an automation, or give a definition by --from.", param_hint="AUTOMATION")
    if source:
        read_json(source, request.definition)
    else:
        request.automation = automation
    if start:
        request.range.start.CopyFrom(instant(start, "--start"))
    if end:
        request.range.end.CopyFrom(instant(end, "--end"))

    async def work(session: Session) -> None:
        summary = BacktestSummary()
        async with aclosing(session.client.backtest_automation(request)) as found:
            async for message in found:
                for would_run in message.runs:
                    _print(session, would_run)
                summary = message.summary
        session.output.message(summary)

    run(context, work)


def _print(session: Session, would_run: BacktestRun) -> None:
    if session.output.as_json:
        session.output.line_of_json(rendering.as_json(would_run))
        return
    amount = format_money(would_run.amount, would_run.currency) if would_run.currency else ""
    about = would_run.invoice or would_run.subscription or would_run.customer
    session.output.line(f"{format_timestamp(would_run.triggered_at)}  {about}  {amount}".rstrip())
    for step in would_run.steps:
        tries = f", tries at {', '.join(map(format_timestamp, step.tries_at))}" if step.tries_at else ""
        skipped = ", skipped" if step.skipped else ""
        kind = rendering.cell(step, "type")
        session.output.line(f"    {format_timestamp(step.scheduled_at)}  {kind}{tries}{skipped}")
    if would_run.HasField("ended_at"):
        reason = rendering.cell(would_run, "end_reason")
        session.output.line(f"    {format_timestamp(would_run.ended_at)}  would have ended: {reason}")
    session.output.line(f"    Really: {_really(would_run)}")


def _really(would_run: BacktestRun) -> str:
    """What happened instead, in a line."""
    reality = would_run.reality
    told = [f"{reality.automation} ran ({reality.automation_run})" if reality.automation else "the settings applied"]
    if reality.failures_at:
        told.append(f"payments failed at {', '.join(map(format_timestamp, reality.failures_at))}")
    if reality.HasField("paid_at"):
        told.append(f"paid at {format_timestamp(reality.paid_at)}")
    for name in ("invoice_status", "subscription_status"):
        status = rendering.cell(reality, name)
        if status:
            told.append(f"the {name.removesuffix('_status')} is {status}")
    return "; ".join(told)
