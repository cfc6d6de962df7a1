"""`billing invoices` and `billing invoice-items`: requests for money, and what waits for one."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.invoice_model_pb2 import InvoiceStatus
from billing.v1.invoice_service_pb2 import (
    CreateInvoiceItemRequest,
    CreateInvoiceRequest,
    DeleteInvoiceItemRequest,
    DeleteInvoiceRequest,
    FinalizeInvoiceRequest,
    GetInvoiceRequest,
    ListInvoiceItemsRequest,
    ListInvoicesRequest,
    MarkInvoiceUncollectibleRequest,
    PayInvoiceRequest,
    PendingItemsBehavior,
    SendInvoiceRequest,
    VoidInvoiceRequest,
)
from billing.v1.subscription_model_pb2 import CollectionMethod
from billing_client.command_line.options import (
    LIST_LIMIT,
    CustomerFilter,
    Identifier,
    Limit,
    Metadata,
    enum_value,
    money,
    pairs,
)
from billing_client.command_line.session import Session, run, show

app = typer.Typer(help="Invoices.", no_args_is_help=True)
items = typer.Typer(help="Amounts that wait for an invoice.", no_args_is_help=True)

Customer = Annotated[str, typer.Argument(help="Id of the customer.", show_default=False)]


@app.command("list")
def list_invoices(
    context: typer.Context,
    customer: CustomerFilter = "",
    subscription: Annotated[str, typer.Option(help="Only those of this subscription.")] = "",
    status: Annotated[str, typer.Option(help="draft, open, paid, uncollectible or void.")] = "",
    collection_method: Annotated[str, typer.Option(help="charge_automatically or send_invoice.")] = "",
    overdue: Annotated[
        bool | None, typer.Option("--overdue/--not-overdue", help="Only open ones past their due date.")
    ] = None,
    limit: Limit = LIST_LIMIT,
) -> None:
    """List invoices, newest first."""
    request = ListInvoicesRequest(
        customer=customer,
        subscription=subscription,
        status=enum_value(InvoiceStatus, status, "--status"),
        collection_method=enum_value(CollectionMethod, collection_method, "--collection-method"),
        overdue=overdue,
    )
    run(
        context,
        lambda session: session.list(session.client.invoices.ListInvoices, request, lambda page: page.invoices, limit),
    )


@app.command("show")
def show_invoice(context: typer.Context, identifier: Identifier) -> None:
    """Show an invoice with its lines."""
    show(context, lambda client: client.invoices.GetInvoice(GetInvoiceRequest(id=identifier)))


@app.command()
def create(
    context: typer.Context,
    customer: Customer,
    subscription: Annotated[str, typer.Option(help="Take the pending items of this subscription.")] = "",
    currency: Annotated[str, typer.Option(help="Default: the customer's.")] = "",
    pending_items: Annotated[
        bool, typer.Option("--pending-items/--empty", help="Take pending items, or begin without lines.")
    ] = True,
    send: Annotated[bool, typer.Option("--send", help="Send it instead of charging it.")] = False,
    days_until_due: Annotated[int | None, typer.Option(help="With --send: days to its due date.")] = None,
    auto_advance: Annotated[
        bool, typer.Option("--auto-advance", help="Let the engine finalize and collect it.")
    ] = False,
    description: Annotated[str, typer.Option(help="Words for the customer.")] = "",
    metadata: Metadata = None,
) -> None:
    """Create a draft of pending items."""
    behavior = PendingItemsBehavior
    method = CollectionMethod
    request = CreateInvoiceRequest(
        customer=customer,
        subscription=subscription,
        currency=currency.lower(),
        collection_method=(
            method.COLLECTION_METHOD_SEND_INVOICE if send else method.COLLECTION_METHOD_CHARGE_AUTOMATICALLY
        ),
        days_until_due=days_until_due,
        auto_advance=auto_advance,
        pending_invoice_items_behavior=(
            behavior.PENDING_ITEMS_BEHAVIOR_INCLUDE if pending_items else behavior.PENDING_ITEMS_BEHAVIOR_EXCLUDE
        ),
        description=description,
        metadata=pairs(metadata),
    )
    show(context, lambda client: client.invoices.CreateInvoice(request))


@app.command()
def finalize(context: typer.Context, identifier: Identifier) -> None:
    """Finalize a draft: it gets its number, and becomes open or paid."""
    request = FinalizeInvoiceRequest(id=identifier)
    show(context, lambda client: client.invoices.FinalizeInvoice(request))


@app.command()
def pay(
    context: typer.Context,
    identifier: Identifier,
    payment_method: Annotated[str, typer.Option(help="Id of the payment method to charge.")] = "",
    out_of_band: Annotated[
        bool, typer.Option("--out-of-band", help="Charge nothing: it was paid by other means.")
    ] = False,
    on_session: Annotated[
        bool, typer.Option("--on-session", help="The customer is present, and can authenticate.")
    ] = False,
) -> None:
    """Pay an invoice now."""
    request = PayInvoiceRequest(
        id=identifier,
        payment_method=payment_method,
        paid_out_of_band=out_of_band,
        off_session=not on_session,
    )
    show(context, lambda client: client.invoices.PayInvoice(request))


@app.command()
def send(context: typer.Context, identifier: Identifier) -> None:
    """Send an invoice to the customer, finalizing it first if need be."""
    show(context, lambda client: client.invoices.SendInvoice(SendInvoiceRequest(id=identifier)))


@app.command()
def void(context: typer.Context, identifier: Identifier) -> None:
    """Void an open or uncollectible invoice for good."""
    show(context, lambda client: client.invoices.VoidInvoice(VoidInvoiceRequest(id=identifier)))


@app.command("mark-uncollectible")
def mark_uncollectible(context: typer.Context, identifier: Identifier) -> None:
    """Give an open invoice up."""
    request = MarkInvoiceUncollectibleRequest(id=identifier)
    show(context, lambda client: client.invoices.MarkInvoiceUncollectible(request))


@app.command()
def delete(context: typer.Context, identifier: Identifier) -> None:
    """Delete a draft that belongs to no subscription."""

    async def work(session: Session) -> None:
        await session.client.invoices.DeleteInvoice(DeleteInvoiceRequest(id=identifier))
        session.output.note(f"{identifier} is deleted.")

    run(context, work)


@items.command("create")
def create_item(
    context: typer.Context,
    customer: Customer,
    amount: Annotated[str, typer.Option(help="How much, such as 25.00; -5.00 gives credit.")] = "",
    price: Annotated[str, typer.Option(help="Id of a one-time price instead of an amount.")] = "",
    quantity: Annotated[int | None, typer.Option(help="With --price: how many units.")] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217 code of the amount.")] = "usd",
    description: Annotated[str, typer.Option(help="Words for the customer.")] = "",
    invoice: Annotated[str, typer.Option(help="Id of a draft to put it on; else it waits.")] = "",
    subscription: Annotated[str, typer.Option(help="Id of the subscription whose invoice takes it.")] = "",
    metadata: Metadata = None,
) -> None:
    """Create an invoice item: of an amount, or of a one-time price."""
    if bool(amount) == bool(price):
        raise typer.BadParameter("give either an amount or a price.", param_hint="--amount")
    request = CreateInvoiceItemRequest(
        customer=customer,
        amount=money(amount, currency, "--amount") if amount else None,
        price=price,
        quantity=quantity,
        currency=currency.lower() if amount else "",
        description=description,
        invoice=invoice,
        subscription=subscription,
        metadata=pairs(metadata),
    )
    show(context, lambda client: client.invoices.CreateInvoiceItem(request))


@items.command("list")
def list_items(
    context: typer.Context,
    customer: CustomerFilter = "",
    invoice: Annotated[str, typer.Option(help="Only those on this invoice.")] = "",
    pending: Annotated[
        bool | None, typer.Option("--pending/--billed", help="Only those that wait, or that are billed.")
    ] = None,
    limit: Limit = LIST_LIMIT,
) -> None:
    """List invoice items, newest first."""
    request = ListInvoiceItemsRequest(customer=customer, invoice=invoice, pending=pending)
    run(
        context,
        lambda session: session.list(
            session.client.invoices.ListInvoiceItems, request, lambda page: page.invoice_items, limit
        ),
    )


@items.command("delete")
def delete_item(context: typer.Context, identifier: Identifier) -> None:
    """Delete an invoice item that waits or is on a draft."""

    async def work(session: Session) -> None:
        await session.client.invoices.DeleteInvoiceItem(DeleteInvoiceItemRequest(id=identifier))
        session.output.note(f"{identifier} is deleted.")

    run(context, work)
