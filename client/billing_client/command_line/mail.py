"""`billing mail`: the e-mails that a server without an SMTP server has written into its data directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from billing_client.command_line.options import LIST_LIMIT, CustomerFilter, Limit
from billing_client.command_line.output import Output
from billing_client.command_line.session import FAILED, GlobalOptions
from billing_client.credentials import find_data_directory
from billing_client.instants import format_seconds

app = typer.Typer(help="E-mails in the data directory, as written without an SMTP server.", no_args_is_help=True)

MAIL_FOLDER = "mail"
_SUFFIX = ".eml"
_COLUMNS = ("id", "time", "kind", "customer", "to", "subject")

Folder = Annotated[
    Path | None,
    typer.Option(help="Where they lie. Default: mail/ in BILLING_DATA_DIR, else in the nearest .data upwards."),
]


@app.command("list")
def list_mail(
    context: typer.Context,
    customer: CustomerFilter = "",
    kind: Annotated[str, typer.Option(help="Only those of this kind, such as receipt or trial_reminder.")] = "",
    limit: Limit = LIST_LIMIT,
    folder: Folder = None,
) -> None:
    """List e-mails, newest first."""
    output = _output(context)
    rows: list[dict[str, str]] = []
    more = False
    for path in _files(_folder(output, folder)):
        row = _row(path)
        if (customer and row["customer"] != customer) or (kind and row["kind"] != kind.replace("-", "_")):
            continue
        if limit and len(rows) == limit:
            more = True
            break
        rows.append(row)
    if output.as_json:
        for row in rows:
            output.line_of_json(row)
        return
    if not rows:
        output.note("There is nothing to list.")
        return
    output.table(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
    if more:
        output.note(f"These are the first {limit}; --limit 0 lists all.")


@app.command()
def show(
    context: typer.Context,
    identifier: Annotated[str, typer.Argument(help="Id of the message, as `billing mail list` has it.")],
    html: Annotated[bool, typer.Option("--html", help="Print the HTML instead of the plain text.")] = False,
    folder: Folder = None,
) -> None:
    """Show one e-mail."""
    output = _output(context)
    path = _folder(output, folder) / f"{identifier}{_SUFFIX}"
    if Path(identifier).name != identifier or not path.is_file():
        _fail(output, f"there is no e-mail {identifier} in {path.parent}; `billing mail list` shows them")
    letter = BytesParser(_class=EmailMessage, policy=policy.default).parsebytes(path.read_bytes())
    body = letter.get_body(("html" if html else "plain",))
    text = "" if body is None else str(body.get_content())
    if output.as_json:
        output.line_of_json({**_row(path), "html" if html else "text": text})
        return
    if html:
        output.line(text)
        return
    for name in ("Date", "From", "To", "Subject"):
        output.line(f"{name}: {letter[name]}")
    output.line(f"\n{text}")


def _output(context: typer.Context) -> Output:
    options = context.find_object(GlobalOptions) or GlobalOptions()
    return Output(as_json=options.as_json, color=options.color)


def _folder(output: Output, given: Path | None) -> Path:
    if given is not None:
        return given
    data_directory = find_data_directory(os.environ, Path.cwd())
    if data_directory is None:
        _fail(output, "there is no data directory here; set BILLING_DATA_DIR, or name the folder by --folder")
    return data_directory / MAIL_FOLDER


def _fail(output: Output, text: str) -> NoReturn:
    output.errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(FAILED)


def _files(folder: Path) -> Iterator[Path]:
    """The e-mails, newest first: ids sort by the time they were made."""
    if folder.is_dir():
        yield from sorted(folder.glob(f"[!.]*{_SUFFIX}"), key=lambda path: path.name, reverse=True)


def _row(path: Path) -> dict[str, str]:
    """What the head of an e-mail says."""
    with path.open("rb") as file:
        head = BytesHeaderParser(policy=policy.default).parse(file)
    return {
        "id": path.name.removesuffix(_SUFFIX),
        "time": _time(str(head["Date"] or "")),
        "kind": str(head["X-Billing-Kind"] or ""),
        "customer": str(head["X-Billing-Customer"] or ""),
        "to": str(head["To"] or ""),
        "subject": str(head["Subject"] or ""),
    }


def _time(date: str) -> str:
    try:
        return format_seconds(int(parsedate_to_datetime(date).timestamp()))
    except ValueError:
        return date
