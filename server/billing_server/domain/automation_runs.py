"""Automation runs: how they start, whose retries they plan, and how they end (semantics 8.4).

What a run does at its steps is in `automation_steps`. This module is apart from it because what starts a run, such as
the finalization of an invoice, is itself used by the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from billing_server.domain.automation import (
    Action,
    Automation,
    AutomationRun,
    EndReason,
    RunStatus,
    RunStep,
    StepResult,
    Trigger,
)
from billing_server.domain.automation_matching import Subject, match
from billing_server.domain.commands import CancelAutomationRun
from billing_server.domain.dunning import RetryPolicy, next_retry_at
from billing_server.domain.errors import ResourceMissing, WrongState
from billing_server.domain.invoice import Invoice
from billing_server.domain.payment import PaymentAttempt
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn

_STATUS_OF_END: Final[Mapping[EndReason, RunStatus]] = {
    "completed": "completed",
    "invoice_paid": "terminated",
    "invoice_voided": "terminated",
    "auto_advance_disabled": "terminated",
    "subscription_canceled": "terminated",
    "canceled_by_user": "canceled",
    "error": "failed",
}


# --- starting


def matching(
    turn: Turn, trigger: Trigger, *, invoice: Invoice | None = None, subscription: Subscription | None = None
) -> Automation | None:
    """The automation that a trigger starts now, by priority and conditions; None when there is none."""
    if not turn.pages.automations or turn.customer.deleted:
        return None
    subject = Subject(
        customer=turn.customer,
        invoice=invoice,
        subscription=subscription,
        settings=turn.settings,
        catalog=turn.catalog,
    )
    return match(turn.pages.automations, trigger, subject)


def start(
    turn: Turn,
    automation: Automation,
    trigger_event: str,
    *,
    invoice: Invoice | None = None,
    subscription: Subscription | None = None,
    identity: str | None = None,
) -> AutomationRun:
    """Begin a run; its steps that are due at once follow at the end of the command or wake-up that began it.

    Actions that are timed by the due date happen in the order of time, whatever order they were written in.
    """
    actions = automation.actions
    if automation.trigger == "invoice_due_date_upcoming":
        actions = tuple(sorted(actions, key=lambda action: -(action.before_due_seconds or 0)))
    run = AutomationRun(
        id=identity or turn.new_id("bautorun"),
        created=turn.now,
        automation=automation.id,
        automation_version=automation.version,
        name=automation.name,
        trigger=automation.trigger,
        trigger_event=trigger_event,
        customer=turn.customer.id,
        invoice=None if invoice is None else invoice.id,
        subscription=None if subscription is None else subscription.id,
        actions=actions,
        next_action_at=time_of(actions[0], turn.now, invoice),
        test_clock=turn.customer.test_clock,
    )
    turn.put(run)
    turn.emit("automation_run.created", run)
    return run


def trigger(
    turn: Turn,
    kind: Trigger,
    event: str,
    *,
    invoice: Invoice | None = None,
    subscription: Subscription | None = None,
) -> AutomationRun | None:
    """Start the run that this trigger asks for, if any automation wants it."""
    automation = matching(turn, kind, invoice=invoice, subscription=subscription)
    if automation is None:
        return None
    return start(turn, automation, event, invoice=invoice, subscription=subscription)


def invoice_finalized(turn: Turn, invoice: Invoice) -> None:
    """An invoice is open and collected automatically: its finalization triggers, and its due date (semantics 8.1)."""
    if not turn.pages.automations or invoice.status != "open" or not invoice.auto_advance:
        return
    subscription = turn.subscription_of(invoice)
    trigger(turn, "invoice_finalized", "invoice.finalized", invoice=invoice, subscription=subscription)
    if invoice.collection_method == "send_invoice" and invoice.due_date is not None:
        trigger(turn, "invoice_due_date_upcoming", "invoice.finalized", invoice=invoice, subscription=subscription)


def invoice_overdue(turn: Turn, invoice: Invoice) -> bool:
    """A due date passed: whether an automation takes over from the settings' overdue policy (semantics 8.4).

    While a run about it is under way, an earlier due date having passed, no second one begins.
    """
    if any(
        run.invoice == invoice.id and run.trigger == "invoice_overdue" and not run.ended for run in turn.runs.values()
    ):
        return True
    subscription = turn.subscription_of(invoice)
    started = trigger(turn, "invoice_overdue", "invoice.overdue", invoice=invoice, subscription=subscription)
    return started is not None


def time_of(action: Action, after: int, invoice: Invoice | None) -> int:
    """When an action happens: so long after the one before it, or so long before the due date."""
    if action.before_due_seconds is None or invoice is None or invoice.due_date is None:
        return after + action.delay_seconds
    return invoice.due_date - action.before_due_seconds


# --- retries


def begin_retrying(turn: Turn, run: AutomationRun, action: Action, invoice: Invoice) -> AutomationRun:
    """Start the retry policy of the run's action; it occupies the run until its last try has failed."""
    following = next_retry_at(_policy(action), turn.now, turn.now, 0)
    if following is None:
        return run
    turn.updated(turn.alter(invoice, next_payment_attempt=following))
    return turn.alter(run, retrying_since=turn.now, retries_done=0, next_action_at=None)


