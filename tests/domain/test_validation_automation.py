"""What automations have to be like: every pair with a trigger, every parameter, every bound."""

from __future__ import annotations

from typing import Any

import pytest

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
from billing_server.domain.automation_capabilities import (
    ACTION_WORDS,
    CONDITION_WORDS,
    PARAMETER_WORDS,
    TRIGGER_ENDS,
    TRIGGER_WORDS,
)
from billing_server.domain.dunning import RetryPolicy
from billing_server.domain.errors import InvalidArgument, Violation
from billing_server.domain.validation import validate
from billing_server.domain.validation.automation import (
    ACTION_PARAMETERS,
    BEFORE_DUE_SECONDS_MAX,
    CONDITION_PARAMETERS,
    DELAY_SECONDS_MAX,
    actions_of,
    conditions_of,
)

DAY = 86_400
UPCOMING: Trigger = "invoice_due_date_upcoming"

CONDITIONS: dict[ConditionType, Condition] = {
    "customer_metadata": Condition(type="customer_metadata", key="tier", value="gold"),
    "customer_segment": Condition(type="customer_segment", segments=("gold",)),
    "invoice_metadata": Condition(type="invoice_metadata", key="tier", value="gold"),
    "invoice_amount": Condition(type="invoice_amount", more_than=0),
    "subscription_amount": Condition(type="subscription_amount", less_than=9),
    "subscription_interval": Condition(type="subscription_interval", interval="yearly"),
    "product": Condition(type="product", products=("prod_1",)),
    "price": Condition(type="price", prices=("price_1",)),
}
ACTIONS: dict[ActionType, Action] = {
    "start_retry_policy": Action(type="start_retry_policy", retry_policy=RetryPolicy(kind="smart")),
    "mark_subscription_unpaid": Action(type="mark_subscription_unpaid"),
    "cancel_subscription": Action(type="cancel_subscription"),
    "mark_invoice_uncollectible": Action(type="mark_invoice_uncollectible"),
    "send_team_email": Action(type="send_team_email", recipients=("ops@acme.test",)),
    "send_cancellation_email": Action(type="send_cancellation_email"),
    "send_invoice_will_be_due_webhook": Action(type="send_invoice_will_be_due_webhook"),
    "send_invoice_overdue_webhook": Action(type="send_invoice_overdue_webhook"),
    "create_subscription": Action(type="create_subscription", price="price_1"),
    "credit_customer_balance": Action(type="credit_customer_balance", amount=1, currency="usd"),
}


def changed(struct: Any, **changes: Any) -> Any:
    return type(struct)(**{name: getattr(struct, name) for name in struct.__struct_fields__} | changes)


def timed(trigger: Trigger, action: Action) -> Action:
    """The action with the time that its trigger wants."""
    return changed(action, before_due_seconds=DAY) if trigger == UPCOMING else action


def violations(**fields: Any) -> list[Violation]:
    """What is wrong with an automation."""
    trigger = fields.pop("trigger", "subscription_payment_fails")
    actions = fields.pop("actions", (timed(trigger, ACTIONS["send_team_email"]),))
    command = c.CreateAutomation(**{"name": "A", "trigger": trigger, "actions": actions, **fields})
    try:
        validate(command, now=0)
    except InvalidArgument as refused:
        return list(refused.violations)
    return []


# --- the matrix


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("kind", CONDITIONS)
def test_each_condition_with_each_trigger(trigger: Trigger, kind: ConditionType) -> None:
    found = violations(trigger=trigger, conditions=(CONDITIONS[kind],))
    if trigger in CONDITION_TRIGGERS[kind]:
        assert not found
        return
    assert [(one.field, one.reason) for one in found] == [("conditions[0].type", "automation_pair_invalid")]
    told = found[0].description
    assert f"the condition {kind} does not go with the trigger {trigger}" in told
    assert all(name in told for name in (*conditions_of(trigger), *CONDITION_TRIGGERS[kind])), "what is allowed"


@pytest.mark.parametrize("trigger", TRIGGERS)
@pytest.mark.parametrize("kind", ACTIONS)
def test_each_action_with_each_trigger(trigger: Trigger, kind: ActionType) -> None:
    found = violations(trigger=trigger, actions=(timed(trigger, ACTIONS[kind]),))
    if trigger in ACTION_TRIGGERS[kind]:
        assert not found
        return
    assert [(one.field, one.reason) for one in found] == [("actions[0].type", "automation_pair_invalid")]
    told = found[0].description
    assert f"the action {kind} does not go with the trigger {trigger}" in told
    assert all(name in told for name in (*actions_of(trigger), *ACTION_TRIGGERS[kind])), "what is allowed"


