"""`billing subscriptions`: agreements to be billed, and previews of what they will cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1.customer_service_pb2 import GetCustomerRequest
from billing.v1.subscription_model_pb2 import (
    CancellationFeedback,
    CollectionMethod,
    PaymentBehavior,
    ProrationBehavior,
    SubscriptionStatus,
)
from billing.v1.subscription_service_pb2 import (
    CancelSubscriptionRequest,
    CreateSubscriptionRequest,
    GetSubscriptionRequest,
    ItemChange,
    ItemParams,
    ListSubscriptionsRequest,
    PreviewSubscriptionInvoiceRequest,
    ResumeAnchor,
    ResumeSubscriptionRequest,
    UpdateSubscriptionRequest,
)
from billing.v1.test_clock_service_pb2 import GetTestClockRequest
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
from billing_client.command_line.session import Session, run, show

app = typer.Typer(help="Subscriptions.", no_args_is_help=True)

_BEHAVIORS = "create_prorations, always_invoice or none."
_PAYMENTS = "allow_incomplete, default_incomplete, error_if_incomplete or, in updates, pending_if_incomplete."

Items = Annotated[list[str] | None, typer.Option("--price", help="PRICE or PRICE=QUANTITY; may be repeated.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--item", help="ITEM=PRICE[:QUANTITY], ITEM=:QUANTITY, ITEM=deleted; may be repeated."),
]
Proration = Annotated[str, typer.Option(help=_BEHAVIORS)]
Payment = Annotated[str, typer.Option(help=_PAYMENTS)]


@app.command()
def create(
    context: typer.Context,
    customer: Annotated[str, typer.Argument(help="Id of the customer.", show_default=False)],
    price: Items = None,
    currency: Annotated[str, typer.Option(help="ISO 4217 code; else the customer's, or the price's own.")] = "",
    days_until_due: Annotated[
        int | None, typer.Option(help="Send invoices, due after so many days, instead of charging.")
    ] = None,
    payment_behavior: Payment = "",
    proration_behavior: Proration = "",
    billing_cycle_anchor: Annotated[str, typer.Option(help="When periods begin, at most one ahead.")] = "",
    cancel_at: Annotated[str, typer.Option(help="When it ends.")] = "",
    trial_end: Annotated[str, typer.Option(help="When its trial ends.")] = "",
    trial_days: Annotated[int | None, typer.Option(help="Length of its trial.", min=1)] = None,
    payment_method: Annotated[str, typer.Option(help="Id of the payment method to charge.")] = "",
    description: Annotated[str, typer.Option(help="Description for customers to read.")] = "",
    metadata: Metadata = None,
) -> None:
    """Create a subscription; steps such as +30d count from the customer's own time."""
    request = CreateSubscriptionRequest(
        customer=customer,
        items=_items(price or ()),
        currency=currency.lower(),
        collection_method=_collection(days_until_due),
        days_until_due=days_until_due,
        payment_behavior=enum_value(PaymentBehavior, payment_behavior, "--payment-behavior"),
        proration_behavior=enum_value(ProrationBehavior, proration_behavior, "--proration-behavior"),
        trial_period_days=trial_days,
        default_payment_method=payment_method,
        description=description,
        metadata=pairs(metadata),
    )

    async def work(session: Session) -> None:
        moments = await moments_of(
            session,
            customer,
            {"billing_cycle_anchor": billing_cycle_anchor, "cancel_at": cancel_at, "trial_end": trial_end},
        )
        for name, moment in moments.items():
            getattr(request, name).CopyFrom(moment)
        session.output.message(await session.client.subscriptions.CreateSubscription(request))

    run(context, work)


@app.command("show")
def show_subscription(context: typer.Context, identifier: Identifier) -> None:
    """Show a subscription with its items."""
    request = GetSubscriptionRequest(id=identifier)
    show(context, lambda client: client.subscriptions.GetSubscription(request))


