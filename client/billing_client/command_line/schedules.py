"""`billing schedules`: what subscriptions will be like, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final

import typer

from billing.v1.catalog_model_pb2 import Interval
from billing.v1.schedule_model_pb2 import (
    PhaseBillingCycleAnchor,
    PhaseItem,
    ScheduleEndBehavior,
    SubscriptionScheduleStatus,
)
from billing.v1.schedule_service_pb2 import (
    CancelSubscriptionScheduleRequest,
    CreateSubscriptionScheduleRequest,
    GetSubscriptionScheduleRequest,
    ListSubscriptionSchedulesRequest,
    PhaseDuration,
    PhaseParams,
    ReleaseSubscriptionScheduleRequest,
    UpdateSubscriptionScheduleRequest,
)
from billing.v1.subscription_model_pb2 import CollectionMethod, ProrationBehavior
from billing_client.command_line.options import (
    LIST_LIMIT,
    CustomerFilter,
    Identifier,
    Limit,
    Metadata,
    enum_value,
    instant,
    pairs,
)
from billing_client.command_line.session import run, show

app = typer.Typer(help="Subscription schedules.", no_args_is_help=True)

_PHASE_HELP = (
    "A phase, such as price=price_1:2,iterations=12 or price=price_1,for=14day,trial; may be repeated. Its end is "
    "iterations=COUNT, for=COUNT(day|week|month|year) or until=TIME. Further: trial, trial_end=TIME, "
    "proration=create_prorations|always_invoice|none, anchor=automatic|phase_start, days_until_due=DAYS."
)
Phases = Annotated[list[str] | None, typer.Option("--phase", help=_PHASE_HELP)]
EndBehavior = Annotated[str, typer.Option(help="What happens to the subscription at the end: release or cancel.")]


@app.command()
def create(
    context: typer.Context,
    origin: Annotated[str, typer.Argument(help="Id of a customer, or of a subscription to take over.")],
    phase: Phases = None,
    start: Annotated[str, typer.Option(help="When the first phase begins; now if it is not said.")] = "",
    end_behavior: EndBehavior = "",
    metadata: Metadata = None,
) -> None:
    """Create a schedule: with phases for a customer, or from a subscription as it is."""
    request = CreateSubscriptionScheduleRequest(
        phases=_phases(phase or ()),
        end_behavior=enum_value(ScheduleEndBehavior, end_behavior, "--end-behavior"),
        metadata=pairs(metadata),
    )
    if origin.startswith("sub_"):
        request.from_subscription = origin
    else:
        request.customer = origin
    if start:
        request.start_date.CopyFrom(instant(start, "--start"))
    show(context, lambda client: client.schedules.CreateSubscriptionSchedule(request))


@app.command("show")
def show_schedule(context: typer.Context, identifier: Identifier) -> None:
    """Show a schedule with its phases."""
    request = GetSubscriptionScheduleRequest(id=identifier)
    show(context, lambda client: client.schedules.GetSubscriptionSchedule(request))


@app.command("list")
def list_schedules(
    context: typer.Context,
    customer: CustomerFilter = "",
    status: Annotated[list[str] | None, typer.Option(help="Only in this status, such as active; repeatable.")] = None,
    subscription: Annotated[str, typer.Option(help="Only those of this subscription.")] = "",
    test_clock: Annotated[str, typer.Option(help="Only those on this test clock.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List schedules, newest first, ended ones too."""
    request = ListSubscriptionSchedulesRequest(
        customer=customer,
        statuses=[enum_value(SubscriptionScheduleStatus, word, "--status") for word in status or ()],
        subscription=subscription,
        test_clock=test_clock,
    )
    run(
        context,
        lambda session: session.list(
            session.client.schedules.ListSubscriptionSchedules,
            request,
            lambda page: page.subscription_schedules,
            limit,
        ),
    )


