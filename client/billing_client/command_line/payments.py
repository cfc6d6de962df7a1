"""`billing payments`: payment intents, the attempts behind them, refunds."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.payment_model_pb2 import PaymentIntentStatus, RefundReason
from billing.v1.payment_service_pb2 import (
    ConfirmPaymentIntentRequest,
    CreateRefundRequest,
    GetPaymentIntentRequest,
    ListPaymentAttemptsRequest,
    ListPaymentIntentsRequest,
    ListRefundsRequest,
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

app = typer.Typer(help="Payments and refunds.", no_args_is_help=True)


@app.command("list")
def list_payments(
    context: typer.Context,
    customer: CustomerFilter = "",
    invoice: Annotated[str, typer.Option(help="Only that of this invoice.")] = "",
    status: Annotated[str, typer.Option(help="Only in this status, such as requires_action.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List payment intents, newest first."""
    request = ListPaymentIntentsRequest(
        customer=customer, invoice=invoice, status=enum_value(PaymentIntentStatus, status, "--status")
    )
    run(
        context,
        lambda session: session.list(
            session.client.payments.ListPaymentIntents, request, lambda page: page.payment_intents, limit
        ),
    )


@app.command("show")
def show_payment(context: typer.Context, identifier: Identifier) -> None:
    """Show a payment intent with its attempts and refunds."""

    async def work(session: Session) -> None:
        payments = session.client.payments
        session.output.message(await payments.GetPaymentIntent(GetPaymentIntentRequest(id=identifier)))
        attempts = await payments.ListPaymentAttempts(ListPaymentAttemptsRequest(payment_intent=identifier))
        refunds = await payments.ListRefunds(ListRefundsRequest(payment_intent=identifier))
        if session.output.as_json:
            return
        if attempts.payment_attempts:
            session.output.messages(attempts.payment_attempts, title="attempts")
        if refunds.refunds:
            session.output.messages(refunds.refunds, title="refunds")

    run(context, work)


@app.command()
def attempts(
    context: typer.Context,
    invoice: Annotated[str, typer.Option(help="Only those of this invoice.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List payment attempts, newest first, with outcome and decline code."""
    request = ListPaymentAttemptsRequest(invoice=invoice)
    run(
        context,
        lambda session: session.list(
            session.client.payments.ListPaymentAttempts, request, lambda page: page.payment_attempts, limit
        ),
    )


@app.command()
def confirm(
    context: typer.Context,
    identifier: Identifier,
    payment_method: Annotated[str, typer.Option(help="Id of the payment method to charge.")] = "",
    off_session: Annotated[bool, typer.Option("--off-session", help="The customer is absent.")] = False,
) -> None:
    """Try to collect a payment intent that waits for it."""
    request = ConfirmPaymentIntentRequest(id=identifier, payment_method=payment_method, off_session=off_session)
    show(context, lambda client: client.payments.ConfirmPaymentIntent(request))


@app.command()
def refund(
    context: typer.Context,
    identifier: Identifier,
    amount: Annotated[str, typer.Option(help="How much, such as 5.00; all that is left without it.")] = "",
    reason: Annotated[str, typer.Option(help="duplicate, fraudulent or requested_by_customer.")] = "",
    metadata: Metadata = None,
) -> None:
    """Give back what a payment intent collected, in whole or in part."""

    async def work(session: Session) -> None:
        payments = session.client.payments
        request = CreateRefundRequest(
            payment_intent=identifier,
            reason=enum_value(RefundReason, reason, "--reason"),
            metadata=pairs(metadata),
        )
        if amount:
            intent = await payments.GetPaymentIntent(GetPaymentIntentRequest(id=identifier))
            request.amount = money(amount, intent.currency, "--amount")
        session.output.message(await payments.CreateRefund(request))

    run(context, work)
