"""What changes of automations lead to: they stand on an account's own pages (semantics 8).

Apart from `pages` because automations are judged by more than themselves: the settings, the catalog, and each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET

from billing_server.domain.account import Settings
from billing_server.domain.automation import Action, Automation, Condition, Trigger
from billing_server.domain.catalog import Catalog
from billing_server.domain.commands import (
    CreateAutomation,
    CreateAutomationFromRecipe,
    DeleteAutomation,
    DisableAutomation,
    EnableAutomation,
    ReorderAutomations,
    RunsInFlight,
    UpdateAutomation,
)
from billing_server.domain.errors import AlreadyExists, LimitReached, ResourceMissing, WrongState
from billing_server.domain.etag import check_etag
from billing_server.domain.metadata import initial_metadata, merged_metadata
from billing_server.domain.recipes import definition
from billing_server.domain.turn import NewId, Pages
from billing_server.domain.validation.automation import AUTOMATIONS_OF_TRIGGER_MAX, CREATION, check_pairs, listed
from billing_server.domain.validation.findings import Findings

AutomationCommand = (
    CreateAutomation
    | CreateAutomationFromRecipe
    | UpdateAutomation
    | DeleteAutomation
    | EnableAutomation
    | DisableAutomation
    | ReorderAutomations
)

AUTOMATION_COMMANDS: Final = (
    CreateAutomation,
    CreateAutomationFromRecipe,
    UpdateAutomation,
    DeleteAutomation,
    EnableAutomation,
    DisableAutomation,
    ReorderAutomations,
)
"""Commands that are decided here."""

_CHANGEABLE: Final = ("name", "conditions", "actions")


class AutomationOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The automations of a trigger, in the order in which they are asked."""

    automations: tuple[Automation, ...]


class AutomationsDecision(msgspec.Struct, frozen=True, kw_only=True):
    """The automations that are new or changed, and what the command was about, as it is now."""

    automations: tuple[Automation, ...] = ()
    result: Automation | AutomationOrder


class Telling(Protocol):
    """Takes down what happened to automations."""

    def tell(self, type_: str, item: Automation) -> None:
        """An event of this type, of the automation as it now is."""

    def updated(self, noun: str, before: Automation, after: Automation) -> None:
        """An event that says what has changed."""


def decide_automations(
    pages: Pages, command: AutomationCommand, telling: Telling, *, now: int, new_id: NewId
) -> AutomationsDecision:
    """What a validated command about automations leads to.

    Raises:
        ResourceMissing: the automation does not exist, or a condition or an action names what does not.
        Conflict: the etag is that of another version.
        AlreadyExists: another automation of the trigger has the priority.
        WrongState: the automation is deleted, or the price of an action is not active.
        InvalidArgument: a recipient from outside, a price that is not recurring, parts that do not go with the
            trigger, an order that is not of all automations, or too many keys of metadata after a merge.
        LimitReached: the trigger has too many automations.
    """
    match command:
        case CreateAutomation():
            return _create(pages, command, telling, now=now, new_id=new_id)
        case CreateAutomationFromRecipe():
            plain = from_recipe(pages, command)
            return _create(pages, plain, telling, now=now, new_id=new_id, recipe=command.recipe)
        case UpdateAutomation():
            return _update(pages, command, telling)
        case EnableAutomation():
            return _enable(pages, command, telling)
        case DisableAutomation():
            return _disable(pages, command, telling)
        case DeleteAutomation():
            return _delete(pages, command, telling)
        case ReorderAutomations():
            return _reorder(pages, command, telling)


def _create(
    pages: Pages,
    command: CreateAutomation,
    telling: Telling,
    *,
    now: int,
    new_id: NewId,
    recipe: str | None = None,
) -> AutomationsDecision:
    check_definition(pages, command.conditions, command.actions)
    siblings = _of_trigger(pages, command.trigger)
    if len(siblings) >= AUTOMATIONS_OF_TRIGGER_MAX:
        raise LimitReached(
            "automation_limit",
            f"{command.trigger} has {len(siblings)} automations, the most that it can have; delete one first",
        )
    priority = command.priority
    if priority is None:
        priority = max((sibling.priority for sibling in siblings), default=0) + 1
    else:
        _check_free(siblings, priority)
    automation = Automation(
        id=new_id("bauto"),
        created=now,
        name=command.name,
        enabled=command.enabled,
        trigger=command.trigger,
        priority=priority,
        conditions=command.conditions,
        actions=command.actions,
        recipe=recipe,
        metadata=initial_metadata(command.metadata),
    )
    telling.tell("automation.created", automation)
    return AutomationsDecision(automations=(automation,), result=automation)


