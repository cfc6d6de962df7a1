"""Where answers go: tables for people, JSON for machines, errors on the other channel in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from billing_client.command_line import rendering
from billing_client.errors import BillingError

_WIDTH_IN_PIPES = 240


class Output:
    """Prints to standard output; what is not the answer itself goes to standard error."""

    def __init__(self, *, as_json: bool = False, color: bool = True) -> None:
        self.as_json = as_json
        self.console = _console(color, to_errors=False)
        self.errors = _console(color, to_errors=True)

    def message(self, message: Message) -> None:
        """Show one object: its fields, then its lists as tables."""
        if self.as_json:
            self._write(json.dumps(rendering.as_json(message), indent=2))
            return
        currency = str(getattr(message, "currency", ""))
        table = Table.grid(padding=(0, 2))
        for name, text in rendering.details(message):
            table.add_row(Text(name, style="bold"), Text(text))
        self.console.print(table)
        for name, rows in rendering.tables(message):
            self.messages(list(rows), title=name, currency=currency)

    def messages(self, messages: Sequence[Message], *, title: str = "", currency: str = "") -> None:
        """Show a list of objects of one kind, as a table or as one line of JSON each."""
        if self.as_json:
            for message in messages:
                self.line_of_json(rendering.as_json(message))
            return
        if not messages:
            self.note("There is nothing to list.")
            return
        columns = rendering.columns_of(messages[0].DESCRIPTOR.name)
        rows = [[rendering.cell(message, column, currency) for column in columns] for message in messages]
        self.table(columns, rows, title=title)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        title: str = "",
        right: frozenset[str] = frozenset(),
    ) -> None:
        """Print a table of texts; columns named in `right`, and those of amounts, are aligned to the right."""
        table = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False)
        for column in columns:
            numeric = column in right or "amount" in column or column in ("total", "balance", "ending_balance")
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self.console.print(table)

    def line_of_json(self, value: Any) -> None:
        """Print one line of JSON."""
        self._write(json.dumps(value, separators=(",", ":")))

    def line(self, text: str) -> None:
        """Print a line for people as part of the answer."""
        self.console.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a remark that is not part of the answer."""
        self.errors.print(Text(text, style="dim"), soft_wrap=True)

    def error(self, error: BillingError) -> None:
        """Print an error: one line for people, or one line of JSON."""
        if not self.as_json:
            self.errors.print(Text(describe(error), style="red"), soft_wrap=True)
            return
        violations = [
            {"field": item.field, "reason": item.reason, "description": item.description} for item in error.violations
        ]
        fields = {
            "code": error.code.name,
            "reason": error.reason,
            "message": error.message,
            "way_out": error.way_out,
            "violations": violations,
            "request_id": error.request_id,
        }
        found = {name: value for name, value in fields.items() if value}
        print(json.dumps({"error": found}), file=sys.stderr)  # noqa: T201  (machines read this line)

    def progress(self, *columns: ProgressColumn) -> Progress:
        """A progress bar on standard error, so that pipes stay clean; none for machines."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            *columns,
            TimeElapsedColumn(),
            console=self.errors,
            disable=self.as_json,
        )

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def describe(error: BillingError) -> str:
    """An error as one line: what is wrong, in which field, why, and the way out."""
    facts = [f"{item.field}: {item.description}" for item in error.violations if item.field]
    said = "; ".join(facts) or error.message.strip() or error.code.name
    decline_code = error.metadata.get("decline_code", "")
    reason = ", ".join(filter(None, (error.reason.lower() or error.code.name.lower(), decline_code)))
    ended = said if said.endswith((".", "!", "?")) else f"{said}."
    return " ".join(filter(None, (f"{ended[0].upper()}{ended[1:]}", f"({reason})", error.way_out)))


def _console(color: bool, *, to_errors: bool) -> Console:
    """A console that leaves text alone: no markup, no guesses at highlights, no narrow tables in pipes."""
    console = Console(stderr=to_errors, no_color=None if color else True, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_IN_PIPES
    return console
