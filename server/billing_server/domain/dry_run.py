"""Dry runs: which automation would run now about an invoice, a subscription or a customer, and why the others not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from billing_server.domain.automation import Automation, Trigger
from billing_server.domain.automation_matching import Evaluation, Subject, evaluate
from billing_server.domain.errors import invalid
from billing_server.domain.invoice import Invoice
from billing_server.domain.subscription import Subscription

INVOICE_TRIGGERS: Final[frozenset[Trigger]] = frozenset(
    {"invoice_due_date_upcoming", "invoice_finalized", "invoice_overdue", "subscription_payment_fails"}
)
"""Triggers that are about an invoice."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An automation of the trigger, and whether it would run.

    `evaluations` are all of its conditions, in order; `explanation` says in words what decides.
    """

    automation: Automation
    runs: bool
    explanation: str
    evaluations: tuple[Evaluation, ...]


class DryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger would start. `obstacles` are why it does not fire for the subject as it is now.

    `chosen` is the automation that runs when it fires, obstacles or not; None when none matches.
    """

    trigger: Trigger
    subject: Subject
    obstacles: tuple[str, ...]
    chosen: Automation | None
    candidates: tuple[Candidate, ...]


def derived_trigger(invoice: Invoice | None, subscription: Subscription | None) -> Trigger:
    """The trigger that is meant when only a subject is named."""
    if invoice is None:
        return "customer_created" if subscription is None else "subscription_canceled"
    if invoice.status == "draft":
        return "invoice_finalized"
    if invoice.collection_method == "send_invoice":
        return "invoice_overdue"
    return "invoice_finalized" if invoice.subscription is None else "subscription_payment_fails"


def dry_run(automations: Iterable[Automation], trigger: Trigger, subject: Subject, now: int) -> DryRun:
    """Judge all automations of a trigger that are not deleted, in their order.

    Raises:
        InvalidArgument: the trigger needs an invoice or a subscription, and the subject has none.
    """
    _check_subject(trigger, subject)
    ordered = sorted(
        (found for found in automations if found.trigger == trigger and not found.deleted),
        key=lambda found: (found.priority, found.id),
    )
    chosen: Automation | None = None
    candidates = []
    for automation in ordered:
        evaluations = tuple(evaluate(condition, subject) for condition in automation.conditions)
        matches = all(evaluation.holds for evaluation in evaluations)
        first = matches and automation.enabled and chosen is None
        candidates.append(
            Candidate(
                automation=automation,
                runs=first,
                explanation=_explanation(automation, evaluations, chosen),
                evaluations=evaluations,
            )
        )
        if first:
            chosen = automation
    return DryRun(
        trigger=trigger,
        subject=subject,
        obstacles=tuple(_obstacles(trigger, subject, now)),
        chosen=chosen,
        candidates=tuple(candidates),
    )


def _explanation(automation: Automation, evaluations: tuple[Evaluation, ...], chosen: Automation | None) -> str:
    failing = next((evaluation for evaluation in evaluations if not evaluation.holds), None)
    if not automation.enabled:
        return "it is disabled"
    if failing is not None:
        return f"{failing.condition.type} does not hold: {failing.explanation}"
    if chosen is not None:
        return f"'{chosen.name}' ({chosen.id}) comes before it and runs"
    return "all its conditions hold, and none before it runs" if evaluations else "it has no conditions"


def _check_subject(trigger: Trigger, subject: Subject) -> None:
    if trigger in INVOICE_TRIGGERS and subject.invoice is None:
        raise invalid("invoice", "parameter_missing", f"{trigger} is about an invoice; name one")
    if trigger == "subscription_canceled" and subject.subscription is None:
        raise invalid("subscription", "parameter_missing", f"{trigger} is about a subscription; name one")


# --- why the trigger does not fire now


def _obstacles(trigger: Trigger, subject: Subject, now: int) -> list[str]:
    found = ["the customer is deleted"] if subject.customer.deleted else []
    if trigger == "subscription_canceled":
        subscription = subject.subscription
        if subscription is not None and subscription.terminal:
            found.append(f"the subscription has ended already: it is {subscription.status}")
    elif trigger in INVOICE_TRIGGERS and subject.invoice is not None:
        found += _OBSTACLES[trigger](subject.invoice, now)
        if not subject.invoice.auto_advance and subject.invoice.status in ("draft", "open"):
            found.append("the invoice's auto_advance is off")
    return found


def _of_finalization(invoice: Invoice, _now: int) -> list[str]:
    return [] if invoice.status == "draft" else [f"the invoice was finalized before: it is {invoice.status}"]


def _of_due_date(invoice: Invoice, _now: int) -> list[str]:
    found = _not_sent(invoice)
    if invoice.status != "draft":
        found.append(f"runs start with the finalization, which is past: the invoice is {invoice.status}")
    return found


def _of_overdue(invoice: Invoice, now: int) -> list[str]:
    found = _not_sent(invoice)
    if invoice.status != "open":
        found.append(f"only open invoices become overdue; this one is {invoice.status}")
    elif invoice.due_date_passed:
        found.append("its due date has passed already, so the trigger has fired")
    elif invoice.due_date is not None and invoice.due_date > now:
        found.append("its due date is still to come")
    return found


def _not_sent(invoice: Invoice) -> list[str]:
    if invoice.collection_method != "send_invoice":
        return ["only invoices that are sent have a due date; this one is charged automatically"]
    return [] if invoice.due_date is not None or invoice.status == "draft" else ["the invoice has no due date"]


def _of_failure(invoice: Invoice, _now: int) -> list[str]:
    found = []
    if invoice.subscription is None:
        found.append("the invoice is of no subscription")
    if invoice.collection_method != "charge_automatically":
        found.append("only invoices that are charged automatically can fail; this one is sent")
    if invoice.status not in ("draft", "open"):
        found.append(f"nothing is charged any more: the invoice is {invoice.status}")
    elif invoice.first_failure_at is not None:
        found.append("its first payment has failed before, and only the first failure starts a run")
    return found


_OBSTACLES: Final[Mapping[Trigger, Callable[[Invoice, int], list[str]]]] = {
    "invoice_due_date_upcoming": _of_due_date,
    "invoice_finalized": _of_finalization,
    "invoice_overdue": _of_overdue,
    "subscription_payment_fails": _of_failure,
}
