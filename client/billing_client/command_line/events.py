"""`billing events`: what happened, as a list or as it happens."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from billing.v1.event_model_pb2 import Event
from billing.v1.event_service_pb2 import CreateConsumerRequest, GetEventRequest, ListEventsRequest
from billing_client.command_line import rendering
from billing_client.command_line.options import LIST_LIMIT, CustomerFilter, Identifier, Limit
from billing_client.command_line.session import Session, run, show
from billing_client.instants import format_timestamp

app = typer.Typer(help="Events.", no_args_is_help=True)

_TAIL = 10

Types = Annotated[
    list[str] | None,
    typer.Option("--type", help="Only this type, such as invoice.paid or invoice.*; may be repeated."),
]
Object = Annotated[str, typer.Option("--object", help="Only those of this object.")]


@app.command("list")
def list_events(
    context: typer.Context,
    types: Types = None,
    object_id: Object = "",
    customer: CustomerFilter = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List events, newest first."""
    request = ListEventsRequest(types=types or [], object_id=object_id, customer=customer)
    run(
        context,
        lambda session: session.list(session.client.event_log.ListEvents, request, lambda page: page.events, limit),
    )


@app.command("show")
def show_event(context: typer.Context, identifier: Identifier) -> None:
    """Show an event with its object and what changed."""
    show(context, lambda client: client.event_log.GetEvent(GetEventRequest(id=identifier)))


@app.command()
def tail(
    context: typer.Context,
    after: Annotated[
        int | None, typer.Option(help=f"Begin after this position; default: the last {_TAIL}.", min=0)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
    types: Types = None,
    object_id: Object = "",
    customer: CustomerFilter = "",
) -> None:
    """Print events, oldest first; with --follow also those to come, across restarts of the server."""

    async def work(session: Session) -> None:
        position = max(await _head(session) - _TAIL, 0) if after is None else after
        async with session.client.events(
            position,
            types or (),
            object_ids=[object_id] if object_id else (),
            customer=customer,
            stop_when_caught_up=not follow,
        ) as stream:
            async for event in stream:
                _print(session, event)

    run(context, work)


@app.command()
def consume(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the consumer.", show_default=False)],
    create: Annotated[bool, typer.Option("--create", help="Create the consumer if there is none.")] = False,
    types: Types = None,
    customer: CustomerFilter = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
) -> None:
    """Print the events of a durable consumer and acknowledge each; the next run goes on behind them."""
    if not create and (types or customer):
        raise typer.BadParameter("say which events a new consumer gets: they go with --create.", param_hint="--type")
    request = CreateConsumerRequest(types=types or [], customer=customer) if create else None

    async def work(session: Session) -> None:
        deliveries = session.client.consume(name, create=request, stop_when_caught_up=not follow)
        async with deliveries:
            async for delivery in deliveries:
                _print(session, delivery.event)
                delivery.ack()
            await deliveries.finish()

    run(context, work)


async def _head(session: Session) -> int:
    newest = await session.client.event_log.ListEvents(ListEventsRequest(page_size=1))
    return newest.events[0].position if newest.events else 0


def _print(session: Session, event: Event) -> None:
    if session.output.as_json:
        session.output.line_of_json(rendering.as_json(event))
        return
    changed = ", ".join(sorted(event.previous_attributes.fields))
    line = Text.assemble(
        (f"{event.position:>8}  ", "dim"),
        f"{format_timestamp(event.created)}  ",
        (f"{event.type:<44}", "bold"),
        f" {event.object_id}",
        (f"  changed: {changed}" if changed else "", "dim"),
    )
    session.output.console.print(line, soft_wrap=True)
