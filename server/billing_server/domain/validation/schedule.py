"""What subscription schedules and their phases have to be like (semantics 1 and 4)."""

from __future__ import annotations

from typing import Any, Final

from billing_server.domain import commands as c
from billing_server.domain.items import ITEMS_MAX
from billing_server.domain.schedule import PhaseItem, ScheduleDefaults
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.catalog import period_length
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, each, exclusive, is_given, nested
from billing_server.domain.validation.subscription import ADDED_ITEM, ADDED_ITEMS_MAX, due_days

PHASES_MAX: Final = 10
"""The current and later phases of one schedule."""
ITERATIONS_MAX: Final = 1_200

ITEM: Final = Shape(PhaseItem, {"price": text.ID, "quantity": numbers.QUANTITY, "metadata": text.metadata})
DURATION: Final = Shape(c.PhaseDuration, None, period_length)

_ENDS: Final = ("end_date", "iterations", "duration")


def _one_end(phase: c.PhaseParams, findings: Findings) -> None:
    if not any(is_given(getattr(phase, name)) for name in _ENDS):
        findings.add("end_date", "parameter_missing", "a phase needs an end: end_date, iterations or duration")


def _due_days(phase: c.PhaseParams, findings: Findings) -> None:
    """A phase that says how invoices are collected says all of it; one that does not leaves all to the defaults."""
    if phase.collection_method is None and phase.days_until_due is not None:
        findings.add("days_until_due", "parameters_exclusive", "needs collection_method=send_invoice beside it")
    else:
        due_days(phase, findings)


def _no_anchor_in_trial(phase: c.PhaseParams, findings: Findings) -> None:
    if phase.billing_cycle_anchor == "phase_start" and (phase.trial or phase.trial_end is not None):
        findings.add(
            "billing_cycle_anchor",
            "parameters_exclusive",
            "phase_start is not together with a trial, whose end is the anchor; leave it out",
        )


PHASE: Final = Shape(
    c.PhaseParams,
    {
        "items": each(ITEM, least=1, most=ITEMS_MAX),
        "start_date": numbers.instant,
        "end_date": numbers.instant,
        "iterations": numbers.whole(1, ITERATIONS_MAX),
        "duration": nested(DURATION),
        "trial_end": numbers.instant,
        "days_until_due": numbers.DAYS_UNTIL_DUE,
        "default_payment_method": text.ID,
        "add_invoice_items": each(ADDED_ITEM, most=ADDED_ITEMS_MAX),
        "description": text.DESCRIPTION,
        "metadata": text.metadata,
    },
    _one_end,
    exclusive(*_ENDS, way_out="say in one way how long the phase lasts"),
    exclusive("trial", "trial_end", way_out="the whole phase is a trial, or it ends earlier"),
    _due_days,
    _no_anchor_in_trial,
)
DEFAULTS: Final = Shape(
    ScheduleDefaults,
    {
        "days_until_due": numbers.DAYS_UNTIL_DUE,
        "default_payment_method": text.ID,
        "description": text.DESCRIPTION,
    },
    due_days,
)


def _one_origin(command: c.CreateSubscriptionSchedule, findings: Findings) -> None:
    """Phases for a customer, or a subscription that is taken over as it is."""
    if command.from_subscription is None:
        if command.customer is None:
            findings.add("customer", "parameter_missing", "is required; or name a subscription in from_subscription")
        if not command.phases:
            findings.add("phases", "parameter_missing", "is required; give at least one phase")
        return
    for name in ("customer", "phases", "start_date", "default_settings"):
        if is_given(getattr(command, name)):
            findings.add(
                name,
                "parameters_exclusive",
                "not together with from_subscription, from which it is taken; change it by an update",
            )


def _first_start(command: Any, findings: Findings) -> None:
    first = command.phases[0].start_date if command.phases else None
    if first is not None and command.start_date != first:
        findings.add("phases[0].start_date", "parameters_exclusive", "is the schedule's start_date; leave it out")


SHAPES: Final = (
    Shape(
        c.CreateSubscriptionSchedule,
        {
            "customer": text.ID,
            "from_subscription": text.ID,
            "start_date": numbers.instant,
            "phases": each(PHASE, most=PHASES_MAX),
            "default_settings": nested(DEFAULTS),
            "metadata": text.metadata,
        },
        _one_origin,
        _first_start,
    ),
    Shape(
        c.UpdateSubscriptionSchedule,
        {
            "id": text.ID,
            "phases": each(PHASE, least=1, most=PHASES_MAX),
            "default_settings": nested(DEFAULTS),
            "metadata": text.metadata,
            "etag": text.ID,
        },
    ),
    Shape(c.CancelSubscriptionSchedule, {"id": text.ID}),
    Shape(c.ReleaseSubscriptionSchedule, {"id": text.ID}),
)