@app.command("list")
def list_subscriptions(
    context: typer.Context,
    customer: CustomerFilter = "",
    status: Annotated[
        list[str] | None, typer.Option(help="Only in this status, such as past_due; may be repeated.")
    ] = None,
    price: Annotated[str, typer.Option(help="Only with an item of this price.")] = "",
    test_clock: Annotated[str, typer.Option(help="Only those on this test clock.")] = "",
    ended: Annotated[bool, typer.Option("--ended", help="List those that ended as well.")] = False,
    limit: Limit = LIST_LIMIT,
) -> None:
    """List subscriptions, newest first."""
    request = ListSubscriptionsRequest(
        customer=customer,
        statuses=[enum_value(SubscriptionStatus, word, "--status") for word in status or ()],
        price=price,
        test_clock=test_clock,
        include_ended=ended,
    )
    run(
        context,
        lambda session: session.list(
            session.client.subscriptions.ListSubscriptions, request, lambda page: page.subscriptions, limit
        ),
    )


@app.command()
def update(
    context: typer.Context,
    identifier: Identifier,
    item: Changes = None,
    price: Items = None,
    proration_behavior: Proration = "",
    payment_behavior: Payment = "",
    anchor_now: Annotated[bool, typer.Option("--anchor-now", help="Begin a new period now.")] = False,
    cancel_at: Annotated[str, typer.Option(help="When it ends; none takes that back.")] = "",
    cancel_at_period_end: Annotated[
        bool | None, typer.Option("--cancel-at-period-end/--keep", help="End it with its period, or not.")
    ] = None,
    days_until_due: Annotated[int | None, typer.Option(help="Send later invoices, due after so many days.")] = None,
    charge_automatically: Annotated[
        bool, typer.Option("--charge-automatically", help="Charge later invoices.")
    ] = False,
    payment_method: Annotated[str | None, typer.Option(help="Id of the payment method to charge.")] = None,
    description: Annotated[str | None, typer.Option(help="Description for customers to read.")] = None,
    metadata: Metadata = None,
) -> None:
    """Change a subscription; what is not named stays. --price adds an item, --item changes one."""
    request = UpdateSubscriptionRequest(
        id=identifier,
        items=[*_changes(item or ()), *_additions(price or ())],
        proration_behavior=enum_value(ProrationBehavior, proration_behavior, "--proration-behavior"),
        payment_behavior=enum_value(PaymentBehavior, payment_behavior, "--payment-behavior"),
        billing_cycle_anchor_now=anchor_now,
        cancel_at_period_end=cancel_at_period_end,
        days_until_due=days_until_due,
        default_payment_method=payment_method,
        description=description,
        metadata=pairs(metadata),
    )
    if days_until_due is not None:
        request.collection_method = CollectionMethod.COLLECTION_METHOD_SEND_INVOICE
    if charge_automatically:
        request.collection_method = CollectionMethod.COLLECTION_METHOD_CHARGE_AUTOMATICALLY

    async def work(session: Session) -> None:
        subscriptions = session.client.subscriptions
        if cancel_at == "none":
            _clear(request, "cancel_at")
        elif cancel_at:
            found = await subscriptions.GetSubscription(GetSubscriptionRequest(id=identifier))
            moments = await moments_of(session, found.customer, {"cancel_at": cancel_at})
            request.cancel_at.CopyFrom(moments["cancel_at"])
        session.output.message(await subscriptions.UpdateSubscription(request))

    run(context, work)


@app.command()
def cancel(
    context: typer.Context,
    identifier: Identifier,
    at_period_end: Annotated[
        bool, typer.Option("--at-period-end", help="End it with its period instead of now.")
    ] = False,
    invoice_now: Annotated[bool, typer.Option("--invoice-now", help="Make a final invoice.")] = False,
    prorate: Annotated[bool, typer.Option("--prorate", help="Give credit for the time left.")] = False,
    comment: Annotated[str, typer.Option(help="Words of the customer.")] = "",
    feedback: Annotated[str, typer.Option(help="Such as too_expensive, unused or other.")] = "",
) -> None:
    """Cancel a subscription, now or with its period."""
    said = enum_value(CancellationFeedback, feedback, "--feedback")
    if at_period_end:
        update_request = UpdateSubscriptionRequest(id=identifier, cancel_at_period_end=True)
        if comment:
            update_request.cancellation_comment = comment
        if said:
            update_request.cancellation_feedback = said
        show(context, lambda client: client.subscriptions.UpdateSubscription(update_request))
        return
    request = CancelSubscriptionRequest(
        id=identifier, invoice_now=invoice_now, prorate=prorate, comment=comment, feedback=said
    )
    show(context, lambda client: client.subscriptions.CancelSubscription(request))


