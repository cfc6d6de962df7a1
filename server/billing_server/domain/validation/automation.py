"""What automations have to be like (semantics 8.1 to 8.3): what goes together, and what each part says.

What an update changes is judged with the rest of the automation when it is decided, because the trigger is known only
there; see `automation_pages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from billing_server.domain import commands as c
from billing_server.domain.automation import (
    ACTION_TRIGGERS,
    CONDITION_TRIGGERS,
    TRIGGERS,
    Action,
    ActionType,
    Condition,
    ConditionType,
    Trigger,
)
from billing_server.domain.calendar import DAY
from billing_server.domain.recipes import RecipeParameters
from billing_server.domain.validation import numbers, text
from billing_server.domain.validation.account import retry_policy
from billing_server.domain.validation.findings import Findings
from billing_server.domain.validation.shapes import Shape, each, is_given, nested

CONDITIONS_MAX: Final = 10
ACTIONS_MAX: Final = 20
DELAY_SECONDS_MAX: Final = 730 * DAY
BEFORE_DUE_SECONDS_MAX: Final = 365 * DAY
RECIPIENTS_MAX: Final = 20
MEMO_LENGTH_MAX: Final = 2000
LISTED_MAX: Final = 100
"""Products, prices or segments of one condition."""
AUTOMATIONS_OF_TRIGGER_MAX: Final = 100
PRIORITY_MAX: Final = 1_000_000_000

Parameters = Mapping[str, bool]
"""The parameters of a kind of condition or action: field, and whether it is required."""

CONDITION_PARAMETERS: Final[Mapping[ConditionType, Parameters]] = {
    "customer_metadata": {"key": True, "value": True},
    "customer_segment": {"segments": True},
    "invoice_metadata": {"key": True, "value": True},
    "invoice_amount": {"more_than": False, "less_than": False},
    "subscription_amount": {"more_than": False, "less_than": False},
    "subscription_interval": {"interval": True},
    "product": {"products": True},
    "price": {"prices": True},
}
ACTION_PARAMETERS: Final[Mapping[ActionType, Parameters]] = {
    "start_retry_policy": {"retry_policy": True},
    "mark_subscription_unpaid": {},
    "cancel_subscription": {},
    "mark_invoice_uncollectible": {},
    "send_team_email": {"recipients": True, "memo": False},
    "send_cancellation_email": {"survey_url": False},
    "send_invoice_will_be_due_webhook": {},
    "send_invoice_overdue_webhook": {},
    "create_subscription": {"price": True, "quantity": False},
    "credit_customer_balance": {"amount": True, "currency": True},
}

_TIMES: Final = frozenset({"delay_seconds", "before_due_seconds"})
_BEFORE_DUE: Final[Trigger] = "invoice_due_date_upcoming"


def listed(words: Sequence[str]) -> str:
    """Words in a sentence: "a", "a or b", "a, b or c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"


def conditions_of(trigger: Trigger) -> tuple[ConditionType, ...]:
    """The conditions that go with a trigger."""
    return tuple(kind for kind, triggers in CONDITION_TRIGGERS.items() if trigger in triggers)


def actions_of(trigger: Trigger) -> tuple[ActionType, ...]:
    """The actions that go with a trigger."""
    return tuple(kind for kind, triggers in ACTION_TRIGGERS.items() if trigger in triggers)


# --- a condition or an action by itself


def _only_parameters_of(kind: str, struct: Any, parameters: Parameters, findings: Findings, ignored: Any = ()) -> None:
    """A kind has the parameters that it needs, and none of the others."""
    for name in struct.__struct_fields__:
        if name == "type" or name in ignored:
            continue
        given = is_given(getattr(struct, name))
        if parameters.get(name) and not given:
            findings.add(name, "parameter_missing", f"{kind} needs it")
        elif given and name not in parameters:
            takes = f"it takes {listed(sorted(parameters))}" if parameters else "it takes no parameters"
            findings.add(name, "parameters_exclusive", f"{kind} does not take it, {takes}; leave it out")