def from_recipe(pages: Pages, command: CreateAutomationFromRecipe) -> CreateAutomation:
    """What is created by a recipe, validated as if it had been asked for part by part.

    Raises:
        InvalidArgument: with all violations, in the fields of the automation that the recipe makes.
    """
    made = definition(command.recipe, command.parameters, pages.settings)
    plain = CreateAutomation(
        name=command.name or made.title,
        trigger=made.trigger,
        conditions=made.conditions,
        actions=made.actions,
        enabled=command.enabled,
        priority=command.priority,
        metadata=command.metadata,
    )
    findings = Findings(now=0)
    CREATION.check(plain, findings)
    findings.raise_any()
    return plain


def _check_free(siblings: Sequence[Automation], priority: int) -> None:
    for sibling in siblings:
        if sibling.priority == priority:
            raise AlreadyExists(
                "resource_already_exists",
                f"the automation '{sibling.id}' has the priority {priority}; leave it out to come last, "
                "and put them in order by ReorderAutomations",
                field="priority",
            )


def _update(pages: Pages, command: UpdateAutomation, telling: Telling) -> AutomationsDecision:
    before = _there(pages, command.id)
    check_etag(command.etag, before.version)
    changes: dict[str, Any] = {
        name: getattr(command, name) for name in _CHANGEABLE if getattr(command, name) is not UNSET
    }
    if command.metadata is not UNSET:
        changes["metadata"] = merged_metadata(before.metadata, command.metadata)
    wished = msgspec.structs.replace(before, **changes)
    if "conditions" in changes or "actions" in changes:
        findings = Findings(now=0)
        check_pairs(before.trigger, wished.conditions, wished.actions, findings)
        findings.raise_any()
        check_definition(pages, changes.get("conditions", ()), changes.get("actions", ()))
    if wished == before:
        return AutomationsDecision(result=before)
    return _changed(before, wished, telling)


def _enable(pages: Pages, command: EnableAutomation, telling: Telling) -> AutomationsDecision:
    before = _there(pages, command.id)
    if before.enabled:
        return AutomationsDecision(result=before)
    return _changed(before, msgspec.structs.replace(before, enabled=True), telling)


def _disable(pages: Pages, command: DisableAutomation, telling: Telling) -> AutomationsDecision:
    before = _there(pages, command.id)
    if not before.enabled and command.runs_in_flight == "let_finish":
        return AutomationsDecision(result=before)
    return _changed(before, _stopped(before, command.runs_in_flight), telling)


def _delete(pages: Pages, command: DeleteAutomation, telling: Telling) -> AutomationsDecision:
    before = _there(pages, command.id)
    check_etag(command.etag, before.version)
    after = msgspec.structs.replace(_stopped(before, command.runs_in_flight), deleted=True, version=before.version + 1)
    telling.tell("automation.deleted", after)
    return AutomationsDecision(automations=(after,), result=after)


def _stopped(automation: Automation, runs: RunsInFlight) -> Automation:
    """It starts no more runs; all that it has started are marked to end when they are told to."""
    mark = automation.version if runs == "cancel_all" else automation.runs_canceled_version
    return msgspec.structs.replace(automation, enabled=False, runs_canceled_version=mark)


def _reorder(pages: Pages, command: ReorderAutomations, telling: Telling) -> AutomationsDecision:
    """All automations of the trigger get the priorities 1, 2, 3 and so on."""
    siblings = {sibling.id: sibling for sibling in _of_trigger(pages, command.trigger)}
    _check_complete(pages, siblings, command)
    order, changed = [], []
    for priority, identity in enumerate(command.ids, start=1):
        before = siblings[identity]
        after = before
        if before.priority != priority:
            after = msgspec.structs.replace(before, priority=priority, version=before.version + 1)
            telling.updated("automation", before, after)
            changed.append(after)
        order.append(after)
    return AutomationsDecision(automations=tuple(changed), result=AutomationOrder(automations=tuple(order)))


