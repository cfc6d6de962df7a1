"""`billing clock`: test clocks, and moving them with a progress bar."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from billing.v1.test_clock_service_pb2 import (
    CreateTestClockRequest,
    DeleteTestClockRequest,
    GetTestClockRequest,
    ListTestClocksRequest,
)
from billing_client.command_line import rendering
from billing_client.command_line.options import LIST_LIMIT, Identifier, Limit, instant
from billing_client.command_line.session import Session, run, show
from billing_client.instants import format_timestamp

app = typer.Typer(help="Test clocks: years of billing in seconds.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    at: Annotated[str, typer.Option(help="What time it is at first; default: now.")] = "",
    name: Annotated[str, typer.Option(help="Name for people to read.")] = "",
) -> None:
    """Create a test clock."""
    request = CreateTestClockRequest(name=name)
    request.frozen_time.CopyFrom(instant(at or str(int(time.time())), "--at"))
    show(context, lambda client: client.test_clocks.CreateTestClock(request))


@app.command("show")
def show_clock(context: typer.Context, identifier: Identifier) -> None:
    """Show a test clock."""
    show(context, lambda client: client.test_clocks.GetTestClock(GetTestClockRequest(id=identifier)))


@app.command("list")
def list_clocks(context: typer.Context, limit: Limit = LIST_LIMIT) -> None:
    """List test clocks, newest first."""
    run(
        context,
        lambda session: session.list(
            session.client.test_clocks.ListTestClocks,
            ListTestClocksRequest(),
            lambda page: page.test_clocks,
            limit,
        ),
    )


@app.command()
def delete(context: typer.Context, identifier: Identifier) -> None:
    """Delete a test clock and its customers with it."""

    async def work(session: Session) -> None:
        await session.client.test_clocks.DeleteTestClock(DeleteTestClockRequest(id=identifier))
        session.output.note(f"{identifier} is deleted, and its customers with it.")

    run(context, work)


@app.command()
def advance(
    context: typer.Context,
    identifier: Identifier,
    to: Annotated[
        str,
        typer.Argument(help="Where to: 2026-01-01, Unix seconds, or +30d, +6mo, +1y.", show_default=False),
    ],
) -> None:
    """Move a test clock forward; everything that falls due on the way happens."""
    run(context, lambda session: _advance(session, identifier, to), patient=True)


async def _advance(session: Session, identifier: str, to: str) -> None:
    clocks = session.client.test_clocks
    clock = await clocks.GetTestClock(GetTestClockRequest(id=identifier))
    start = clock.frozen_time.seconds
    target = instant(to, "TO", now=start)
    with session.output.progress() as bar:
        task = bar.add_task(format_timestamp(clock.frozen_time), total=max(target.seconds - start, 1))
        async for step in session.client.advance_test_clock(identifier, target):
            bar.update(
                task,
                completed=step.frozen_time.seconds - start,
                description=f"{format_timestamp(step.frozen_time)}  {step.books_advanced} steps",
            )
            if session.output.as_json:
                session.output.line_of_json(rendering.as_json(step))
    if not session.output.as_json:
        session.output.message(await clocks.GetTestClock(GetTestClockRequest(id=identifier)))
