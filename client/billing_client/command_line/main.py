"""The `billing` command: its groups, its global options, and where it starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import billing_client
from billing_client.channel import service_config_text
from billing_client.command_line import (
    accounts,
    audits,
    automations,
    clocks,
    consumers,
    credit_notes,
    customers,
    events,
    forecasts,
    invoices,
    mail,
    payment_methods,
    payments,
    prices,
    products,
    replays,
    schedules,
    subscription_imports,
    subscriptions,
    webhooks,
)
from billing_client.command_line.session import INTERRUPTED, GlobalOptions

app = typer.Typer(
    name="billing",
    help="Talk to a billing engine. Amounts are in major units (29.85), times in UTC.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(accounts.app, name="account")
app.add_typer(accounts.keys, name="keys")
app.add_typer(products.app, name="products")
app.add_typer(prices.app, name="prices")
app.add_typer(customers.app, name="customers")
app.add_typer(payment_methods.app, name="payment-methods")
app.add_typer(subscriptions.app, name="subscriptions")
subscriptions.app.command("import")(subscription_imports.import_subscriptions)
app.add_typer(schedules.app, name="schedules")
app.add_typer(automations.app, name="automations")
app.add_typer(invoices.app, name="invoices")
app.add_typer(invoices.items, name="invoice-items")
app.add_typer(credit_notes.app, name="credit-notes")
app.add_typer(payments.app, name="payments")
app.add_typer(events.app, name="events")
app.add_typer(consumers.app, name="consumers")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(mail.app, name="mail")
app.add_typer(clocks.app, name="clock")
app.add_typer(replays.app, name="replay")
app.command("forecast")(forecasts.forecast)
app.command("audit")(audits.audit)

_FLAGS = frozenset({"--json", "--no-color", "--plaintext"})
_VALUES = frozenset({"--target", "--api-key", "--timeout", "--ca-file"})


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"billing {billing_client.__version__}")
        raise typer.Exit


@app.callback()
def billing(
    context: typer.Context,
    target: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of the server. Default: that of this checkout, else 127.0.0.1:50051."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="Default: BILLING_API_KEY, else the key that `make run` left for this checkout."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; lists as one line for each.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print without colours.")] = False,
    plaintext: Annotated[bool, typer.Option("--plaintext", help="No TLS, also for servers on other machines.")] = False,
    ca_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Authorities to trust (PEM); means TLS.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one attempt of a call may take.", min=0.1)] = 30,
    version: Annotated[  # noqa: ARG001  (its callback answers)
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    context.obj = GlobalOptions(
        target=target,
        api_key=api_key,
        plaintext=plaintext,
        authorities_file=ca_file,
        timeout_seconds=timeout,
        as_json=as_json,
        color=not no_color,
    )


@app.command("service-config")
def service_config() -> None:
    """Print the gRPC service config for clients in other languages."""
    typer.echo(service_config_text(), nl=False)


def hoist(arguments: Sequence[str]) -> list[str]:
    """Bring global options to the front, so that they may stand anywhere in the command."""
    front: list[str] = []
    rest: list[str] = []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if argument == "--":
            rest += [argument, *remaining]
            break
        if argument in _VALUES and remaining:
            front += [argument, remaining.pop(0)]
        elif argument in _FLAGS or ("=" in argument and argument.partition("=")[0] in _VALUES):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def main() -> None:
    """Entry point of the `billing` script. Exit status: 0, 1 for a failure, 2 for wrong usage."""
    try:
        app(args=hoist(sys.argv[1:]), prog_name="billing")
    except BrokenPipeError:
        # Whoever read the output has seen enough; what is still buffered has no reader.
        sys.stderr.close()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