def _check_complete(pages: Pages, siblings: dict[str, Automation], command: ReorderAutomations) -> None:
    known = {automation.id for automation in pages.automations}
    findings = Findings(now=0)
    for index, identity in enumerate(command.ids):
        if identity not in known:
            raise ResourceMissing("automation", identity, field=f"ids[{index}]")
        if identity not in siblings:
            findings.add(
                f"ids[{index}]",
                "parameter_invalid",
                f"'{identity}' is no automation of {command.trigger}; leave it out",
            )
    left_out = sorted(siblings.keys() - set(command.ids))
    if left_out:
        findings.add(
            "ids", "parameter_missing", f"must name all automations of {command.trigger}; {', '.join(left_out)} missing"
        )
    findings.raise_any()


def _changed(before: Automation, wished: Automation, telling: Telling) -> AutomationsDecision:
    after = msgspec.structs.replace(wished, version=before.version + 1)
    telling.updated("automation", before, after)
    return AutomationsDecision(automations=(after,), result=after)


def _there(pages: Pages, identity: str) -> Automation:
    """The automation with this id, not deleted."""
    found = next((automation for automation in pages.automations if automation.id == identity), None)
    if found is None:
        raise ResourceMissing("automation", identity)
    if found.deleted:
        raise WrongState(
            "automation_deleted",
            f"the automation '{identity}' was deleted; create another one",
            subject=identity,
            field="id",
        )
    return found


def _of_trigger(pages: Pages, trigger: Trigger) -> list[Automation]:
    """The automations of a trigger that are not deleted."""
    return [found for found in pages.automations if found.trigger == trigger and not found.deleted]


# --- what a definition names


def check_definition(pages: Pages, conditions: Sequence[Condition], actions: Sequence[Action]) -> None:
    """Whether all that conditions and actions name is there, and recipients belong to the company.

    Raises:
        InvalidArgument: with all violations.
        ResourceMissing: a product or a price does not exist.
        WrongState: the price of an action is not active.
    """
    findings = Findings(now=0)
    for index, action in enumerate(actions):
        place = f"actions[{index}]"
        for number, recipient in enumerate(action.recipients):
            _check_recipient(pages.settings, recipient, f"{place}.recipients[{number}]", findings)
        price = None if action.price is None else pages.catalog.prices.get(action.price)
        if price is not None and price.recurring is None:
            findings.add(
                f"{place}.price", "price_type_invalid", f"'{price.id}' is a one-time price; name a recurring one"
            )
    findings.raise_any()
    _check_sold(pages.catalog, conditions, actions)


def _check_recipient(settings: Settings, recipient: str, field: str, findings: Findings) -> None:
    """Mail for the team goes to the company's domain, or to people whom the settings name (semantics 8.3)."""
    domain = settings.company_domain
    at_home = domain is not None and recipient.rpartition("@")[2].lower() == domain.lower()
    if at_home or recipient.lower() in {user.lower() for user in settings.team_users}:
        return
    allowed = ["one of the settings' team_users"] if domain is None else [f"on {domain}", "one of the team_users"]
    findings.add(
        field,
        "parameter_invalid",
        f"'{recipient}' must be {listed(allowed)}; "
        "set company_domain, or add the address to team_users, by AccountService.UpdateSettings",
    )


def _check_sold(catalog: Catalog, conditions: Sequence[Condition], actions: Sequence[Action]) -> None:
    for index, condition in enumerate(conditions):
        for number, product in enumerate(condition.products):
            catalog.product(product, f"conditions[{index}].products[{number}]")
        for number, price in enumerate(condition.prices):
            catalog.price(price, f"conditions[{index}].prices[{number}]")
    for index, action in enumerate(actions):
        if action.price is not None and not catalog.price(action.price, f"actions[{index}].price").active:
            raise WrongState(
                "price_inactive",
                f"the price '{action.price}' is not active; activate it or choose another",
                subject=action.price,
                field=f"actions[{index}].price",
            )