def _parameters_of_condition(condition: Condition, findings: Findings) -> None:
    _only_parameters_of(condition.type, condition, CONDITION_PARAMETERS[condition.type], findings)


def _bounds(condition: Condition, findings: Findings) -> None:
    """Amounts have a bound, and leave something between two."""
    if "more_than" not in CONDITION_PARAMETERS[condition.type]:
        return
    low, high = condition.more_than, condition.less_than
    if low is None and high is None:
        findings.add("more_than", "parameter_missing", f"{condition.type} needs more_than, less_than or both")
    elif low is not None and high is not None and high - low < 2:
        findings.add(
            "less_than",
            "parameter_invalid",
            f"no amount is more than {low} and less than {high}; less_than must be at least {low + 2}",
        )


def _parameters_of_action(action: Action, findings: Findings) -> None:
    _only_parameters_of(action.type, action, ACTION_PARAMETERS[action.type], findings, _TIMES)


def _https(value: str, field: str, findings: Findings) -> None:
    """An address that a customer may be sent to."""
    mark = len(findings.violations)
    text.URL(value, field, findings)
    if len(findings.violations) == mark and not value.startswith("https://"):
        findings.add(field, "parameter_invalid", "must begin with https://")


CONDITION: Final = Shape(
    Condition,
    {
        "key": text.text(40),
        "value": text.text(500),
        "more_than": numbers.AMOUNT_OR_NOTHING,
        "less_than": numbers.AMOUNT,
        "products": each(text.ID, most=LISTED_MAX),
        "prices": each(text.ID, most=LISTED_MAX),
        "segments": each(text.text(500), most=LISTED_MAX),
    },
    _parameters_of_condition,
    _bounds,
)
ACTION: Final = Shape(
    Action,
    {
        "delay_seconds": numbers.whole(0, DELAY_SECONDS_MAX, " seconds (730 days)"),
        "before_due_seconds": numbers.whole(1, BEFORE_DUE_SECONDS_MAX, " seconds (365 days)"),
        "retry_policy": retry_policy,
        "recipients": each(text.EMAIL, most=RECIPIENTS_MAX),
        "memo": text.text(MEMO_LENGTH_MAX),
        "survey_url": _https,
        "price": text.ID,
        "quantity": numbers.whole(1, numbers.QUANTITY_MAX),
        "amount": numbers.AMOUNT,
        "currency": numbers.currency,
    },
    _parameters_of_action,
)


# --- with the trigger


def check_pairs(
    trigger: Trigger, conditions: Sequence[Condition], actions: Sequence[Action], findings: Findings
) -> None:
    """What goes with the trigger: its conditions, its actions, and how these are timed (semantics 8.2, 8.3)."""
    for index, condition in enumerate(conditions):
        if trigger not in CONDITION_TRIGGERS[condition.type]:
            findings.add(
                f"conditions[{index}].type",
                "automation_pair_invalid",
                _refusal(
                    "condition", condition.type, trigger, CONDITION_TRIGGERS[condition.type], conditions_of(trigger)
                ),
            )
    for index, action in enumerate(actions):
        if trigger not in ACTION_TRIGGERS[action.type]:
            findings.add(
                f"actions[{index}].type",
                "automation_pair_invalid",
                _refusal("action", action.type, trigger, ACTION_TRIGGERS[action.type], actions_of(trigger)),
            )
        _check_time(trigger, action, f"actions[{index}]", findings)
    _check_one_policy(actions, findings)


def _refusal(what: str, kind: str, trigger: Trigger, triggers: frozenset[Trigger], allowed: Sequence[str]) -> str:
    with_it = listed([name for name in TRIGGERS if name in triggers])
    return (
        f"the {what} {kind} does not go with the trigger {trigger}, only with {with_it}; "
        f"{trigger} takes {listed(allowed)}"
    )


