"""What automation runs do: their actions, one after the other, until something ends them (semantics 8.3 and 8.4).

Actions that follow each other without a delay are one batch: they happen together, even when one of them ends the
run. Before a batch begins it is asked whether the run has ended meanwhile (decision 21).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from billing_server.domain import commands, correspondence, signup, standing, termination
from billing_server.domain.automation import Action, ActionType, AutomationRun, EndReason, RunStep, StepResult
from billing_server.domain.automation_runs import begin_retrying, end_run, finish_step, time_of, told_to_end
from billing_server.domain.balance import change_balance
from billing_server.domain.errors import DomainError
from billing_server.domain.event import Cause
from billing_server.domain.invoice import Invoice
from billing_server.domain.invoicing import mark_uncollectible
from billing_server.domain.payment import PaymentAttempt
from billing_server.domain.subscription import Subscription
from billing_server.domain.turn import Turn

UNRESOLVED_PAUSE_SECONDS: Final = 3_600
"""How long a step waits that must not happen while it is unknown whether a payment succeeded."""


class _Outcome(NamedTuple):
    """What became of an action; `skipped` and `failed` with an explanation."""

    result: StepResult
    explanation: str | None = None


_DONE: Final = _Outcome("done")


def carry_on(turn: Turn) -> None:
    """At the end of a command or wake-up: end the runs that it ended, and do what is due at once.

    Only what the turn has touched is looked at; what time brings later is woken by time.
    """
    while True:
        run = next((found for found in turn.runs.values() if _concerned(turn, found)), None)
        if run is None:
            return
        _go_on(turn, run)


def wake(turn: Turn, run: AutomationRun) -> None:
    """A step is due."""
    _go_on(turn, run)


def _concerned(turn: Turn, run: AutomationRun) -> bool:
    if run.ended or (run.id not in turn.touched and run.invoice not in turn.touched):
        return False
    if _end_reason(turn, run) is not None:
        return True
    if _moved_due_date(turn, run) is not None:
        return True
    return _due(turn, run) and not _waits(turn, run)


def _due(turn: Turn, run: AutomationRun) -> bool:
    return not run.retrying and (run.step == len(run.actions) or (run.next_action_at or 0) <= turn.now)


def _waits(turn: Turn, run: AutomationRun) -> bool:
    """Whether a charge is under way that has to be settled before the next action; time stands still until then."""
    attempt = _unresolved(turn, run)
    return attempt is not None and attempt.state == "started"


def _unresolved(turn: Turn, run: AutomationRun) -> PaymentAttempt | None:
    """The attempt whose outcome decides whether the next action makes sense: an invoice is not given up meanwhile."""
    if run.step == len(run.actions) or run.actions[run.step].type != "mark_invoice_uncollectible":
        return None
    return turn.unresolved_attempt(run.invoice or "")


def _go_on(turn: Turn, run: AutomationRun) -> None:
    """End the run, follow a due date that was moved, or carry out the batch of actions that is due."""
    reason = _end_reason(turn, run)
    if reason is not None:
        end_run(turn, run, reason)
        return
    moved = _moved_due_date(turn, run)
    if moved is not None:
        run = turn.alter(run, next_action_at=moved)
    if not _due(turn, run):
        return
    cause = turn.cause
    turn.cause = Cause(kind="automation", automation_run=run.id)
    try:
        _carry_out(turn, run)
    finally:
        turn.cause = cause


def _carry_out(turn: Turn, run: AutomationRun) -> None:
    """One batch: what is due now, and what follows it without a delay."""
    while run.step < len(run.actions) and _due(turn, run):
        if _waits(turn, run):
            return
        if _unresolved(turn, run) is not None:
            turn.note(run, next_action_at=turn.now + UNRESOLVED_PAUSE_SECONDS)
            return
        action = run.actions[run.step]
        if action.type == "start_retry_policy":
            run = _start_retrying(turn, run, action)
            continue
        outcome = _act(turn, run, action)
        run = finish_step(turn, run, outcome.result, outcome.explanation)
        if outcome.result == "failed":
            end_run(turn, run, "error")
            return
    if run.step == len(run.actions):
        end_run(turn, run, "completed")
        return
    reason = _end_reason(turn, run)
    if reason is not None:
        end_run(turn, run, reason)


def _end_reason(turn: Turn, run: AutomationRun) -> EndReason | None:
    """Why the run has to end, if it has to (semantics 8.1)."""
    if turn.customer.deleted or told_to_end(turn, run):
        return "canceled_by_user"
    invoice = turn.invoices.get(run.invoice or "")
    if invoice is None:
        return None
    if invoice.status == "paid":
        return "invoice_paid"
    if invoice.status == "void":
        return "invoice_voided"
    if invoice.auto_advance:
        return None
    subscription = turn.subscription_of(invoice)
    ended = subscription is not None and subscription.terminal
    return "subscription_canceled" if ended else "auto_advance_disabled"


def _moved_due_date(turn: Turn, run: AutomationRun) -> int | None:
    """When the next action now happens, if the due date that it is counted from has moved."""
    invoice = turn.invoices.get(run.invoice or "")
    if run.trigger != "invoice_due_date_upcoming" or invoice is None or run.step == len(run.actions):
        return None
    moment = time_of(run.actions[run.step], turn.now, invoice)
    return None if moment == run.next_action_at else moment


# --- actions


def _start_retrying(turn: Turn, run: AutomationRun, action: Action) -> AutomationRun:
    invoice = turn.invoices[run.invoice or ""]
    begun = begin_retrying(turn, run, action, invoice)
    if not begun.retrying:
        return finish_step(turn, run, "done", "the policy has no tries")
    step = RunStep(
        type=action.type, scheduled_at=run.next_action_at or turn.now, executed_at=turn.now, result="retrying"
    )
    return turn.alter(begun, steps=(*run.steps, step))


def _act(turn: Turn, run: AutomationRun, action: Action) -> _Outcome:
    """Carry out one action; one that is refused leaves no trace but its explanation."""
    if action.before_due_seconds is not None and (run.next_action_at or 0) < run.created:
        return _Outcome("skipped", "its time was over before the run began")
    try:
        return turn.undoing(lambda: _ACTIONS[action.type](turn, run, action))
    except DomainError as refusal:
        return _Outcome("failed", refusal.message)


def _subscription(turn: Turn, run: AutomationRun) -> Subscription | None:
    return turn.subscriptions.get(run.subscription or "")


def _invoice(turn: Turn, run: AutomationRun) -> Invoice | None:
    return turn.invoices.get(run.invoice or "")


def _mark_unpaid(turn: Turn, run: AutomationRun, _action: Action) -> _Outcome:
    subscription = _subscription(turn, run)
    if subscription is None or subscription.status not in ("active", "past_due"):
        return _Outcome("skipped", f"the subscription is {'gone' if subscription is None else subscription.status}")
    standing.final_action(turn, subscription, "unpaid")
    return _DONE


def _cancel(turn: Turn, run: AutomationRun, _action: Action) -> _Outcome:
    subscription = _subscription(turn, run)
    if subscription is None or subscription.terminal:
        return _Outcome("skipped", f"the subscription is {'gone' if subscription is None else subscription.status}")
    termination.end(turn, subscription, "payment_failed")
    return _DONE


def _mark_uncollectible(turn: Turn, run: AutomationRun, _action: Action) -> _Outcome:
    invoice = _invoice(turn, run)
    if invoice is None or invoice.status != "open":
        return _Outcome("skipped", f"the invoice is {'gone' if invoice is None else invoice.status}")
    # After a cancellation its update has been told already (semantics 9, final cancel).
    invoice = mark_uncollectible(turn, invoice, tell_update=invoice.auto_advance)
    standing.marked_uncollectible(turn, invoice)
    return _DONE


def _send_team_email(turn: Turn, run: AutomationRun, action: Action) -> _Outcome:
    correspondence.team_memo(
        turn, action.recipients, action.memo, invoice=_invoice(turn, run), subscription=_subscription(turn, run)
    )
    return _DONE


def _send_cancellation_email(turn: Turn, run: AutomationRun, action: Action) -> _Outcome:
    subscription = _subscription(turn, run)
    if subscription is None:
        return _Outcome("skipped", "the subscription is gone")
    if not correspondence.cancellation_confirmation(turn, subscription, action.survey_url):
        return _Outcome("skipped", "the customer has no e-mail address")
    return _DONE


def _tell_will_be_due(turn: Turn, run: AutomationRun, _action: Action) -> _Outcome:
    return _tell(turn, run, "invoice.will_be_due")


def _tell_overdue(turn: Turn, run: AutomationRun, _action: Action) -> _Outcome:
    return _tell(turn, run, "invoice.overdue")


def _tell(turn: Turn, run: AutomationRun, event: str) -> _Outcome:
    invoice = _invoice(turn, run)
    if invoice is None or invoice.status != "open":
        return _Outcome("skipped", f"the invoice is {'gone' if invoice is None else invoice.status}")
    turn.emit(event, invoice)
    return _DONE


def _create_subscription(turn: Turn, _run: AutomationRun, action: Action) -> _Outcome:
    item = commands.ItemParams(price=action.price or "", quantity=action.quantity)
    signup.create_subscription(turn, commands.CreateSubscription(customer=turn.customer.id, items=(item,)))
    return _DONE


def _credit_balance(turn: Turn, run: AutomationRun, action: Action) -> _Outcome:
    currency = action.currency or turn.settings.default_currency
    signup.fix_currency(turn, currency, "currency")
    change_balance(
        turn, -(action.amount or 0), "adjustment", currency=currency, description=f"Credit by automation: {run.name}"
    )
    return _DONE


_ACTIONS: Final[Mapping[ActionType, Callable[[Turn, AutomationRun, Action], _Outcome]]] = {
    "mark_subscription_unpaid": _mark_unpaid,
    "cancel_subscription": _cancel,
    "mark_invoice_uncollectible": _mark_uncollectible,
    "send_team_email": _send_team_email,
    "send_cancellation_email": _send_cancellation_email,
    "send_invoice_will_be_due_webhook": _tell_will_be_due,
    "send_invoice_overdue_webhook": _tell_overdue,
    "create_subscription": _create_subscription,
    "credit_customer_balance": _credit_balance,
}
"""What carries out each action but the retry policy, which takes its time."""