@app.command()
def resume(
    context: typer.Context,
    identifier: Identifier,
    unchanged: Annotated[
        bool, typer.Option("--keep-anchor", help="Go on along the old cycle instead of a new one.")
    ] = False,
    proration_behavior: Proration = "",
) -> None:
    """Resume a subscription whose status is paused."""
    anchor = ResumeAnchor.RESUME_ANCHOR_UNCHANGED if unchanged else ResumeAnchor.RESUME_ANCHOR_NOW
    request = ResumeSubscriptionRequest(
        id=identifier,
        billing_cycle_anchor=anchor,
        proration_behavior=enum_value(ProrationBehavior, proration_behavior, "--proration-behavior"),
    )
    show(context, lambda client: client.subscriptions.ResumeSubscription(request))


@app.command()
def preview(
    context: typer.Context,
    identifier: Annotated[
        str, typer.Argument(help="Id of a subscription; with --price alone, of a customer.", show_default=False)
    ],
    item: Changes = None,
    price: Items = None,
    proration_behavior: Proration = "",
    cancel_now: Annotated[bool, typer.Option("--cancel", help="The final invoice if canceled now.")] = False,
) -> None:
    """Show the next invoice of a subscription, or what a change of it would bill; nothing changes."""
    behavior = enum_value(ProrationBehavior, proration_behavior, "--proration-behavior")
    request = PreviewSubscriptionInvoiceRequest()
    if cancel_now:
        request.cancel.CopyFrom(CancelSubscriptionRequest(id=identifier, invoice_now=True, prorate=True))
    elif identifier.startswith("cus_"):
        request.create.CopyFrom(
            CreateSubscriptionRequest(customer=identifier, items=_items(price or ()), proration_behavior=behavior)
        )
    elif item or price:
        request.update.CopyFrom(
            UpdateSubscriptionRequest(
                id=identifier,
                items=[*_changes(item or ()), *_additions(price or ())],
                proration_behavior=behavior,
            )
        )
    else:
        request.subscription = identifier
    show(context, lambda client: client.subscriptions.PreviewSubscriptionInvoice(request))


def _items(texts: Sequence[str]) -> list[ItemParams]:
    return [ItemParams(price=change.price, quantity=_quantity_of(change)) for change in _additions(texts)]


def _quantity_of(change: ItemChange) -> int | None:
    return change.quantity if change.HasField("quantity") else None


def _additions(texts: Sequence[str]) -> list[ItemChange]:
    additions = []
    for text in texts:
        price, _, quantity = text.partition("=")
        additions.append(ItemChange(price=price, quantity=_quantity(quantity, "--price")))
    return additions


def _changes(texts: Sequence[str]) -> list[ItemChange]:
    changes = []
    for item, change in pairs(texts, "--item").items():
        if change == "deleted":
            changes.append(ItemChange(id=item, deleted=True))
            continue
        price, _, quantity = change.partition(":")
        changes.append(ItemChange(id=item, price=price, quantity=_quantity(quantity, "--item")))
    return changes


def _quantity(text: str, option: str) -> int | None:
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number.", param_hint=option) from None


def _collection(days_until_due: int | None) -> CollectionMethod.ValueType:
    if days_until_due is None:
        return CollectionMethod.COLLECTION_METHOD_CHARGE_AUTOMATICALLY
    return CollectionMethod.COLLECTION_METHOD_SEND_INVOICE


def _clear(request: UpdateSubscriptionRequest, field: str) -> None:
    """Name all fields to change in the mask, one of them being cleared."""
    always = {"id", "etag", "update_mask"}
    named = [descriptor.name for descriptor, _ in request.ListFields() if descriptor.name not in always]
    request.update_mask.CopyFrom(FieldMask(paths=[*named, field]))


async def moments_of(session: Session, customer: str, texts: dict[str, str]) -> dict[str, Timestamp]:
    """The instants that were typed, steps counted from the customer's test clock if it is on one."""
    wanted = {name: text for name, text in texts.items() if text}
    now = int(time.time())
    if any(text.startswith("+") for text in wanted.values()):
        found = await session.client.customers.GetCustomer(GetCustomerRequest(id=customer))
        if found.test_clock:
            clock = await session.client.test_clocks.GetTestClock(GetTestClockRequest(id=found.test_clock))
            now = clock.frozen_time.seconds
    return {name: instant(text, f"--{name.replace('_', '-')}", now=now) for name, text in wanted.items()}
