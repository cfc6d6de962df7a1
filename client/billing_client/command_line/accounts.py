"""`billing account` and `billing keys`: the account itself and its API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from billing.v1.account_model_pb2 import (
    InvoiceFinalAction,
    OverduePolicy,
    RetryPolicy,
    RetryPolicyKind,
    RetryWindow,
    SubscriptionFinalAction,
)
from billing.v1.account_service_pb2 import (
    CreateApiKeyRequest,
    GetAccountRequest,
    ListApiKeysRequest,
    RevokeApiKeyRequest,
    UpdateSettingsRequest,
)
from billing_client.command_line.options import LIST_LIMIT, Identifier, Limit, enum_value, pairs
from billing_client.command_line.session import Session, run, show

app = typer.Typer(help="The account and its settings.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)

_SUBSCRIPTION_ACTIONS = "cancel, unpaid or past_due."
_INVOICE_ACTIONS = "leave_open, uncollectible or void."


@app.command("show")
def show_account(context: typer.Context) -> None:
    """Show the account and its settings."""
    show(context, lambda client: client.account.GetAccount(GetAccountRequest()))


@app.command()
def settings(
    context: typer.Context,
    retry_days: Annotated[
        str, typer.Option(help="Custom retries: days after the attempt before, such as 3,5,7; none for none.")
    ] = "",
    smart_retries: Annotated[int | None, typer.Option(help="Smart retries: how many.", min=1, max=8)] = None,
    retry_window: Annotated[
        str, typer.Option(help="Smart retries: one_week, two_weeks, three_weeks, one_month or two_months.")
    ] = "",
    subscription_final_action: Annotated[str, typer.Option(help=f"After the last retry: {_SUBSCRIPTION_ACTIONS}")] = "",
    invoice_final_action: Annotated[str, typer.Option(help=f"After the last retry: {_INVOICE_ACTIONS}")] = "",
    overdue_days: Annotated[
        int | None, typer.Option(help="Sent invoices: days after the due date until the actions.", min=0)
    ] = None,
    overdue_subscription_action: Annotated[str, typer.Option(help=_SUBSCRIPTION_ACTIONS)] = "",
    overdue_invoice_action: Annotated[str, typer.Option(help=_INVOICE_ACTIONS)] = "",
    default_currency: Annotated[str | None, typer.Option(help="Currency that amounts are compared in.")] = None,
    exchange_rate: Annotated[
        list[str] | None, typer.Option(help="CURRENCY=RATE in the default currency; replaces the table.")
    ] = None,
    company_name: Annotated[str | None, typer.Option(help="Name on invoices and e-mails.")] = None,
    company_domain: Annotated[str | None, typer.Option(help="Domain of the company's addresses.")] = None,
    statement_descriptor: Annotated[str | None, typer.Option(help="Text on bank statements.")] = None,
    upcoming_renewal_days: Annotated[
        int | None, typer.Option(help="Days of notice before renewals; 0 for none.", min=0)
    ] = None,
    finalization_delay_seconds: Annotated[
        int | None, typer.Option(help="Seconds that automatic invoices stay drafts.", min=0)
    ] = None,
) -> None:
    """Change settings; what is not named stays. Without any option, they are shown."""
    request = UpdateSettingsRequest(
        exchange_rates=pairs(exchange_rate, "--exchange-rate"),
        retry_policy=_retry_policy(retry_days, smart_retries, retry_window),
        overdue_policy=_overdue_policy(overdue_days, overdue_subscription_action, overdue_invoice_action),
        default_currency=default_currency,
        company_name=company_name,
        company_domain=company_domain,
        statement_descriptor=statement_descriptor,
        upcoming_renewal_days=upcoming_renewal_days,
        finalization_delay_seconds=finalization_delay_seconds,
    )
    if subscription_final_action:
        request.subscription_final_action = enum_value(
            SubscriptionFinalAction, subscription_final_action, "--subscription-final-action"
        )
    if invoice_final_action:
        request.invoice_final_action = enum_value(InvoiceFinalAction, invoice_final_action, "--invoice-final-action")
    if not request.ListFields():
        show_account(context)
        return
    show(context, lambda client: client.account.UpdateSettings(request))


def _retry_policy(days: str, smart: int | None, window: str) -> RetryPolicy | None:
    if days and (smart is not None or window):
        raise typer.BadParameter("custom and smart retries exclude each other.", param_hint="--retry-days")
    if smart is not None or window:
        return RetryPolicy(
            kind=RetryPolicyKind.RETRY_POLICY_KIND_SMART,
            max_retries=smart,
            window=enum_value(RetryWindow, window, "--retry-window"),
        )
    if not days:
        return None
    try:
        numbers = [] if days.strip().lower() == "none" else [int(day) for day in days.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{days!r} is no list of days such as 3,5,7.", param_hint="--retry-days") from None
    return RetryPolicy(kind=RetryPolicyKind.RETRY_POLICY_KIND_CUSTOM, retry_days=numbers)


def _overdue_policy(days: int | None, subscription_action: str, invoice_action: str) -> OverduePolicy | None:
    if days is None and not subscription_action and not invoice_action:
        return None
    return OverduePolicy(
        days_after_due=days,
        subscription_action=enum_value(SubscriptionFinalAction, subscription_action, "--overdue-subscription-action"),
        invoice_action=enum_value(InvoiceFinalAction, invoice_action, "--overdue-invoice-action"),
    )


@keys.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name for people to read.", show_default=False)],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do, such as invoices:read; * for everything.")
    ] = None,
) -> None:
    """Make an API key. Its secret is shown this once."""
    request = CreateApiKeyRequest(name=name, scopes=scope or ["*"])

    async def work(session: Session) -> None:
        made = await session.client.account.CreateApiKey(request)
        session.output.message(made)
        session.output.note("Keep the secret: it is not shown again.")

    run(context, work)


@keys.command("list")
def list_keys(
    context: typer.Context,
    revoked: Annotated[bool, typer.Option("--revoked", help="List revoked keys as well.")] = False,
    limit: Limit = LIST_LIMIT,
) -> None:
    """List API keys, newest first."""
    run(
        context,
        lambda session: session.list(
            session.client.account.ListApiKeys,
            ListApiKeysRequest(include_revoked=revoked),
            lambda page: page.api_keys,
            limit,
        ),
    )


@keys.command()
def revoke(context: typer.Context, identifier: Identifier) -> None:
    """Revoke an API key for good."""
    show(context, lambda client: client.account.RevokeApiKey(RevokeApiKeyRequest(id=identifier)))