def test_the_matrix_is_that_of_the_specification() -> None:
    """Semantics 8.3, row by row, in the order of `TRIGGERS`."""
    rows = {
        "start_retry_policy": "....x.",
        "mark_subscription_unpaid": "....x.",
        "cancel_subscription": "....x.",
        "mark_invoice_uncollectible": ".xx.x.",
        "send_team_email": "xxxxxx",
        "send_cancellation_email": "...x..",
        "send_invoice_will_be_due_webhook": "x.....",
        "send_invoice_overdue_webhook": "..x...",
        "create_subscription": ".....x",
        "credit_customer_balance": ".....x",
    }
    drawn = {
        kind: "".join("x" if trigger in triggers else "." for trigger in TRIGGERS)
        for kind, triggers in ACTION_TRIGGERS.items()
    }
    assert drawn == rows


# --- parameters


@pytest.mark.parametrize("kind", CONDITIONS)
def test_a_condition_takes_its_parameters_and_no_others(kind: ConditionType) -> None:
    values: dict[str, Any] = {
        "key": "k",
        "value": "v",
        "more_than": 1,
        "less_than": 9,
        "interval": "monthly",
        "products": ("prod_1",),
        "prices": ("price_1",),
        "segments": ("s",),
    }
    trigger = next(trigger for trigger in TRIGGERS if trigger in CONDITION_TRIGGERS[kind])
    taken = CONDITION_PARAMETERS[kind]
    for name, value in values.items():
        found = violations(trigger=trigger, conditions=(changed(CONDITIONS[kind], **{name: value}),))
        expected = [] if name in taken else [(f"conditions[0].{name}", "parameters_exclusive")]
        assert [(one.field, one.reason) for one in found] == expected, name
    for name in (name for name, required in taken.items() if required):
        empty = () if isinstance(values[name], tuple) else None
        found = violations(trigger=trigger, conditions=(changed(CONDITIONS[kind], **{name: empty}),))
        assert [(one.field, one.reason) for one in found] == [(f"conditions[0].{name}", "parameter_missing")]


@pytest.mark.parametrize("kind", ACTIONS)
def test_an_action_takes_its_parameters_and_no_others(kind: ActionType) -> None:
    values: dict[str, Any] = {
        "retry_policy": RetryPolicy(kind="custom", retry_days=(1,)),
        "recipients": ("ops@acme.test",),
        "memo": "Look at this",
        "survey_url": "https://acme.test/why",
        "price": "price_1",
        "quantity": 2,
        "amount": 5,
        "currency": "eur",
    }
    trigger = next(trigger for trigger in TRIGGERS if trigger in ACTION_TRIGGERS[kind])
    taken = ACTION_PARAMETERS[kind]
    for name, value in values.items():
        found = violations(trigger=trigger, actions=(timed(trigger, changed(ACTIONS[kind], **{name: value})),))
        expected = [] if name in taken else [(f"actions[0].{name}", "parameters_exclusive")]
        assert [(one.field, one.reason) for one in found] == expected, name
    for name in (name for name, required in taken.items() if required):
        empty = () if isinstance(values[name], tuple) else None
        found = violations(trigger=trigger, actions=(timed(trigger, changed(ACTIONS[kind], **{name: empty})),))
        assert [(one.field, one.reason) for one in found] == [(f"actions[0].{name}", "parameter_missing")]


MAIL = ACTIONS["send_team_email"]
POLICY = ACTIONS["start_retry_policy"]
CREDIT = ACTIONS["credit_customer_balance"]
AMOUNT = CONDITIONS["invoice_amount"]

BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"actions": ()}, "actions"),
    ({"actions": (MAIL,) * 21}, "actions"),
    ({"conditions": (AMOUNT,) * 11}, "conditions"),
    ({"name": " "}, "name"),
    ({"name": "4242 4242 4242 4242"}, "name"),
    ({"priority": 0}, "priority"),
    ({"actions": (POLICY, MAIL, POLICY)}, "actions[2].type"),
    ({"actions": (changed(MAIL, delay_seconds=-1),)}, "actions[0].delay_seconds"),
    ({"actions": (changed(MAIL, delay_seconds=DELAY_SECONDS_MAX + 1),)}, "actions[0].delay_seconds"),
    ({"actions": (changed(MAIL, before_due_seconds=DAY),)}, "actions[0].before_due_seconds"),
    ({"trigger": UPCOMING, "actions": (MAIL,)}, "actions[0].before_due_seconds"),
    ({"trigger": UPCOMING, "actions": (changed(MAIL, before_due_seconds=0),)}, "actions[0].before_due_seconds"),
    (
        {"trigger": UPCOMING, "actions": (changed(MAIL, before_due_seconds=BEFORE_DUE_SECONDS_MAX + 1),)},
        "actions[0].before_due_seconds",
    ),
    (
        {"trigger": UPCOMING, "actions": (changed(MAIL, before_due_seconds=DAY, delay_seconds=1),)},
        "actions[0].delay_seconds",
    ),
    ({"actions": (changed(MAIL, recipients=("ops@acme.test",) * 21),)}, "actions[0].recipients"),
    ({"actions": (changed(MAIL, recipients=("ops@acme.test", "nobody")),)}, "actions[0].recipients[1]"),
    ({"actions": (changed(MAIL, memo="m" * 2001),)}, "actions[0].memo"),
    ({"actions": (changed(MAIL, memo="card 4242424242424242"),)}, "actions[0].memo"),
    (
        {"actions": (changed(POLICY, retry_policy=RetryPolicy(kind="smart", max_retries=9)),)},
        "actions[0].retry_policy.max_retries",
    ),
    (
        {"actions": (changed(POLICY, retry_policy=RetryPolicy(kind="custom", retry_days=(1, 2, 3, 4))),)},
        "actions[0].retry_policy.retry_days",
    ),
    ({"trigger": "customer_created", "actions": (changed(CREDIT, amount=0),)}, "actions[0].amount"),
    ({"trigger": "customer_created", "actions": (changed(CREDIT, currency="USD"),)}, "actions[0].currency"),
    (
        {
            "trigger": "subscription_canceled",
            "actions": (changed(ACTIONS["send_cancellation_email"], survey_url="http://acme.test"),),
        },
        "actions[0].survey_url",
    ),
    ({"conditions": (changed(AMOUNT, more_than=None),)}, "conditions[0].more_than"),
    ({"conditions": (changed(AMOUNT, more_than=5, less_than=6),)}, "conditions[0].less_than"),
    ({"conditions": (changed(AMOUNT, more_than=-1),)}, "conditions[0].more_than"),
    ({"conditions": (changed(CONDITIONS["product"], products=("prod_1",) * 101),)}, "conditions[0].products"),
    ({"conditions": (changed(CONDITIONS["customer_metadata"], value="v" * 501),)}, "conditions[0].value"),
]


@pytest.mark.parametrize(("fields", "field"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_what_breaks_a_bound_is_named(fields: dict[str, Any], field: str) -> None:
    assert [one.field for one in violations(**fields)] == [field]


FITS: list[dict[str, Any]] = [
    {"actions": (MAIL,) * 20},
    {"conditions": (AMOUNT,) * 10},
    {"actions": (changed(MAIL, delay_seconds=DELAY_SECONDS_MAX, memo="m" * 2000),)},
    {"trigger": UPCOMING, "actions": (changed(MAIL, before_due_seconds=BEFORE_DUE_SECONDS_MAX),)},
    {"actions": (changed(POLICY, retry_policy=RetryPolicy(kind="custom")),)},
    {"conditions": (changed(AMOUNT, more_than=5, less_than=7),)},
    {"actions": (changed(MAIL, recipients=("ops@acme.test",) * 20),)},
]


@pytest.mark.parametrize("fields", FITS)
def test_what_is_just_within_the_bounds_is_taken(fields: dict[str, Any]) -> None:
    assert not violations(**fields)


def test_an_order_names_nothing_twice() -> None:
    with pytest.raises(InvalidArgument) as refused:
        validate(c.ReorderAutomations(trigger="invoice_overdue", ids=("a", "b", "a")), now=0)
    assert [one.field for one in refused.value.violations] == ["ids[2]"]


def test_everything_is_described() -> None:
    assert set(TRIGGER_WORDS) == set(TRIGGER_ENDS) == set(TRIGGERS)
    assert set(CONDITION_WORDS) == set(CONDITION_PARAMETERS) == set(CONDITION_TRIGGERS) == set(CONDITIONS)
    assert set(ACTION_WORDS) == set(ACTION_PARAMETERS) == set(ACTION_TRIGGERS) == set(ACTIONS)
    parameters = (*CONDITION_PARAMETERS.values(), *ACTION_PARAMETERS.values())
    assert set(PARAMETER_WORDS) == {name for taken in parameters for name in taken}
