"""`billing webhooks`: endpoints that events are sent to, and what became of the deliveries."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from billing.v1.webhook_model_pb2 import WebhookDeliveryState, WebhookEndpointStatus
from billing.v1.webhook_service_pb2 import (
    CreateWebhookEndpointRequest,
    DeleteWebhookEndpointRequest,
    GetWebhookDeliveryRequest,
    GetWebhookEndpointRequest,
    ListWebhookDeliveriesRequest,
    ListWebhookEndpointsRequest,
    RedeliverWebhookDeliveryRequest,
    RotateWebhookSecretRequest,
    UpdateWebhookEndpointRequest,
)
from billing_client.command_line.options import LIST_LIMIT, Identifier, Limit, Metadata, enum_value, pairs
from billing_client.command_line.session import Session, run, show

app = typer.Typer(help="Webhooks: events sent over HTTP.", no_args_is_help=True)

_STATES = "pending, delivered, failed or canceled."

Types = Annotated[
    list[str] | None,
    typer.Option("--type", help="Only events of this type, such as invoice.paid or invoice.*; may be repeated."),
]


@app.command()
def create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="Where events are sent, as https://HOST/PATH.", show_default=False)],
    types: Types = None,
    description: Annotated[str, typer.Option(help="For the account's own people.")] = "",
    metadata: Metadata = None,
) -> None:
    """Create an endpoint, and show the secret that verifies its webhooks; it is never shown again."""
    request = CreateWebhookEndpointRequest(
        url=url, event_types=types or [], description=description, metadata=pairs(metadata)
    )
    show(context, lambda client: client.webhooks.CreateWebhookEndpoint(request))


@app.command("list")
def list_endpoints(
    context: typer.Context,
    status: Annotated[str, typer.Option(help="Only those that are enabled or disabled.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List endpoints, newest first."""
    request = ListWebhookEndpointsRequest(status=enum_value(WebhookEndpointStatus, status, "--status"))
    run(
        context,
        lambda session: session.list(
            session.client.webhooks.ListWebhookEndpoints, request, lambda page: page.webhook_endpoints, limit
        ),
    )


@app.command("show")
def show_endpoint(context: typer.Context, identifier: Identifier) -> None:
    """Show an endpoint."""
    show(context, lambda client: client.webhooks.GetWebhookEndpoint(GetWebhookEndpointRequest(id=identifier)))


@app.command()
def update(
    context: typer.Context,
    identifier: Identifier,
    url: Annotated[str | None, typer.Option(help="Another address.")] = None,
    types: Types = None,
    all_types: Annotated[bool, typer.Option("--all-types", help="Send events of all types again.")] = False,
    description: Annotated[str | None, typer.Option(help="Another description.")] = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send events from now on, or none.")
    ] = None,
    metadata: Metadata = None,
) -> None:
    """Change an endpoint; what is not named stays."""
    if types and all_types:
        raise typer.BadParameter("not together with --type.", param_hint="--all-types")
    request = UpdateWebhookEndpointRequest(
        id=identifier,
        url=url,
        event_types=types or [],
        description=description,
        enabled=enabled,
        metadata=pairs(metadata),
    )
    if all_types:
        # Only a mask can say that a list becomes empty; then it has to name the rest, too.
        named = [field.name for field, _ in request.ListFields() if field.name != "id"]
        request.update_mask.CopyFrom(FieldMask(paths=[*named, "event_types"]))
    show(context, lambda client: client.webhooks.UpdateWebhookEndpoint(request))


@app.command()
def delete(context: typer.Context, identifier: Identifier) -> None:
    """Delete an endpoint and its secrets."""

    async def work(session: Session) -> None:
        await session.client.webhooks.DeleteWebhookEndpoint(DeleteWebhookEndpointRequest(id=identifier))
        session.output.note(f"{identifier} is deleted.")

    run(context, work)


@app.command()
def rotate(
    context: typer.Context,
    identifier: Identifier,
    grace_seconds: Annotated[
        int | None, typer.Option(help="Seconds for which the secrets before sign, too; default a day.", min=0)
    ] = None,
) -> None:
    """Give an endpoint a new secret, and show it; it is never shown again."""
    request = RotateWebhookSecretRequest(id=identifier, grace_seconds=grace_seconds)
    show(context, lambda client: client.webhooks.RotateWebhookSecret(request))


@app.command()
def deliveries(
    context: typer.Context,
    endpoint: Annotated[str, typer.Option(help="Only those to this endpoint.")] = "",
    event: Annotated[str, typer.Option(help="Only those of this event.")] = "",
    state: Annotated[str, typer.Option(help=f"Only those in this state: {_STATES}")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List deliveries, newest first."""
    request = ListWebhookDeliveriesRequest(
        endpoint=endpoint, event=event, state=enum_value(WebhookDeliveryState, state, "--state")
    )
    run(
        context,
        lambda session: session.list(
            session.client.webhooks.ListWebhookDeliveries, request, lambda page: page.webhook_deliveries, limit
        ),
    )


@app.command()
def delivery(context: typer.Context, identifier: Identifier) -> None:
    """Show a delivery."""
    show(context, lambda client: client.webhooks.GetWebhookDelivery(GetWebhookDeliveryRequest(id=identifier)))


@app.command()
def redeliver(context: typer.Context, identifier: Identifier) -> None:
    """Send a delivery again."""
    request = RedeliverWebhookDeliveryRequest(id=identifier)
    show(context, lambda client: client.webhooks.RedeliverWebhookDelivery(request))
