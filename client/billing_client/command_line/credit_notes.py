"""`billing credit-notes`: less to pay, or money back."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.invoice_model_pb2 import CreditNoteReason, InvoiceStatus
from billing.v1.invoice_service_pb2 import (
    CreateCreditNoteRequest,
    GetInvoiceRequest,
    ListCreditNotesRequest,
    VoidCreditNoteRequest,
)
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

app = typer.Typer(help="Credit notes.", no_args_is_help=True)

_WAYS_BACK = ("refund", "credit", "out_of_band")


@app.command()
def create(
    context: typer.Context,
    invoice: Annotated[str, typer.Argument(help="Id of a finalized invoice.", show_default=False)],
    amount: Annotated[str, typer.Argument(help="How much, such as 5.00.", show_default=False)],
    give_back: Annotated[str, typer.Option(help="Of a paid invoice: as refund, as credit, or out_of_band.")] = "credit",
    reason: Annotated[str, typer.Option(help="duplicate, fraudulent, order_change or product_unsatisfactory.")] = "",
    memo: Annotated[str, typer.Option(help="Words for the customer.")] = "",
    metadata: Metadata = None,
) -> None:
    """Credit an invoice: it lowers what is due, or gives back what was paid."""
    if give_back not in _WAYS_BACK:
        raise typer.BadParameter(f"{give_back!r} is none of {', '.join(_WAYS_BACK)}.", param_hint="--give-back")

    async def work(session: Session) -> None:
        invoices = session.client.invoices
        found = await invoices.GetInvoice(GetInvoiceRequest(id=invoice))
        minor = money(amount, found.currency, "AMOUNT")
        paid = found.status == InvoiceStatus.INVOICE_STATUS_PAID
        request = CreateCreditNoteRequest(
            invoice=invoice,
            amount=minor,
            refund_amount=minor if paid and give_back == "refund" else 0,
            credit_amount=minor if paid and give_back == "credit" else 0,
            out_of_band_amount=minor if paid and give_back == "out_of_band" else 0,
            reason=enum_value(CreditNoteReason, reason, "--reason"),
            memo=memo,
            metadata=pairs(metadata),
        )
        session.output.message(await invoices.CreateCreditNote(request))

    run(context, work)


@app.command("list")
def list_credit_notes(
    context: typer.Context,
    customer: CustomerFilter = "",
    invoice: Annotated[str, typer.Option(help="Only those of this invoice.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List credit notes, newest first."""
    request = ListCreditNotesRequest(customer=customer, invoice=invoice)
    run(
        context,
        lambda session: session.list(
            session.client.invoices.ListCreditNotes, request, lambda page: page.credit_notes, limit
        ),
    )


@app.command()
def void(context: typer.Context, identifier: Identifier) -> None:
    """Take back a credit note of an invoice that is still open."""
    request = VoidCreditNoteRequest(id=identifier)
    show(context, lambda client: client.invoices.VoidCreditNote(request))
