"""`billing products`: what is sold."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.catalog_service_pb2 import CreateProductRequest, GetProductRequest, ListProductsRequest
from billing_client.command_line.options import LIST_LIMIT, Identifier, Limit, Metadata, pairs
from billing_client.command_line.session import run, show

app = typer.Typer(help="Products.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name for customers to read.", show_default=False)],
    description: Annotated[str, typer.Option(help="Description for customers to read.")] = "",
    statement_descriptor: Annotated[str, typer.Option(help="Text on bank statements.")] = "",
    unit_label: Annotated[str, typer.Option(help="What one unit is called.")] = "",
    metadata: Metadata = None,
) -> None:
    """Create a product."""
    request = CreateProductRequest(
        name=name,
        description=description,
        statement_descriptor=statement_descriptor,
        unit_label=unit_label,
        metadata=pairs(metadata),
    )
    show(context, lambda client: client.catalog.CreateProduct(request))


@app.command("list")
def list_products(
    context: typer.Context,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only active or inactive ones.")] = None,
    limit: Limit = LIST_LIMIT,
) -> None:
    """List products, newest first."""
    run(
        context,
        lambda session: session.list(
            session.client.catalog.ListProducts,
            ListProductsRequest(active=active),
            lambda page: page.products,
            limit,
        ),
    )


@app.command("show")
def show_product(context: typer.Context, identifier: Identifier) -> None:
    """Show a product."""
    show(context, lambda client: client.catalog.GetProduct(GetProductRequest(id=identifier)))
