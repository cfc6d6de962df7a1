"""AutomationService: what is done when something happens, and the runs of that."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from google.protobuf.message import Message

from billing.v1 import automation_model_pb2 as model
from billing.v1 import automation_service_pb2 as service
from billing_server.api.backtests import encode_progress
from billing_server.api.call import Call
from billing_server.api.endpoints import (
    Edge,
    Endpoint,
    choice,
    command,
    get,
    listing,
    number_of,
    path_of,
    required,
    span,
)
from billing_server.domain import automation_capabilities as words
from billing_server.domain import commands as c
from billing_server.domain.automation import (
    ACTION_TRIGGERS,
    CONDITION_TRIGGERS,
    TRIGGERS,
    Automation,
    AutomationRun,
    Trigger,
)
from billing_server.domain.automation_pages import AutomationOrder
from billing_server.domain.backtest import Proposal
from billing_server.domain.dry_run import Candidate
from billing_server.domain.errors import invalid
from billing_server.domain.recipes import RECIPES
from billing_server.domain.validation import automation as rules
from billing_server.domain.validation import validate
from billing_server.engine.backtest import Span, backtest
from billing_server.engine.dry_run import dry_run_about
from billing_server.store.automation import AutomationFilter, AutomationRunFilter
from billing_server.wire.codec import check, decode, encode


def _automations(request: Any) -> AutomationFilter:
    return AutomationFilter(
        trigger=choice(request, "trigger"),
        enabled=request.enabled if request.HasField("enabled") else None,
    )


def _runs(request: Any) -> AutomationRunFilter:
    return AutomationRunFilter(
        automation=request.automation or None,
        customer=request.customer or None,
        invoice=request.invoice or None,
        subscription=request.subscription or None,
        status=choice(request, "status"),
        test_clock=request.test_clock or None,
    )


def _show_order(order: msgspec.Struct, _now: int | None) -> Message:
    assert isinstance(order, AutomationOrder)
    return service.ReorderAutomationsResponse(automations=map(encode, order.automations))


# --- what there is to build automations from


def _trigger_numbers(triggers: frozenset[Trigger]) -> list[Any]:
    return [number_of(model.AutomationTrigger.DESCRIPTOR, name) for name in TRIGGERS if name in triggers]


def _parameters(parameters: rules.Parameters) -> list[service.AutomationParameter]:
    return [
        service.AutomationParameter(name=name, required=required, description=words.PARAMETER_WORDS[name])
        for name, required in parameters.items()
    ]


def _trigger(trigger: Trigger) -> service.AutomationTriggerCapability:
    before_due = trigger == "invoice_due_date_upcoming"
    kinds = rules.conditions_of(trigger)
    actions = rules.actions_of(trigger)
    return service.AutomationTriggerCapability(
        trigger=number_of(model.AutomationTrigger.DESCRIPTOR, trigger),
        description=words.TRIGGER_WORDS[trigger],
        conditions=[number_of(model.AutomationConditionType.DESCRIPTOR, kind) for kind in kinds],
        actions=[number_of(model.AutomationActionType.DESCRIPTOR, kind) for kind in actions],
        timing=service.AUTOMATION_TIMING_BEFORE_DUE if before_due else service.AUTOMATION_TIMING_DELAY,
        ends=[number_of(model.AutomationRunEndReason.DESCRIPTOR, end) for end in words.TRIGGER_ENDS[trigger]],
    )


def _capabilities() -> service.DescribeAutomationCapabilitiesResponse:
    return service.DescribeAutomationCapabilitiesResponse(
        triggers=map(_trigger, TRIGGERS),
        conditions=[
            service.AutomationConditionCapability(
                type=number_of(model.AutomationConditionType.DESCRIPTOR, kind),
                description=words.CONDITION_WORDS[kind],
                parameters=_parameters(rules.CONDITION_PARAMETERS[kind]),
                triggers=_trigger_numbers(triggers),
            )
            for kind, triggers in CONDITION_TRIGGERS.items()
        ],
        actions=[
            service.AutomationActionCapability(
                type=number_of(model.AutomationActionType.DESCRIPTOR, kind),
                description=words.ACTION_WORDS[kind],
                parameters=_parameters(rules.ACTION_PARAMETERS[kind]),
                triggers=_trigger_numbers(triggers),
                ends_run=kind in words.RUN_ENDING_ACTIONS,
            )
            for kind, triggers in ACTION_TRIGGERS.items()
        ],
        limits=service.AutomationLimits(
            conditions_max=rules.CONDITIONS_MAX,
            actions_max=rules.ACTIONS_MAX,
            delay_seconds_max=rules.DELAY_SECONDS_MAX,
            before_due_seconds_max=rules.BEFORE_DUE_SECONDS_MAX,
            recipients_max=rules.RECIPIENTS_MAX,
            memo_length_max=rules.MEMO_LENGTH_MAX,
            listed_max=rules.LISTED_MAX,
            automations_of_trigger_max=rules.AUTOMATIONS_OF_TRIGGER_MAX,
        ),
    )


CAPABILITIES: Final = _capabilities()


async def _describe(_edge: Edge, _call: Call, _request: Any) -> bytes:
    return CAPABILITIES.SerializeToString()


async def _list_recipes(_edge: Edge, _call: Call, _request: Any) -> bytes:
    response = service.ListRecipesResponse(
        recipes=[
            service.Recipe(
                name=recipe.name,
                title=recipe.title,
                description=recipe.description,
                trigger=number_of(model.AutomationTrigger.DESCRIPTOR, recipe.trigger),
                parameters=[
                    service.RecipeParameter(
                        name=parameter.name,
                        description=parameter.description,
                        required=parameter.required,
                        default_value=parameter.default or "",
                    )
                    for parameter in recipe.parameters
                ],
            )
            for recipe in RECIPES.values()
        ]
    )
    return response.SerializeToString()


# --- trying automations


async def _dry_run(edge: Edge, call: Call, request: Any) -> bytes:
    check(request)
    which = request.WhichOneof("subject")
    if which is None:
        raise invalid("subject", "parameter_missing", "name an invoice, a subscription or a customer")
    required(request, which)
    found = await dry_run_about(
        edge.engine.store, call.account_id, which, getattr(request, which), choice(request, "trigger")
    )
    response = service.DryRunAutomationResponse(
        trigger=number_of(model.AutomationTrigger.DESCRIPTOR, found.trigger),
        obstacles=found.obstacles,
        automation="" if found.chosen is None else found.chosen.id,
        candidates=map(_candidate, found.candidates),
    )
    return response.SerializeToString()


def _candidate(candidate: Candidate) -> service.DryRunCandidate:
    return service.DryRunCandidate(
        automation=candidate.automation.id,
        name=candidate.automation.name,
        priority=candidate.automation.priority,
        enabled=candidate.automation.enabled,
        runs=candidate.runs,
        explanation=candidate.explanation,
        conditions=[
            service.ConditionEvaluation(
                condition=encode(evaluation.condition),
                holds=evaluation.holds,
                explanation=evaluation.explanation,
            )
            for evaluation in candidate.evaluations
        ],
    )


async def _backtest(edge: Edge, call: Call, request: Any) -> AsyncIterator[bytes]:
    check(request)
    which = request.WhichOneof("proposal")
    if which is None:
        raise invalid("proposal", "parameter_missing", "name an automation, or give a definition to try")
    start, end = span(request, "range")
    wanted = Span(start=start, end=end, customer=request.customer or None)
    automation = None
    if which == "automation":
        required(request, "automation")
        automation = request.automation
        async with edge.view(call) as view:
            known = await view.get(Automation, automation, "automation", field="automation")
        proposal = Proposal(trigger=known.trigger, conditions=known.conditions, actions=known.actions)
    else:
        command_given = decode(request.definition, c.CreateAutomation)
        validate(command_given, now=int(time.time()))
        proposal = Proposal(
            trigger=command_given.trigger, conditions=command_given.conditions, actions=command_given.actions
        )
    async for progress in backtest(edge.engine.store, call.account_id, proposal, wanted, automation):
        yield encode_progress(progress).SerializeToString()


ENDPOINTS: Final = (
    command("AutomationService/CreateAutomation", c.CreateAutomation),
    get("AutomationService/GetAutomation", Automation, "automation"),
    listing("AutomationService/ListAutomations", "automations", _automations),
    command("AutomationService/UpdateAutomation", c.UpdateAutomation),
    command("AutomationService/DeleteAutomation", c.DeleteAutomation),
    command("AutomationService/EnableAutomation", c.EnableAutomation),
    command("AutomationService/DisableAutomation", c.DisableAutomation),
    command("AutomationService/ReorderAutomations", c.ReorderAutomations, shown=_show_order),
    Endpoint(path_of("AutomationService/DescribeAutomationCapabilities"), unary=_describe),
    Endpoint(path_of("AutomationService/ListRecipes"), unary=_list_recipes),
    command("AutomationService/CreateAutomationFromRecipe", c.CreateAutomationFromRecipe),
    Endpoint(path_of("AutomationService/DryRunAutomation"), unary=_dry_run),
    Endpoint(path_of("AutomationService/BacktestAutomation"), streaming=_backtest),
    get("AutomationService/GetAutomationRun", AutomationRun, "automation_run"),
    listing("AutomationService/ListAutomationRuns", "automation_runs", _runs),
    command("AutomationService/CancelAutomationRun", c.CancelAutomationRun),
)
