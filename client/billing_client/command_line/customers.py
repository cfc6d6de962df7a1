"""`billing customers`: who pays, and their balance."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.customer_service_pb2 import (
    AdjustBalanceRequest,
    AttachPaymentMethodRequest,
    CreateCustomerRequest,
    DeleteCustomerRequest,
    GetCustomerRequest,
    ListBalanceTransactionsRequest,
    ListCustomersRequest,
    UpdateCustomerRequest,
)
from billing_client.command_line.options import LIST_LIMIT, Identifier, Limit, Metadata, money, pairs
from billing_client.command_line.session import Session, run, show

app = typer.Typer(help="Customers and their balance.", no_args_is_help=True)

Email = Annotated[str | None, typer.Option(help="E-mail address.")]
Name = Annotated[str | None, typer.Option(help="Name on invoices.")]
Phone = Annotated[str | None, typer.Option(help="Telephone number.")]
Description = Annotated[str | None, typer.Option(help="Note for the account's own people.")]


@app.command()
def create(
    context: typer.Context,
    email: Email = None,
    name: Name = None,
    phone: Phone = None,
    description: Description = None,
    test_clock: Annotated[str, typer.Option(help="Id of the test clock that its time follows.")] = "",
    payment_method: Annotated[
        str, typer.Option(help="Token of a payment method to attach as default, such as pm_card_visa.")
    ] = "",
    metadata: Metadata = None,
) -> None:
    """Create a customer, with a payment method if one is named."""
    request = CreateCustomerRequest(
        email=email or "",
        name=name or "",
        phone=phone or "",
        description=description or "",
        test_clock=test_clock,
        metadata=pairs(metadata),
    )

    async def work(session: Session) -> None:
        customers = session.client.customers
        customer = await customers.CreateCustomer(request)
        if payment_method:
            await customers.AttachPaymentMethod(
                AttachPaymentMethodRequest(customer=customer.id, token=payment_method, set_default=True)
            )
            customer = await customers.GetCustomer(GetCustomerRequest(id=customer.id))
        session.output.message(customer)

    run(context, work)


@app.command("show")
def show_customer(context: typer.Context, identifier: Identifier) -> None:
    """Show a customer."""
    show(context, lambda client: client.customers.GetCustomer(GetCustomerRequest(id=identifier)))


@app.command("list")
def list_customers(
    context: typer.Context,
    email: Annotated[str, typer.Option(help="Only with exactly this address.")] = "",
    test_clock: Annotated[str, typer.Option(help="Only those on this test clock.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """List customers, newest first."""
    request = ListCustomersRequest(email=email, test_clock=test_clock)
    run(
        context,
        lambda session: session.list(
            session.client.customers.ListCustomers, request, lambda page: page.customers, limit
        ),
    )


@app.command()
def update(
    context: typer.Context,
    identifier: Identifier,
    email: Email = None,
    name: Name = None,
    phone: Phone = None,
    description: Description = None,
    default_payment_method: Annotated[str | None, typer.Option(help="Id of one of its payment methods.")] = None,
    metadata: Metadata = None,
) -> None:
    """Change a customer; what is not named stays. Metadata is merged, and KEY= removes a key."""
    request = UpdateCustomerRequest(
        id=identifier,
        email=email,
        name=name,
        phone=phone,
        description=description,
        default_payment_method=default_payment_method,
        metadata=pairs(metadata),
    )
    show(context, lambda client: client.customers.UpdateCustomer(request))


@app.command()
def delete(context: typer.Context, identifier: Identifier) -> None:
    """Delete a customer: its subscriptions end, its payment methods are detached."""
    show(context, lambda client: client.customers.DeleteCustomer(DeleteCustomerRequest(id=identifier)))


@app.command()
def balance(
    context: typer.Context,
    identifier: Identifier,
    adjust: Annotated[str, typer.Option(help="Change it first: -10.00 gives credit of 10.00, 10.00 takes it.")] = "",
    currency: Annotated[str, typer.Option(help="Needed while the customer has none yet.")] = "",
    description: Annotated[str, typer.Option(help="Note for people to read.")] = "",
    limit: Limit = LIST_LIMIT,
) -> None:
    """Show the changes of a customer's balance, newest first; or make one."""

    async def work(session: Session) -> None:
        customers = session.client.customers
        if not adjust:
            request = ListBalanceTransactionsRequest(customer=identifier)
            await session.list(
                customers.ListBalanceTransactions, request, lambda page: page.balance_transactions, limit
            )
            return
        customer = await customers.GetCustomer(GetCustomerRequest(id=identifier))
        unit = (currency or customer.currency or "usd").lower()
        session.output.message(
            await customers.AdjustBalance(
                AdjustBalanceRequest(
                    customer=identifier,
                    amount=money(adjust, unit, "--adjust"),
                    currency=currency.lower(),
                    description=description,
                )
            )
        )

    run(context, work)