def _check_time(trigger: Trigger, action: Action, place: str, findings: Findings) -> None:
    """Before a due date that is to come, or after what was before; never both."""
    if trigger == _BEFORE_DUE:
        if action.before_due_seconds is None:
            findings.add(
                f"{place}.before_due_seconds",
                "parameter_missing",
                f"{trigger} needs it: so many seconds before the due date the action happens",
            )
        if action.delay_seconds:
            findings.add(
                f"{place}.delay_seconds",
                "parameters_exclusive",
                f"not with {trigger}, whose actions are timed by before_due_seconds; leave it out",
            )
    elif action.before_due_seconds is not None:
        findings.add(
            f"{place}.before_due_seconds",
            "parameters_exclusive",
            f"only with {_BEFORE_DUE}; use delay_seconds with {trigger}",
        )


def _check_one_policy(actions: Sequence[Action], findings: Findings) -> None:
    first = None
    for index, action in enumerate(actions):
        if action.type != "start_retry_policy":
            continue
        if first is None:
            first = index
        else:
            findings.add(
                f"actions[{index}].type",
                "parameters_exclusive",
                f"an automation starts one retry policy, and actions[{first}] does; give that one more retries",
            )


def _pairs(command: c.CreateAutomation, findings: Findings) -> None:
    check_pairs(command.trigger, command.conditions, command.actions, findings)


def _no_repetition(command: c.ReorderAutomations, findings: Findings) -> None:
    seen: set[str] = set()
    for index, identity in enumerate(command.ids):
        if identity in seen:
            findings.add(f"ids[{index}]", "parameters_exclusive", f"'{identity}' is named twice; name it once")
        seen.add(identity)


_CONDITIONS: Final = each(CONDITION, most=CONDITIONS_MAX)
_ACTIONS: Final = each(ACTION, least=1, most=ACTIONS_MAX)

CREATION: Final = Shape(
    c.CreateAutomation,
    {
        "name": text.NAME,
        "conditions": _CONDITIONS,
        "actions": _ACTIONS,
        "priority": numbers.whole(1, PRIORITY_MAX),
        "metadata": text.metadata,
    },
    _pairs,
)
"""The rules of a whole automation, also of one that a recipe makes."""

RECIPE_PARAMETERS: Final = Shape(
    RecipeParameters,
    {
        "retry_policy": retry_policy,
        "grace_seconds": numbers.whole(0, DELAY_SECONDS_MAX, " seconds (730 days)"),
        "more_than": numbers.AMOUNT_OR_NOTHING,
        "recipients": each(text.EMAIL, most=RECIPIENTS_MAX),
        "memo": text.text(MEMO_LENGTH_MAX),
        "conditions": _CONDITIONS,
        "survey_url": _https,
        "price": text.ID,
        "amount": numbers.AMOUNT,
        "currency": numbers.currency,
    },
)

SHAPES: Final = (
    CREATION,
    Shape(
        c.CreateAutomationFromRecipe,
        {
            "recipe": text.NAME,
            "parameters": nested(RECIPE_PARAMETERS),
            "name": text.NAME,
            "priority": numbers.whole(1, PRIORITY_MAX),
            "metadata": text.metadata,
        },
    ),
    Shape(
        c.UpdateAutomation,
        {
            "id": text.ID,
            "name": text.NAME,
            "conditions": _CONDITIONS,
            "actions": _ACTIONS,
            "metadata": text.metadata,
            "etag": text.ID,
        },
    ),
    Shape(c.DeleteAutomation, {"id": text.ID, "etag": text.ID}),
    Shape(c.EnableAutomation, {"id": text.ID}),
    Shape(c.DisableAutomation, {"id": text.ID}),
    Shape(
        c.ReorderAutomations,
        {"ids": each(text.ID, most=AUTOMATIONS_OF_TRIGGER_MAX)},
        _no_repetition,
    ),
    Shape(c.CancelAutomationRun, {"id": text.ID}),
)
