"""Decisions about automations: their order, their switch, their end, and what their parts name."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest

from billing_server.domain import commands as c
from billing_server.domain.account import Account, Settings
from billing_server.domain.automation import Action, Automation, Condition
from billing_server.domain.automation_pages import AutomationOrder
from billing_server.domain.catalog import Catalog
from billing_server.domain.errors import (
    AlreadyExists,
    Conflict,
    DomainError,
    InvalidArgument,
    LimitReached,
    ResourceMissing,
    WrongState,
)
from billing_server.domain.pages import PagesDecision, decide_pages, is_about_pages
from billing_server.domain.recipes import RECIPES, RecipeParameters, definition
from billing_server.domain.turn import Pages
from tests.domain.test_pages import CAUSE, GOLD, MONTHLY, NOW

CATALOG = Catalog({GOLD.id: GOLD}, {MONTHLY.id: MONTHLY})
GIVE_UP = Action(type="mark_invoice_uncollectible")


def automation(identity: str, priority: int, **changes: Any) -> Automation:
    values = {"id": identity, "created": 1, "name": identity, "trigger": "invoice_overdue", "actions": (GIVE_UP,)}
    return Automation(**{**values, "priority": priority, **changes})


A, B, OTHER = automation("a", 1), automation("b", 4), automation("o", 1, trigger="invoice_finalized")
GONE = automation("g", 2, deleted=True)
SETTINGS = Settings(company_domain="acme.test", team_users=("jo@elsewhere.test",))


def decide(command: c.Command, *automations: Automation, settings: Settings = SETTINGS) -> PagesDecision:
    assert is_about_pages(command)
    pages = Pages(Account(id="acct_1", created=1, name="T", settings=settings), CATALOG, 7, automations)
    numbers = count(1)
    return decide_pages(pages, command, now=NOW, new_id=lambda prefix: f"{prefix}_new{next(numbers)}", cause=CAUSE)


def created(**fields: Any) -> c.CreateAutomation:
    return c.CreateAutomation(**{"name": "New", "trigger": "invoice_overdue", "actions": (GIVE_UP,), **fields})


def result(decision: PagesDecision) -> Automation:
    assert isinstance(decision.result, Automation)
    return decision.result


@pytest.mark.parametrize(("there", "priority"), [((), 1), ((A, B, OTHER), 5), ((A, GONE), 2)])
def test_a_new_one_comes_last(there: tuple[Automation, ...], priority: int) -> None:
    decision = decide(created(), *there)
    made = result(decision)
    assert (made.id, made.priority, made.created, made.enabled) == ("bauto_new1", priority, NOW, True)
    assert decision.automations == (made,)
    assert [(event.type, event.object, event.customer) for event in decision.events] == [
        ("automation.created", made, None)
    ]


def test_a_free_priority_may_be_chosen_and_a_taken_one_may_not() -> None:
    assert result(decide(created(priority=2), A, B, GONE)).priority == 2
    with pytest.raises(AlreadyExists, match="ReorderAutomations") as refused:
        decide(created(priority=4), A, B)
    assert refused.value.field == "priority"


def test_a_trigger_has_only_so_many() -> None:
    many = [automation(f"a{number}", number) for number in range(1, 101)]
    with pytest.raises(LimitReached, match="delete one"):
        decide(created(), *many)
    assert result(decide(created(), *many[1:], automation("x", 500, deleted=True))).priority == 101


def test_an_update_changes_what_it_names() -> None:
    later = msgspec.structs.replace(GIVE_UP, delay_seconds=60)
    decision = decide(c.UpdateAutomation(id="a", name="A2", actions=(later,), metadata={"k": "v"}, etag="v1"), A, B)
    after = result(decision)
    assert after == msgspec.structs.replace(A, name="A2", actions=(later,), metadata={"k": "v"}, version=2)
    (event,) = decision.events
    assert (event.type, event.previous_attributes) == (
        "automation.updated",
        {"name": "a", "actions": (GIVE_UP,), "metadata": {"k": None}},
    )
    unchanged = decide(c.UpdateAutomation(id="a", name="a"), A)
    assert (unchanged.result, unchanged.automations, unchanged.events) == (A, (), ())


def test_an_update_is_judged_with_the_trigger() -> None:
    with pytest.raises(InvalidArgument) as refused:
        decide(c.UpdateAutomation(id="a", actions=(Action(type="send_cancellation_email"),)), A)
    assert refused.value.reason == "automation_pair_invalid"


@pytest.mark.parametrize("command", [c.DisableAutomation, c.DeleteAutomation])
@pytest.mark.parametrize(("choice", "mark"), [("let_finish", 0), ("cancel_all", 3)])
def test_what_starts_no_more_may_take_its_runs_along(command: Any, choice: Any, mark: int) -> None:
    before = automation("a", 1, version=3)
    after = result(decide(command(id="a", runs_in_flight=choice), before))
    assert (after.enabled, after.runs_canceled_version, after.version) == (False, mark, 4)
    assert after.deleted == (command is c.DeleteAutomation)


def test_switching_twice_changes_nothing_but_runs_can_still_be_ended() -> None:
    off = automation("a", 1, enabled=False, version=2)
    assert decide(c.DisableAutomation(id="a"), off).events == ()
    assert decide(c.EnableAutomation(id="a"), A).events == ()
    assert result(decide(c.EnableAutomation(id="a"), off)).enabled
    assert result(decide(c.DisableAutomation(id="a", runs_in_flight="cancel_all"), off)).runs_canceled_version == 2


def test_an_order_gives_new_priorities_to_those_that_move() -> None:
    last = automation("c", 9)
    decision = decide(c.ReorderAutomations(trigger="invoice_overdue", ids=("a", "c", "b")), A, B, last, OTHER, GONE)
    assert isinstance(decision.result, AutomationOrder)
    assert [(one.id, one.priority, one.version) for one in decision.result.automations] == [
        ("a", 1, 1),
        ("c", 2, 2),
        ("b", 3, 2),
    ]
    assert [one.id for one in decision.automations] == ["c", "b"]
    assert [event.previous_attributes for event in decision.events] == [{"priority": 9}, {"priority": 4}]


REFUSED: list[tuple[c.Command, type[DomainError], str]] = [
    (c.UpdateAutomation(id="none", name="x"), ResourceMissing, "id"),
    (c.UpdateAutomation(id="a", name="x", etag="v9"), Conflict, "etag"),
    (c.DeleteAutomation(id="a", etag="v9"), Conflict, "etag"),
    (c.EnableAutomation(id="g"), WrongState, "id"),
    (c.UpdateAutomation(id="g", name="x"), WrongState, "id"),
    (c.DeleteAutomation(id="g"), WrongState, "id"),
    (c.ReorderAutomations(trigger="invoice_overdue", ids=("a",)), InvalidArgument, "ids"),
    (c.ReorderAutomations(trigger="invoice_overdue", ids=("a", "o", "b")), InvalidArgument, "ids[1]"),
    (c.ReorderAutomations(trigger="invoice_overdue", ids=("a", "g", "b")), InvalidArgument, "ids[1]"),
    (c.ReorderAutomations(trigger="invoice_overdue", ids=("a", "b", "none")), ResourceMissing, "ids[2]"),
    (
        created(conditions=(Condition(type="product", products=("none",)),)),
        ResourceMissing,
        "conditions[0].products[0]",
    ),
    (
        created(conditions=(Condition(type="price", prices=("price_gold", "none")),)),
        ResourceMissing,
        "conditions[0].prices[1]",
    ),
    (
        created(trigger="customer_created", actions=(Action(type="create_subscription", price="none"),)),
        ResourceMissing,
        "actions[0].price",
    ),
    (
        created(actions=(GIVE_UP, Action(type="send_team_email", recipients=("a@acme.test", "a@b.test", "a@c.test")))),
        InvalidArgument,
        "actions[1].recipients[1]",
    ),
    (c.CreateAutomationFromRecipe(recipe="none"), InvalidArgument, "recipe"),
    (c.CreateAutomationFromRecipe(recipe="high_value_overdue_notice"), InvalidArgument, "parameters.recipients"),
]


@pytest.mark.parametrize(("command", "kind", "field"), REFUSED)
def test_refusals_name_their_field(command: c.Command, kind: type[DomainError], field: str) -> None:
    with pytest.raises(kind) as refused:
        decide(command, A, B, OTHER, GONE)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("recipient", "settings", "allowed"),
    [
        ("a@acme.test", SETTINGS, True),
        ("a@ACME.test", SETTINGS, True),
        ("Jo@Elsewhere.test", SETTINGS, True),
        ("a@sub.acme.test", SETTINGS, False),
        ("a@xacme.test", SETTINGS, False),
        ("a@elsewhere.test", SETTINGS, False),
        ("a@acme.test", Settings(), False),
    ],
)
def test_recipients_are_of_the_company_or_its_team(recipient: str, settings: Settings, allowed: bool) -> None:
    command = created(actions=(Action(type="send_team_email", recipients=(recipient,)),))
    if allowed:
        assert decide(command, settings=settings).automations
        return
    with pytest.raises(InvalidArgument, match=recipient):
        decide(command, settings=settings)


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_recipe_makes_can_be_created(name: str) -> None:
    parameters = RecipeParameters(recipients=("a@acme.test",)) if "overdue" in name else RecipeParameters()
    made = result(decide(c.CreateAutomationFromRecipe(recipe=name, parameters=parameters)))
    assert (made.recipe, made.name, made.trigger) == (name, RECIPES[name].title, RECIPES[name].trigger)


def test_what_a_recipe_is_told_is_judged_as_a_part() -> None:
    parameters = RecipeParameters(conditions=(Condition(type="invoice_amount", more_than=1),))
    with pytest.raises(InvalidArgument) as refused:
        decide(c.CreateAutomationFromRecipe(recipe="cancellation_confirmation", parameters=parameters))
    assert (refused.value.field, refused.value.reason) == ("conditions[0].type", "automation_pair_invalid")


def test_every_parameter_of_every_recipe_matters() -> None:
    """What a recipe says that it takes changes what it makes."""
    given: dict[str, Any] = {
        "retry_policy": {"kind": "custom", "retry_days": [1]},
        "grace_seconds": 1,
        "more_than": 1,
        "recipients": ["b@acme.test"],
        "memo": "other",
        "conditions": [{"type": "customer_segment", "segments": ["x"]}],
        "survey_url": "https://acme.test",
        "price": "price_gold",
        "amount": 1,
        "currency": "eur",
    }
    for name, recipe in RECIPES.items():
        needed = {"recipients": ["a@acme.test"]} if "overdue" in name else {}
        plain = definition(name, msgspec.convert(needed, RecipeParameters), SETTINGS)
        for parameter in recipe.parameters:
            told = msgspec.convert({**needed, parameter.name: given[parameter.name]}, RecipeParameters)
            assert definition(name, told, SETTINGS) != plain, (name, parameter.name)
