"""`billing forecast`: what will happen to a subscription, as a timeline. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from billing.v1.event_model_pb2 import Event
from billing.v1.subscription_service_pb2 import (
    ForecastMessage,
    ForecastPayments,
    ForecastSubscriptionRequest,
    GetSubscriptionRequest,
)
from billing_client.command_line import rendering
from billing_client.command_line.options import Identifier, enum_value
from billing_client.command_line.session import Session, run
from billing_client.command_line.subscriptions import moments_of
from billing_client.instants import format_timestamp

_TOLD = {
    "subscription": ("status",),
    "invoice": ("status", "amount_due", "amount_remaining", "next_payment_attempt"),
    "payment_intent": ("status", "amount"),
    "invoice_item": ("amount", "description"),
    "customer_object": ("balance", "delinquent"),
}
"""What the timeline shows of each kind of object."""


def forecast(
    context: typer.Context,
    identifier: Identifier,
    until: Annotated[str, typer.Option(help="How far to look, such as 2026-01-01 or +1y.")] = "+1y",
    payments: Annotated[
        str, typer.Option(help="How charges turn out: succeed, fail or fail_then_succeed.")
    ] = "succeed",
    failures: Annotated[int, typer.Option(help="With fail_then_succeed, how many fail first.", min=0)] = 1,
) -> None:
    """Show what will happen to a subscription; steps such as +1y count from the customer's own time."""

    async def work(session: Session) -> None:
        found = await session.client.subscriptions.GetSubscription(GetSubscriptionRequest(id=identifier))
        moments = await moments_of(session, found.customer, {"until": until})
        request = ForecastSubscriptionRequest(
            id=identifier,
            until=moments["until"],
            payments=enum_value(ForecastPayments, payments, "--payments"),
            failures=failures,
        )
        told = await session.client.subscriptions.ForecastSubscription(request)
        # An e-mail follows the events of its second: one of them is its cause.
        timeline: Sequence[Event | ForecastMessage] = sorted(
            [*told.events, *told.messages], key=lambda entry: entry.created.seconds
        )
        for entry in timeline:
            _print(session, entry)
        if not session.output.as_json:
            counted = f"{len(told.events)} events and {len(told.messages)} e-mails"
            session.output.note(f"{counted} until {format_timestamp(request.until)}, then:")
        session.output.message(told.subscription)

    run(context, work)


def _print(session: Session, entry: Event | ForecastMessage) -> None:
    if session.output.as_json:
        session.output.line_of_json(rendering.as_json(entry))
        return
    name, shown = _told_of(entry) if isinstance(entry, Event) else _mailed(entry)
    line = Text.assemble(f"{format_timestamp(entry.created)}  ", (f"{name:<44}", "bold"), (shown, "dim"))
    session.output.console.print(line, soft_wrap=True)


def _told_of(event: Event) -> tuple[str, str]:
    """An event's type, and what of its object is worth a look."""
    kind = event.WhichOneof("object") or ""
    item = getattr(event, kind)
    texts = ((path, rendering.cell(item, path, _currency(item))) for path in _TOLD.get(kind, ()))
    return event.type, "  ".join(f"{path} {text}" for path, text in texts if text)


def _mailed(message: ForecastMessage) -> tuple[str, str]:
    """What an e-mail is for, to whom it goes, and the amount that it names."""
    amount = rendering.cell(message, "amount")
    return f"e-mail: {rendering.cell(message, 'kind')}", f"to {message.recipient}" + (
        f"  amount {amount}" if amount else ""
    )


def _currency(item: object) -> str:
    return str(getattr(item, "currency", ""))
