"""`billing payment-methods`: ways to pay, attached to customers."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.customer_model_pb2 import PaymentMethodType
from billing.v1.customer_service_pb2 import (
    AttachPaymentMethodRequest,
    DetachPaymentMethodRequest,
    ListPaymentMethodsRequest,
)
from billing_client.command_line.options import LIST_LIMIT, Identifier, Limit, Metadata, enum_value, pairs
from billing_client.command_line.session import run, show

app = typer.Typer(help="Payment methods of customers.", no_args_is_help=True)

Customer = Annotated[str, typer.Argument(help="Id of the customer.", show_default=False)]


@app.command()
def attach(
    context: typer.Context,
    customer: Customer,
    token: Annotated[
        str, typer.Argument(help="What the gateway knows it by, such as pm_card_visa.", show_default=False)
    ],
    default: Annotated[bool, typer.Option("--default/--no-default", help="Make it the default.")] = True,
    kind: Annotated[
        str, typer.Option("--type", help="card, us_bank_account, sepa_debit or customer_balance.")
    ] = "card",
    metadata: Metadata = None,
) -> None:
    """Attach a payment method, as the customer's default unless told otherwise."""
    request = AttachPaymentMethodRequest(
        customer=customer,
        token=token,
        set_default=default,
        type=enum_value(PaymentMethodType, kind, "--type"),
        metadata=pairs(metadata),
    )
    show(context, lambda client: client.customers.AttachPaymentMethod(request))


@app.command("list")
def list_payment_methods(context: typer.Context, customer: Customer, limit: Limit = LIST_LIMIT) -> None:
    """List the payment methods of a customer, newest first."""
    run(
        context,
        lambda session: session.list(
            session.client.customers.ListPaymentMethods,
            ListPaymentMethodsRequest(customer=customer),
            lambda page: page.payment_methods,
            limit,
        ),
    )


@app.command()
def detach(context: typer.Context, identifier: Identifier) -> None:
    """Detach a payment method for good."""
    request = DetachPaymentMethodRequest(id=identifier)
    show(context, lambda client: client.customers.DetachPaymentMethod(request))
