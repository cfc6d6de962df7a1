"""`billing consumers`: durable consumers, how far they have come, and what they have parked."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.consumer_model_pb2 import (
    CONSUMER_START_BEGINNING,
    CONSUMER_START_HEAD,
    CONSUMER_START_POSITION,
    ConsumerStart,
)
from billing.v1.event_service_pb2 import (
    CreateConsumerRequest,
    DeleteConsumerRequest,
    DropParkedEventsRequest,
    GetConsumerRequest,
    ListConsumersRequest,
    ListParkedEventsRequest,
    RetryParkedEventsRequest,
    SeekConsumerRequest,
    UpdateConsumerRequest,
)
from billing_client.command_line.events import Types
from billing_client.command_line.options import LIST_LIMIT, CustomerFilter, Limit
from billing_client.command_line.session import Session, run, show

app = typer.Typer(help="Durable consumers of events.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the consumer.", show_default=False)]
Positions = Annotated[
    list[int] | None, typer.Argument(help="Positions of the events; none means all.", show_default=False)
]
After = Annotated[int | None, typer.Option(help="Begin after this position.", min=0)]
FromHead = Annotated[bool, typer.Option("--from-head", help="Begin with what happens from now on.")]
AckTimeout = Annotated[int, typer.Option(help="Seconds within which an event must be acknowledged.", min=0)]
Unacknowledged = Annotated[int, typer.Option(help="Most unacknowledged events of a connection.", min=0)]
Tries = Annotated[int, typer.Option(help="Tries before an event is parked.", min=0)]
Batch = Annotated[int, typer.Option(help="Most events in a batch.", min=0)]


def _start(after: int | None, from_head: bool) -> ConsumerStart.ValueType:
    if after is not None and from_head:
        raise typer.BadParameter("goes without --from-head.", param_hint="--after")
    if after is not None:
        return CONSUMER_START_POSITION
    return CONSUMER_START_HEAD if from_head else CONSUMER_START_BEGINNING


@app.command()
def create(
    context: typer.Context,
    name: Name,
    types: Types = None,
    customer: CustomerFilter = "",
    after: After = None,
    from_head: FromHead = False,
    ack_timeout: AckTimeout = 0,
    unacknowledged_max: Unacknowledged = 0,
    tries_max: Tries = 0,
    batch_max: Batch = 0,
) -> None:
    """Create a consumer, by default from the oldest event on."""
    request = CreateConsumerRequest(
        name=name,
        types=types or [],
        customer=customer,
        start=_start(after, from_head),
        after_position=after or 0,
        ack_timeout_seconds=ack_timeout,
        unacknowledged_max=unacknowledged_max,
        tries_max=tries_max,
        batch_max=batch_max,
    )
    show(context, lambda client: client.event_log.CreateConsumer(request))


@app.command("list")
def list_consumers(context: typer.Context, limit: Limit = LIST_LIMIT) -> None:
    """List consumers with how far they have come."""
    run(
        context,
        lambda session: session.list(
            session.client.event_log.ListConsumers, ListConsumersRequest(), lambda page: page.consumers, limit
        ),
    )


@app.command("show")
def show_consumer(context: typer.Context, name: Name) -> None:
    """Show a consumer and how far it has come."""
    show(context, lambda client: client.event_log.GetConsumer(GetConsumerRequest(name=name)))


@app.command()
def update(
    context: typer.Context,
    name: Name,
    ack_timeout: AckTimeout = 0,
    unacknowledged_max: Unacknowledged = 0,
    tries_max: Tries = 0,
    batch_max: Batch = 0,
) -> None:
    """Change how a consumer delivers."""
    request = UpdateConsumerRequest(
        name=name,
        ack_timeout_seconds=ack_timeout,
        unacknowledged_max=unacknowledged_max,
        tries_max=tries_max,
        batch_max=batch_max,
    )
    show(context, lambda client: client.event_log.UpdateConsumer(request))


@app.command()
def seek(context: typer.Context, name: Name, after: After = None, from_head: FromHead = False) -> None:
    """Move a consumer, by default to the oldest event; what it had unacknowledged is forgotten."""
    request = SeekConsumerRequest(name=name, start=_start(after, from_head), after_position=after or 0)
    show(context, lambda client: client.event_log.SeekConsumer(request))


@app.command()
def delete(context: typer.Context, name: Name) -> None:
    """Delete a consumer with its position and its parked events."""

    async def work(session: Session) -> None:
        await session.client.event_log.DeleteConsumer(DeleteConsumerRequest(name=name))
        session.output.note(f"{name} is deleted.")

    run(context, work)


@app.command()
def parked(context: typer.Context, name: Name, limit: Limit = LIST_LIMIT) -> None:
    """List events that were tried too often."""
    run(
        context,
        lambda session: session.list(
            session.client.event_log.ListParkedEvents,
            ListParkedEventsRequest(consumer=name),
            lambda page: page.parked_events,
            limit,
        ),
    )


@app.command()
def retry(context: typer.Context, name: Name, positions: Positions = None) -> None:
    """Deliver parked events again."""
    request = RetryParkedEventsRequest(consumer=name, positions=positions or [], all=not positions)
    show(context, lambda client: client.event_log.RetryParkedEvents(request))


@app.command()
def drop(context: typer.Context, name: Name, positions: Positions = None) -> None:
    """Forget parked events."""
    request = DropParkedEventsRequest(consumer=name, positions=positions or [], all=not positions)
    show(context, lambda client: client.event_log.DropParkedEvents(request))
