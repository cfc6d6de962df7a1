"""What a backtest tells, as messages."""

from __future__ import annotations

from typing import Any

from billing.v1 import automation_model_pb2 as model
from billing.v1 import automation_service_pb2 as service
from billing.v1 import invoice_model_pb2, subscription_model_pb2
from billing_server.api.endpoints import number_of
from billing_server.domain.backtest import ReplayedStep
from billing_server.engine.backtest import Happened, Progress, Summary, WouldRun


def encode_progress(progress: Progress) -> service.BacktestAutomationResponse:
    """Some runs, and the sums so far."""
    return service.BacktestAutomationResponse(
        runs=map(_run, progress.runs), summary=_summary(progress.summary), done=progress.done
    )


def _summary(summary: Summary) -> service.BacktestSummary:
    sums = {name: getattr(summary, name) for name in summary.__struct_fields__ if name != "head"}
    return service.BacktestSummary(head_position=summary.head, **sums)


def _run(run: WouldRun) -> service.BacktestRun:
    message = service.BacktestRun(
        event_position=run.position,
        customer=run.customer,
        invoice=run.invoice or "",
        subscription=run.subscription or "",
        amount=run.amount,
        currency=run.currency or "",
        value=run.value,
        steps=map(_step, run.replay.steps),
        reality=_reality(run.happened),
    )
    message.triggered_at.seconds = run.at
    if run.replay.ended_at is not None and run.replay.end_reason is not None:
        message.ended_at.seconds = run.replay.ended_at
        message.end_reason = number_of(model.AutomationRunEndReason.DESCRIPTOR, run.replay.end_reason)
    return message


def _step(step: ReplayedStep) -> service.BacktestStep:
    message = service.BacktestStep(
        type=number_of(model.AutomationActionType.DESCRIPTOR, step.type), skipped=step.skipped
    )
    message.scheduled_at.seconds = step.scheduled_at
    if step.ended_at is not None:
        message.ended_at.seconds = step.ended_at
    for moment in step.tries_at:
        message.tries_at.add(seconds=moment)
    return message


def _reality(happened: Happened) -> service.BacktestReality:
    run = happened.run
    message = service.BacktestReality(
        automation="" if run is None else run.automation,
        automation_run="" if run is None else run.id,
        invoice_status=_number(invoice_model_pb2.InvoiceStatus, happened.invoice_status),
        subscription_status=_number(subscription_model_pb2.SubscriptionStatus, happened.subscription_status),
    )
    for moment in happened.failures_at:
        message.failures_at.add(seconds=moment)
    if happened.paid_at is not None:
        message.paid_at.seconds = happened.paid_at
    return message


def _number(enum: Any, word: str | None) -> Any:
    return 0 if word is None else number_of(enum.DESCRIPTOR, word)
