"""`billing automations`: what is done when something happens, under which conditions."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.account_service_pb2 import GetAccountRequest
from billing.v1.automation_model_pb2 import AutomationTrigger
from billing.v1.automation_service_pb2 import (
    CreateAutomationFromRecipeRequest,
    CreateAutomationRequest,
    DeleteAutomationRequest,
    DescribeAutomationCapabilitiesRequest,
    DisableAutomationRequest,
    EnableAutomationRequest,
    GetAutomationRequest,
    ListAutomationsRequest,
    ListRecipesRequest,
    RecipeParameters,
    ReorderAutomationsRequest,
    RunsInFlight,
    UpdateAutomationRequest,
)
from billing_client.command_line import automation_parts, automation_runs, automation_trials
from billing_client.command_line.options import (
    LIST_LIMIT,
    Identifier,
    Limit,
    Metadata,
    enum_value,
    money,
    pairs,
    read_json,
)
from billing_client.command_line.rendering import cell, enum_words
from billing_client.command_line.session import Session, run, show

app = typer.Typer(help="Automations: what is done when something happens.", no_args_is_help=True)
app.add_typer(automation_runs.app, name="runs")
app.command("dry-run")(automation_trials.dry_run)
app.command("backtest")(automation_trials.backtest)

_CONDITION_HELP = (
    "A condition, such as subscription_interval,interval=yearly or invoice_amount,more_than=500.00 or "
    "product,products=prod_1+prod_2; may be repeated, and all must hold."
)
_ACTION_HELP = (
    "An action, such as start_retry_policy,smart=8/two_months or start_retry_policy,days=3/5/7 or "
    "cancel_subscription,after=7d or send_team_email,to=ops@example.com,memo=TEXT; may be repeated, in order."
)
Conditions = Annotated[list[str] | None, typer.Option("--condition", help=_CONDITION_HELP)]
Actions = Annotated[list[str] | None, typer.Option("--action", help=_ACTION_HELP)]
CancelRuns = Annotated[bool, typer.Option("--cancel-runs", help="End the runs in flight; else they finish.")]
Disabled = Annotated[bool, typer.Option("--disabled", help="Do not let it start runs yet.")]
Priority = Annotated[int | None, typer.Option(help="Its place in its trigger; the last one if it is not said.")]


async def default_currency(session: Session) -> str:
    """The currency that bounds of amounts are in."""
    account = await session.client.account.GetAccount(GetAccountRequest())
    return account.settings.default_currency


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name for the account's own people.")] = "",
    trigger: Annotated[str, typer.Option(help="What starts it, such as invoice_overdue.")] = "",
    condition: Conditions = None,
    action: Actions = None,
    priority: Priority = None,
    disabled: Disabled = False,
    metadata: Metadata = None,
    source: Annotated[str, typer.Option("--from", help="A file with the request as JSON; - is standard input.")] = "",
) -> None:
    """Create an automation, by its parts or from a file with JSON."""
    request = CreateAutomationRequest()
    if source:
        read_json(source, request)
    if name:
        request.name = name
    if trigger:
        request.trigger = enum_value(AutomationTrigger, trigger, "--trigger")
    if priority is not None:
        request.priority = priority
    if disabled:
        request.enabled = False
    request.metadata.update(pairs(metadata))

    async def work(session: Session) -> None:
        currency = await default_currency(session)
        request.conditions.extend(automation_parts.condition(text, currency) for text in condition or ())
        request.actions.extend(automation_parts.action(text, currency) for text in action or ())
        session.output.message(await session.client.automations.CreateAutomation(request))

    run(context, work)


@app.command("show")
def show_automation(context: typer.Context, identifier: Identifier) -> None:
    """Show an automation with its conditions and actions, deleted ones too."""
    request = GetAutomationRequest(id=identifier)
    show(context, lambda client: client.automations.GetAutomation(request))


@app.command("list")
def list_automations(
    context: typer.Context,
    trigger: Annotated[str, typer.Option(help="Only those with this trigger.")] = "",
    enabled: Annotated[
        bool | None, typer.Option("--enabled/--disabled", help="Only those that start runs, or do not.")
    ] = None,
    limit: Limit = LIST_LIMIT,
) -> None:
    """List automations, newest first."""
    request = ListAutomationsRequest(trigger=enum_value(AutomationTrigger, trigger, "--trigger"), enabled=enabled)
    run(
        context,
        lambda session: session.list(
            session.client.automations.ListAutomations, request, lambda page: page.automations, limit
        ),
    )


@app.command()
def update(
    context: typer.Context,
    identifier: Identifier,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    condition: Conditions = None,
    action: Actions = None,
    metadata: Metadata = None,
) -> None:
    """Change an automation; conditions and actions take the place of those that there are."""
    request = UpdateAutomationRequest(id=identifier, name=name, metadata=pairs(metadata))

    async def work(session: Session) -> None:
        currency = await default_currency(session)
        request.conditions.extend(automation_parts.condition(text, currency) for text in condition or ())
        request.actions.extend(automation_parts.action(text, currency) for text in action or ())
        session.output.message(await session.client.automations.UpdateAutomation(request))

    run(context, work)


@app.command()
def enable(context: typer.Context, identifier: Identifier) -> None:
    """Let an automation start runs; what happened before starts none."""
    request = EnableAutomationRequest(id=identifier)
    show(context, lambda client: client.automations.EnableAutomation(request))


@app.command()
def disable(context: typer.Context, identifier: Identifier, cancel_runs: CancelRuns = False) -> None:
    """Let an automation start no more runs."""
    request = DisableAutomationRequest(id=identifier, runs_in_flight=_runs_in_flight(cancel_runs))
    show(context, lambda client: client.automations.DisableAutomation(request))


@app.command()
def delete(context: typer.Context, identifier: Identifier, cancel_runs: CancelRuns = False) -> None:
    """Delete an automation for good."""
    request = DeleteAutomationRequest(id=identifier, runs_in_flight=_runs_in_flight(cancel_runs))
    show(context, lambda client: client.automations.DeleteAutomation(request))


def _runs_in_flight(cancel_runs: bool) -> RunsInFlight.ValueType:
    return RunsInFlight.RUNS_IN_FLIGHT_CANCEL_ALL if cancel_runs else RunsInFlight.RUNS_IN_FLIGHT_LET_FINISH


@app.command()
def reorder(
    context: typer.Context,
    trigger: Annotated[str, typer.Argument(help="The trigger, such as invoice_overdue.")],
    identifiers: Annotated[list[str], typer.Argument(help="Ids of all its automations, the first one asked first.")],
) -> None:
    """Put the automations of a trigger in an order."""
    request = ReorderAutomationsRequest(trigger=enum_value(AutomationTrigger, trigger, "TRIGGER"), ids=identifiers)

    async def work(session: Session) -> None:
        session.output.messages(list((await session.client.automations.ReorderAutomations(request)).automations))

    run(context, work)


@app.command()
def describe(context: typer.Context) -> None:
    """Tell which conditions and actions go with which triggers, and their parameters."""

    async def work(session: Session) -> None:
        found = await session.client.automations.DescribeAutomationCapabilities(DescribeAutomationCapabilitiesRequest())
        if session.output.as_json:
            session.output.message(found)
            return
        triggers = {number: word for word, number in enum_words(AutomationTrigger.DESCRIPTOR).items()}
        columns = [triggers[trigger.trigger] for trigger in found.triggers]
        for title, capabilities in (("conditions", found.conditions), ("actions", found.actions)):
            session.output.table(
                [title, "parameters", *columns],
                [
                    [
                        cell(capability, "type"),
                        ", ".join(p.name if p.required else f"[{p.name}]" for p in capability.parameters),
                        *("yes" if trigger.trigger in capability.triggers else "" for trigger in found.triggers),
                    ]
                    for capability in capabilities
                ],
            )
        session.output.message(found.limits)

    run(context, work)


@app.command()
def recipes(context: typer.Context) -> None:
    """List the recipes with their parameters."""

    async def work(session: Session) -> None:
        found = (await session.client.automations.ListRecipes(ListRecipesRequest())).recipes
        if session.output.as_json:
            session.output.messages(list(found))
            return
        for recipe in found:
            session.output.message(recipe)

    run(context, work)


@app.command("create-from-recipe")
def create_from_recipe(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(help="Name of the recipe; see `billing automations recipes`.")],
    name: Annotated[str, typer.Option(help="A name other than the recipe's title.")] = "",
    retries: Annotated[str, typer.Option(help="Tries such as 8/two_months, or days such as 3/5/7.")] = "",
    grace: Annotated[str, typer.Option(help="Time from the last try to what is done then, such as 7d.")] = "",
    more_than: Annotated[str, typer.Option(help="Only above this amount, in the account's currency.")] = "",
    recipient: Annotated[list[str] | None, typer.Option(help="Who is told; may be repeated.")] = None,
    memo: Annotated[str, typer.Option(help="What they are told.")] = "",
    condition: Conditions = None,
    survey: Annotated[str, typer.Option(help="Address of a survey for the customer.")] = "",
    price: Annotated[str, typer.Option(help="Id of a price to subscribe new customers to.")] = "",
    amount: Annotated[str, typer.Option(help="The credit, such as 10.00.")] = "",
    currency: Annotated[str, typer.Option(help="The credit's currency; default the account's.")] = "",
    priority: Priority = None,
    disabled: Disabled = False,
    metadata: Metadata = None,
) -> None:
    """Create an automation from a recipe."""
    parameters = RecipeParameters(recipients=recipient, memo=memo, survey_url=survey, price=price, currency=currency)
    if retries:
        parameters.retry_policy.CopyFrom(automation_parts.retry_policy(retries, "--retries"))
    if grace:
        parameters.grace_seconds = automation_parts.seconds(grace, "--grace")
    request = CreateAutomationFromRecipeRequest(recipe=recipe, name=name, priority=priority, metadata=pairs(metadata))
    if disabled:
        request.enabled = False

    async def work(session: Session) -> None:
        default = await default_currency(session)
        if more_than:
            parameters.more_than = money(more_than, default, "--more-than")
        if amount:
            parameters.amount = money(amount, currency or default, "--amount")
        parameters.conditions.extend(automation_parts.condition(text, default) for text in condition or ())
        request.parameters.CopyFrom(parameters)
        session.output.message(await session.client.automations.CreateAutomationFromRecipe(request))

    run(context, work)
