"""`billing prices`: what products cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from billing.v1.catalog_model_pb2 import (
    BillingScheme,
    CurrencyOption,
    Interval,
    Recurring,
    Tier,
    TiersMode,
    TransformQuantity,
    TransformQuantityRound,
)
from billing.v1.catalog_service_pb2 import CreatePriceRequest, GetPriceRequest, ListPricesRequest
from billing_client.command_line.options import (
    LIST_LIMIT,
    Identifier,
    Limit,
    Metadata,
    enum_value,
    money,
    pairs,
    unit_amount,
)
from billing_client.command_line.session import run, show

app = typer.Typer(help="Prices.", no_args_is_help=True)


@app.command()
def create(
    context: typer.Context,
    product: Annotated[str, typer.Option(help="Id of the product.", show_default=False)],
    amount: Annotated[str, typer.Option(help="Price of one unit, such as 29.85.")] = "",
    currency: Annotated[str, typer.Option(help="ISO 4217 code.")] = "usd",
    interval: Annotated[str, typer.Option(help="day, week, month or year; once makes a one-time price.")] = "month",
    interval_count: Annotated[int, typer.Option(help="Intervals in a period.", min=1)] = 1,
    tier: Annotated[
        list[str] | None,
        typer.Option(help="UP_TO:UNIT_PRICE[:FLAT], lowest first, the last UP_TO being inf; may be repeated."),
    ] = None,
    tiers_mode: Annotated[str, typer.Option(help="graduated or volume.")] = "graduated",
    divide_by: Annotated[int | None, typer.Option(help="Units in a package.", min=1)] = None,
    package_round: Annotated[str, typer.Option(help="Packages that are not full: up or down.")] = "up",
    nickname: Annotated[str, typer.Option(help="Name for the account's own people.")] = "",
    lookup_key: Annotated[str, typer.Option(help="Name that applications find it by.")] = "",
    also: Annotated[
        list[str] | None, typer.Option(help="CURRENCY=AMOUNT in another currency, such as eur=27.00; may be repeated.")
    ] = None,
    metadata: Metadata = None,
) -> None:
    """Create a price: per unit, or in tiers."""
    if bool(amount) == bool(tier):
        raise typer.BadParameter("give either an amount or tiers.", param_hint="--amount")
    request = CreatePriceRequest(
        product=product,
        currency=currency.lower(),
        nickname=nickname,
        lookup_key=lookup_key,
        metadata=pairs(metadata),
    )
    if interval != "once":
        kind = enum_value(Interval, interval, "--interval")
        request.recurring.CopyFrom(Recurring(interval=kind, interval_count=interval_count))
    if tier:
        request.billing_scheme = BillingScheme.BILLING_SCHEME_TIERED
        request.tiers_mode = enum_value(TiersMode, tiers_mode, "--tiers-mode")
        request.tiers.extend(_tiers(tier, currency))
        if also:
            raise typer.BadParameter("takes no tiers; create such a price by the API.", param_hint="--also")
    else:
        request.unit_amount = unit_amount(amount, currency, "--amount")
        request.currency_options.extend(
            CurrencyOption(currency=other.lower(), unit_amount=unit_amount(text, other, "--also"))
            for other, text in pairs(also, "--also").items()
        )
    if divide_by is not None:
        rounding = enum_value(TransformQuantityRound, package_round, "--package-round")
        request.transform_quantity.CopyFrom(TransformQuantity(divide_by=divide_by, round=rounding))
    show(context, lambda client: client.catalog.CreatePrice(request))


def _tiers(texts: Sequence[str], currency: str) -> list[Tier]:
    tiers = []
    for text in texts:
        up_to, _, rest = text.partition(":")
        unit, _, flat = rest.partition(":")
        try:
            bound = None if up_to == "inf" else int(up_to)
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is not UP_TO:UNIT_PRICE[:FLAT], such as 10:5.00 or inf:4.00:20.00.",
                param_hint="--tier",
            ) from None
        tiers.append(
            Tier(
                up_to=bound,
                unit_amount=unit_amount(unit or "0", currency, "--tier"),
                flat_amount=money(flat or "0", currency, "--tier"),
            )
        )
    return tiers


@app.command("list")
def list_prices(
    context: typer.Context,
    product: Annotated[str, typer.Option(help="Only those of this product.")] = "",
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only active or inactive ones.")] = None,
    lookup_key: Annotated[list[str] | None, typer.Option(help="Only with one of these lookup keys.")] = None,
    limit: Limit = LIST_LIMIT,
) -> None:
    """List prices, newest first."""
    request = ListPricesRequest(product=product, active=active, lookup_keys=lookup_key or [])
    run(
        context,
        lambda session: session.list(session.client.catalog.ListPrices, request, lambda page: page.prices, limit),
    )


@app.command("show")
def show_price(context: typer.Context, identifier: Identifier) -> None:
    """Show a price."""
    show(context, lambda client: client.catalog.GetPrice(GetPriceRequest(id=identifier)))
