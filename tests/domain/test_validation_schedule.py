"""What schedules and their phases have to be like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.errors import InvalidArgument
from billing_server.domain.schedule import PhaseItem, ScheduleDefaults
from billing_server.domain.validation import validate

NOW = 1_750_000_000
LATER = NOW + 86_400

PHASE = c.PhaseParams(items=(PhaseItem(price="price_1"),), iterations=1)
CREATE = c.CreateSubscriptionSchedule(customer="cus_1", phases=(PHASE,))
TAKE_OVER = c.CreateSubscriptionSchedule(from_subscription="sub_1")
UPDATE = c.UpdateSubscriptionSchedule(id="sub_sched_1")
CANCEL = c.CancelSubscriptionSchedule(id="sub_sched_1")
RELEASE = c.ReleaseSubscriptionSchedule(id="sub_sched_1")
SENT: dict[str, Any] = {"collection_method": "send_invoice", "days_until_due": 30}


def phases(**change: Any) -> dict[str, Any]:
    """A good phase and a changed one."""
    return {"phases": (PHASE, msgspec.structs.replace(PHASE, **change))}


GOOD = [
    (CREATE, {}),
    (CREATE, {"start_date": LATER, "end_behavior": "cancel", "metadata": {"a": "b"}}),
    (CREATE, {"phases": (PHASE,) * 10}),
    (CREATE, phases(iterations=None, duration=c.PhaseDuration(interval="month", interval_count=36))),
    (CREATE, phases(iterations=None, end_date=LATER, trial_end=LATER, start_date=NOW)),
    (CREATE, phases(**SENT, trial=True)),
    (CREATE, phases(billing_cycle_anchor="phase_start", proration_behavior="none")),
    (CREATE, {"default_settings": ScheduleDefaults(**SENT)}),
    (TAKE_OVER, {"end_behavior": "cancel"}),
    (UPDATE, {}),
    (UPDATE, {**phases(), "default_settings": ScheduleDefaults(), "metadata": {"a": ""}}),
    (CANCEL, {"invoice_now": False}),
    (RELEASE, {"preserve_cancel_date": True}),
]


@pytest.mark.parametrize(("command", "changes"), GOOD)
def test_good_commands_are_accepted(command: c.Command, changes: dict[str, Any]) -> None:
    validate(msgspec.structs.replace(command, **changes), NOW)


BAD = [
    (CREATE, {"customer": None}, "customer", "parameter_missing"),
    (CREATE, {"phases": ()}, "phases", "parameter_missing"),
    (CREATE, {"phases": (PHASE,) * 11}, "phases", "parameter_invalid"),
    (CREATE, phases(items=()), "phases[1].items", "parameter_invalid_empty"),
    (CREATE, phases(items=(PhaseItem(price=""),)), "phases[1].items[0].price", "parameter_missing"),
    (
        CREATE,
        phases(items=(PhaseItem(price="price_1", quantity=-1),)),
        "phases[1].items[0].quantity",
        "parameter_invalid_integer",
    ),
    (CREATE, phases(iterations=None), "phases[1].end_date", "parameter_missing"),
    (CREATE, phases(iterations=0), "phases[1].iterations", "parameter_invalid_integer"),
    (CREATE, phases(iterations=1201), "phases[1].iterations", "parameter_invalid_integer"),
    (CREATE, phases(end_date=LATER), "phases[1].iterations", "parameters_exclusive"),
    (CREATE, phases(duration=c.PhaseDuration(interval="day")), "phases[1].duration", "parameters_exclusive"),
    (
        CREATE,
        phases(iterations=None, duration=c.PhaseDuration(interval="year", interval_count=4)),
        "phases[1].duration.interval_count",
        "parameter_invalid_integer",
    ),
    (CREATE, phases(trial=True, trial_end=LATER), "phases[1].trial_end", "parameters_exclusive"),
    (
        CREATE,
        phases(trial=True, billing_cycle_anchor="phase_start"),
        "phases[1].billing_cycle_anchor",
        "parameters_exclusive",
    ),
    (CREATE, phases(days_until_due=3), "phases[1].days_until_due", "parameters_exclusive"),
    (CREATE, phases(collection_method="send_invoice"), "phases[1].days_until_due", "parameter_missing"),
    (
        CREATE,
        phases(collection_method="charge_automatically", days_until_due=1),
        "phases[1].days_until_due",
        "parameters_exclusive",
    ),
    (CREATE, phases(metadata={"k" * 41: "v"}), "phases[1].metadata", "metadata_invalid"),
    (
        CREATE,
        {"phases": (msgspec.structs.replace(PHASE, start_date=LATER),)},
        "phases[0].start_date",
        "parameters_exclusive",
    ),
    (
        CREATE,
        {"default_settings": ScheduleDefaults(collection_method="send_invoice")},
        "default_settings.days_until_due",
        "parameter_missing",
    ),
    (TAKE_OVER, {"customer": "cus_1"}, "customer", "parameters_exclusive"),
    (TAKE_OVER, {"phases": (PHASE,)}, "phases", "parameters_exclusive"),
    (TAKE_OVER, {"start_date": LATER}, "start_date", "parameters_exclusive"),
    (TAKE_OVER, {"default_settings": ScheduleDefaults()}, "default_settings", "parameters_exclusive"),
    (UPDATE, {"phases": ()}, "phases", "parameter_invalid_empty"),
    (UPDATE, {"end_behavior": None}, "end_behavior", "parameter_invalid_empty"),
    (CANCEL, {"id": ""}, "id", "parameter_missing"),
    (RELEASE, {"id": ""}, "id", "parameter_missing"),
]


@pytest.mark.parametrize(("command", "changes", "field", "reason"), BAD)
def test_bad_commands_are_refused(command: c.Command, changes: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(msgspec.structs.replace(command, **changes), NOW)
    assert [(violation.field, violation.reason) for violation in refused.value.violations] == [(field, reason)]