@app.command()
def update(
    context: typer.Context,
    identifier: Identifier,
    phase: Phases = None,
    end_behavior: EndBehavior = "",
    proration_behavior: Annotated[str, typer.Option(help="create_prorations, always_invoice or none.")] = "",
    metadata: Metadata = None,
) -> None:
    """Change a schedule; phases take the place of the current and all later ones."""
    request = UpdateSubscriptionScheduleRequest(
        id=identifier,
        phases=_phases(phase or ()),
        proration_behavior=enum_value(ProrationBehavior, proration_behavior, "--proration-behavior"),
        metadata=pairs(metadata),
    )
    if end_behavior:
        request.end_behavior = enum_value(ScheduleEndBehavior, end_behavior, "--end-behavior")
    show(context, lambda client: client.schedules.UpdateSubscriptionSchedule(request))


@app.command()
def cancel(
    context: typer.Context,
    identifier: Identifier,
    invoice_now: Annotated[bool, typer.Option("--invoice-now/--no-invoice", help="Make a final invoice.")] = True,
    prorate: Annotated[bool, typer.Option("--prorate/--no-credit", help="Give credit for the time left.")] = True,
) -> None:
    """Cancel a schedule, and its subscription with it."""
    request = CancelSubscriptionScheduleRequest(id=identifier, invoice_now=invoice_now, prorate=prorate)
    show(context, lambda client: client.schedules.CancelSubscriptionSchedule(request))


@app.command()
def release(
    context: typer.Context,
    identifier: Identifier,
    keep_end: Annotated[bool, typer.Option("--keep-end", help="Leave the subscription the end that was set.")] = False,
) -> None:
    """End a schedule; its subscription lives on."""
    request = ReleaseSubscriptionScheduleRequest(id=identifier, preserve_cancel_date=keep_end)
    show(context, lambda client: client.schedules.ReleaseSubscriptionSchedule(request))


# --- phases as they are typed


def _phases(texts: Sequence[str]) -> list[PhaseParams]:
    return [_phase(text) for text in texts]


def _phase(text: str) -> PhaseParams:
    phase = PhaseParams()
    for part in text.split(","):
        word, _, value = part.strip().partition("=")
        setter = _WORDS.get(word)
        if setter is None:
            raise typer.BadParameter(f"{word!r} is none of {', '.join(_WORDS)}.", param_hint="--phase")
        setter(phase, value)
    return phase


def _set_price(phase: PhaseParams, value: str) -> None:
    price, _, quantity = value.partition(":")
    phase.items.append(PhaseItem(price=price, quantity=_count(quantity) if quantity else None))


def _set_iterations(phase: PhaseParams, value: str) -> None:
    phase.iterations = _count(value)


def _set_duration(phase: PhaseParams, value: str) -> None:
    digits = value.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = value[len(digits) :].removesuffix("s")
    interval = enum_value(Interval, unit, "--phase")
    phase.duration.CopyFrom(PhaseDuration(interval=interval, interval_count=_count(digits or "1")))


def _set_end(phase: PhaseParams, value: str) -> None:
    phase.end_date.CopyFrom(instant(value, "--phase", int(time.time())))


def _set_trial(phase: PhaseParams, value: str) -> None:
    if value:
        raise typer.BadParameter("trial takes no value; see trial_end.", param_hint="--phase")
    phase.trial = True


def _set_trial_end(phase: PhaseParams, value: str) -> None:
    phase.trial_end.CopyFrom(instant(value, "--phase", int(time.time())))


def _set_proration(phase: PhaseParams, value: str) -> None:
    phase.proration_behavior = enum_value(ProrationBehavior, value, "--phase")


def _set_anchor(phase: PhaseParams, value: str) -> None:
    phase.billing_cycle_anchor = enum_value(PhaseBillingCycleAnchor, value, "--phase")


def _set_days_until_due(phase: PhaseParams, value: str) -> None:
    phase.collection_method = CollectionMethod.COLLECTION_METHOD_SEND_INVOICE
    phase.days_until_due = _count(value)


def _count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number.", param_hint="--phase") from None


_WORDS: Final[Mapping[str, Callable[[PhaseParams, str], None]]] = {
    "price": _set_price,
    "iterations": _set_iterations,
    "for": _set_duration,
    "until": _set_end,
    "trial": _set_trial,
    "trial_end": _set_trial_end,
    "proration": _set_proration,
    "anchor": _set_anchor,
    "days_until_due": _set_days_until_due,
}