def attempt_failed(turn: Turn, invoice: Invoice, attempt: PaymentAttempt) -> None:
    """A try of a run's retry policy failed: plan the next one, or let the run go on."""
    run = turn.runs.get(invoice.automation_run or "")
    if run is None or not run.retrying or attempt.kind != "retry":
        return
    done = run.retries_done + 1
    following = next_retry_at(_policy(run.actions[run.step]), run.retrying_since or turn.now, attempt.due_at, done)
    if following is None:
        finish_step(turn, turn.note(run, retries_done=done), "done")
        return
    if attempt.checks:
        # What was planned for while the outcome was unknown is made up for, not dated back.
        following = max(following, turn.now)
    turn.alter(run, retries_done=done)
    turn.updated(turn.alter(invoice, next_payment_attempt=following))


def broken_off(turn: Turn, invoice: Invoice) -> bool:
    """Whether a try that is due must not happen, because the run that planned it was told to end."""
    run = turn.runs.get(invoice.automation_run or "")
    if run is None or run.ended or not told_to_end(turn, run):
        return False
    end_run(turn, run, "canceled_by_user")
    return True


def first_retry_at(automation: Automation, now: int) -> int | None:
    """When a run that starts now tries again, as far as that is known already."""
    for action in automation.actions:
        if action.delay_seconds:
            break
        if action.type == "start_retry_policy":
            return next_retry_at(_policy(action), now, now, 0)
    return None


def _policy(action: Action) -> RetryPolicy:
    if action.retry_policy is None:
        raise AssertionError("a retry policy is started without one")
    return action.retry_policy


# --- going on and ending


def finish_step(turn: Turn, run: AutomationRun, result: StepResult, explanation: str | None = None) -> AutomationRun:
    """Record what became of the current action, and plan the next one."""
    action = run.actions[run.step]
    if run.retrying:
        begun = run.steps[-1]
        step = msgspec.structs.replace(begun, ended_at=turn.now, result=result, explanation=explanation)
        steps = (*run.steps[:-1], step)
    else:
        step = RunStep(
            type=action.type,
            scheduled_at=run.next_action_at or turn.now,
            executed_at=turn.now,
            ended_at=turn.now,
            result=result,
            explanation=explanation,
        )
        steps = (*run.steps, step)
    following = run.step + 1
    invoice = turn.invoices.get(run.invoice or "")
    last = following == len(run.actions)
    return turn.alter(
        run,
        steps=steps,
        step=following,
        retrying_since=None,
        next_action_at=None if last else time_of(run.actions[following], turn.now, invoice),
    )


def end_run(turn: Turn, run: AutomationRun, reason: EndReason) -> AutomationRun:
    """End a run for good. A retry policy that was under way plans nothing any more."""
    steps = run.steps
    if run.retrying:
        broken_off = msgspec.structs.replace(
            steps[-1],
            ended_at=turn.now,
            result="done" if reason == "invoice_paid" else "skipped",
            explanation=None if reason == "invoice_paid" else "the run ended before the last try",
        )
        steps = (*steps[:-1], broken_off)
        invoice = turn.invoices.get(run.invoice or "")
        if invoice is not None and invoice.next_payment_attempt is not None:
            turn.updated(turn.alter(invoice, next_payment_attempt=None))
    return turn.alter(
        run,
        status=_STATUS_OF_END[reason],
        end_reason=reason,
        ended_at=turn.now,
        steps=steps,
        next_action_at=None,
        retrying_since=None,
    )


def told_to_end(turn: Turn, run: AutomationRun) -> bool:
    """Whether its automation was disabled or deleted with all its runs."""
    found = next((item for item in turn.pages.automations if item.id == run.automation), None)
    return found is not None and run.automation_version <= found.runs_canceled_version


def cancel_run(turn: Turn, command: CancelAutomationRun) -> AutomationRun:
    """End a run by hand; what it has done stays done."""
    run = turn.runs.get(command.id)
    if run is None:
        raise ResourceMissing("automation_run", command.id)
    if run.ended:
        raise WrongState(
            "automation_run_ended", f"the run has ended already: it is {run.status}", subject=run.id, field="id"
        )
    return end_run(turn, run, "canceled_by_user")
